//! A CGI response, as a web server would pass it on: the head taken apart, the body byte for byte.

use std::io::{
    BufRead, Read as _, Write, {self},
};

/// Longest head that is read.
const LONGEST_HEAD: u64 = 1 << 20;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// A response with this status.
    Response {
        /// Three digits; 200 where the response names none.
        status: u16,
    },
    /// What came is no head, or not the whole of one. Nothing was printed.
    NoHead(Vec<u8>),
    /// Whoever read our output had enough.
    ReaderGone,
}

/// Prints the response that comes from `response`; its head too with `include`.
pub(super) fn response(
    mut response: impl BufRead,
    include: bool,
    head_only: bool,
) -> io::Result<Printed> {
    let mut fields = Vec::new();
    let mut status = None;
    let mut head = Vec::new();
    let mut source = response.by_ref().take(LONGEST_HEAD);
    loop {
        let begin = head.len();
        source.read_until(b'\n', &mut head)?;
        let line = &head[begin..];
        if !line.ends_with(b"\n") {
            return Ok(Printed::NoHead(head));
        }
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        match line.iter().position(|&byte| byte == b':') {
            None | Some(0) => return Ok(Printed::NoHead(head)),
            Some(colon) if line[..colon].eq_ignore_ascii_case(b"Status") => {
                status = Some(String::from_utf8_lossy(line[colon + 1..].trim_ascii()).into_owned());
            }
            Some(colon) => {
                if line[..colon].eq_ignore_ascii_case(b"Location") {
                    // A redirect need not say so by its status (RFC 3875 6.2.3).
                    status.get_or_insert_with(|| "302 Found".to_owned());
                }
                fields.extend([line, b"\r\n"].concat());
            }
        }
    }
    let status = status.unwrap_or_else(|| "200 OK".to_owned());
    let mut output = io::stdout().lock();
    let passed = (|| {
        if include {
            output.write_all(format!("HTTP/1.1 {status}\r\n").as_bytes())?;
            output.write_all(&fields)?;
            output.write_all(b"\r\n")?;
        }
        if !head_only {
            pass_on(&mut response, &mut output)?;
        }
        output.flush()
    })();
    match passed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(error) => Err(error),
        Ok(()) => {
            let code = status.get(..3).and_then(|code| code.parse().ok());
            Ok(Printed::Response { status: code.filter(|code| *code >= 100).unwrap_or(500) })
        }
    }
}

/// Passes on what comes as it comes: a stream is to be seen while it runs.
fn pass_on(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    // A head that stands alone is to be seen, too.
    to.flush()?;
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
