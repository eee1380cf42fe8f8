//! Prints a CGI response as a web server sends it: the headers parsed, the body unchanged.

use std::io::{
    BufRead, Read as _, Write, {self},
};

/// Maximum size of response headers in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// The result of printing a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// A response with this status.
    Response {
        /// Three digits; 200 if the response has none.
        status: u16,
    },
    /// The response headers are invalid or incomplete. Nothing was printed.
    NotAResponse(Vec<u8>),
    /// The reader has closed standard output.
    OutputClosed,
}

/// Prints the response that `response` reads, with its headers if `include` is set.
pub(super) fn response(
    mut response: impl BufRead,
    include: bool,
    head_only: bool,
) -> io::Result<Printed> {
    let mut fields = Vec::new();
    let mut status = None;
    let mut headers = Vec::new();
    let mut source = response.by_ref().take(MAX_HEADER_BYTES);
    loop {
        let begin = headers.len();
        source.read_until(b'\n', &mut headers)?;
        let line = &headers[begin..];
        if !line.ends_with(b"\n") {
            return Ok(Printed::NotAResponse(headers));
        }
        let line = line.trim_ascii_end();
        if line.is_empty() {
            break;
        }
        match line.iter().position(|&byte| byte == b':') {
            None | Some(0) => return Ok(Printed::NotAResponse(headers)),
            Some(colon) if line[..colon].eq_ignore_ascii_case(b"Status") => {
                status = Some(String::from_utf8_lossy(line[colon + 1..].trim_ascii()).into_owned());
            }
            Some(colon) => {
                if line[..colon].eq_ignore_ascii_case(b"Location") {
                    // A redirect may leave out the status (RFC 3875 6.2.3).
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
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::OutputClosed),
        Err(error) => Err(error),
        Ok(()) => {
            let code = status.get(..3).and_then(|code| code.parse().ok());
            Ok(Printed::Response { status: code.filter(|code| *code >= 100).unwrap_or(500) })
        }
    }
}

/// Passes on each piece at once, so that a streamed response is visible while it is sent.
fn pass_on(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    // Headers without a body are visible at once, too.
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
