//! A CGI reply, as a web server would pass it on: the head taken apart, the body byte for byte.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Write},
    os::fd::OwnedFd,
};

/// Longest head that is read.
const LONGEST_HEAD: u64 = 1 << 20;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// A reply with this status.
    Reply {
        /// Three digits; 200 where the reply names none.
        status: u16,
    },
    /// Whoever read our output had enough.
    ReaderGone,
}

/// Prints the reply that comes from `reply`; its head too with `include`.
pub(super) fn reply(reply: OwnedFd, include: bool, head_only: bool) -> io::Result<Printed> {
    let mut reply = BufReader::new(File::from(reply));
    let mut fields = Vec::new();
    let mut status = "200 OK".to_owned();
    let mut head = reply.by_ref().take(LONGEST_HEAD);
    let mut line = Vec::new();
    loop {
        line.clear();
        head.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            // Only a reply that could not be made ends here, and the log says why.
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within its head"));
        }
        match line.trim_ascii_end() {
            b"" => break,
            field => match field.strip_prefix(b"Status: ") {
                Some(value) => status = String::from_utf8_lossy(value).into_owned(),
                None => fields.extend([field, b"\r\n"].concat()),
            },
        }
    }
    let mut output = io::stdout().lock();
    let passed = (|| {
        if include {
            output.write_all(format!("HTTP/1.1 {status}\r\n").as_bytes())?;
            output.write_all(&fields)?;
            output.write_all(b"\r\n")?;
        }
        if !head_only {
            pass_on(&mut reply, &mut output)?;
        }
        output.flush()
    })();
    match passed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(error) => Err(error),
        Ok(()) => Ok(Printed::Reply { status: status.get(..3).and_then(|code| code.parse().ok()).unwrap_or(500) }),
    }
}

/// Passes on what comes as it comes: a stream is to be seen while it runs.
fn pass_on(from: &mut BufReader<impl Read>, to: &mut impl Write) -> io::Result<()> {
    loop {
        let piece = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            piece => piece?,
        };
        if piece.is_empty() {
            return Ok(());
        }
        let length = piece.len();
        to.write_all(piece)?;
        to.flush()?;
        from.consume(length);
    }
}
