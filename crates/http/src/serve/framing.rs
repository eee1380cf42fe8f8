//! The rules of HTTP/1.1 messages that hyper does not insist on (RFC 9112).
//!
//! Two programs that read one request differently can be made to see two requests (request
//! smuggling). A developer learns of such a request here, before a proxy in production refuses it:
//! line ends without CR, two lengths of a body, and numbers with more than digits.

/// Maximum length of the headers of a request in bytes.
pub(super) const MAX_HEADER_BYTES: usize = 96 * 1024;

/// Maximum length of the line before a chunk.
const MAX_SIZE_LINE_BYTES: usize = 4096;

/// Maximum number of digits in the size of a chunk.
const MAX_SIZE_DIGITS: usize = 15;

/// Why a request is refused.
pub(super) type Violation = &'static str;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Before the headers of a request, or in them.
    Headers,
    /// In a body, of which so many bytes are left.
    Body(u64),
    /// Before the size of a chunk.
    ChunkSize,
    /// In a chunk, of which so many bytes are left.
    Chunk(u64),
    /// After the content of a chunk.
    ChunkEnd,
    /// After the last chunk.
    Trailers,
}

impl Framing {
    /// How many bytes of `input` are right, and may be passed on; 0 if more bytes have to come.
    ///
    /// # Errors
    /// The rule that `input` breaks.
    pub(super) fn step(&mut self, input: &[u8]) -> Result<usize, Violation> {
        match *self {
            _ if input.is_empty() => Ok(0),
            Self::Headers => self.headers(input),
            Self::Body(left) | Self::Chunk(left) => {
                let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                self.skip_content(count);
                Ok(count)
            }
            Self::ChunkSize => self.chunk_size(input),
            Self::ChunkEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::ChunkSize;
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err("a chunk is longer than its size, or does not end with CRLF"),
            },
            Self::Trailers => self.trailer(input),
        }
    }

    /// How many bytes of content come next, which no rule concerns.
    pub(super) fn content_left(self) -> Option<u64> {
        match self {
            Self::Body(left) | Self::Chunk(left) => Some(left),
            _ => None,
        }
    }

    /// Passes `count` bytes of content on; not more than are left.
    pub(super) fn skip_content(&mut self, count: usize) {
        *self = match *self {
            Self::Body(left) if left <= count as u64 => Self::Headers,
            Self::Body(left) => Self::Body(left - count as u64),
            Self::Chunk(left) if left <= count as u64 => Self::ChunkEnd,
            Self::Chunk(left) => Self::Chunk(left - count as u64),
            other => other,
        };
    }

    fn headers(&mut self, input: &[u8]) -> Result<usize, Violation> {
        if let [b'\r', b'\n', ..] = input {
            // Some clients send an empty line after a body (RFC 9112 2.2).
            return Ok(2);
        }
        let end = end_of_headers(input)?;
        if end.unwrap_or(input.len()) > MAX_HEADER_BYTES {
            return Err("the headers are too long");
        }
        let Some(length) = end else { return Ok(0) };
        let mut lines = input[..length - 4].split(|&byte| byte == b'\n').map(without_cr);
        let is_1_1 = is_1_1(lines.next().unwrap_or_default())?;
        let (mut content_length, mut is_chunked, mut hosts) = (None, false, 0);
        for line in lines {
            let (name, value) = header(line)?;
            match name.to_ascii_lowercase().as_slice() {
                b"content-length" if content_length.is_some() => {
                    return Err("Content-Length comes twice");
                }
                b"content-length" => content_length = Some(number(value)?),
                b"transfer-encoding" if is_chunked || !is_1_1 => {
                    return Err("Transfer-Encoding comes twice, or in HTTP/1.0");
                }
                b"transfer-encoding" if value.eq_ignore_ascii_case(b"chunked") => {
                    is_chunked = true;
                }
                b"transfer-encoding" => return Err("Transfer-Encoding is not `chunked`"),
                b"host" => hosts += 1,
                _ => {}
            }
        }
        if hosts > 1 || hosts == 0 && is_1_1 {
            return Err("Host is missing, or comes twice");
        }
        *self = match (content_length, is_chunked) {
            (Some(_), true) => return Err("Content-Length comes with Transfer-Encoding"),
            (_, true) => Self::ChunkSize,
            (None | Some(0), false) => Self::Headers,
            (Some(length), false) => Self::Body(length),
        };
        Ok(length)
    }

    fn chunk_size(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let Some(length) = line(input)? else {
            let is_long = input.len() > MAX_SIZE_LINE_BYTES;
            return if is_long { Err("the line of a chunk's size is too long") } else { Ok(0) };
        };
        let text = &input[..length - 2];
        let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let is_ended = matches!(text.get(digits), None | Some(b';' | b' ' | b'\t'));
        let size = str::from_utf8(&text[..digits])
            .ok()
            .filter(|_| is_ended && (1..=MAX_SIZE_DIGITS).contains(&digits));
        let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
        *self = match size.ok_or("the size of a chunk is no number, or too large")? {
            0 => Self::Trailers,
            size => Self::Chunk(size),
        };
        Ok(length)
    }

    fn trailer(&mut self, input: &[u8]) -> Result<usize, Violation> {
        let Some(length) = line(input)? else {
            let is_long = input.len() > MAX_HEADER_BYTES;
            return if is_long { Err("a trailer is too long") } else { Ok(0) };
        };
        if length == 2 {
            *self = Self::Headers;
        } else {
            header(&input[..length - 2])?;
        }
        Ok(length)
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The length of headers with the empty line after them.
fn end_of_headers(input: &[u8]) -> Result<Option<usize>, Violation> {
    let mut at = 0;
    while let Some(length) = line(&input[at..])? {
        at += length;
        if length == 2 {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// The length of the first line with its end.
fn line(input: &[u8]) -> Result<Option<usize>, Violation> {
    for (at, byte) in input.iter().enumerate() {
        match (byte, input.get(at + 1)) {
            (b'\r', Some(b'\n')) => return Ok(Some(at + 2)),
            (b'\r', None) => return Ok(None),
            (b'\r' | b'\n', _) => return Err("a line does not end with CRLF"),
            (0, _) => return Err("there is a NUL byte in the headers"),
            _ => {}
        }
    }
    Ok(None)
}

/// Is the request line one of HTTP/1.1, and not of HTTP/1.0?
fn is_1_1(line: &[u8]) -> Result<bool, Violation> {
    let mut words = line.split(|&byte| byte == b' ');
    let words = [words.next(), words.next(), words.next(), words.next()];
    match words {
        [Some(method), Some(target), Some(version), None]
            if !method.is_empty() && !target.is_empty() =>
        {
            match version {
                b"HTTP/1.1" => Ok(true),
                b"HTTP/1.0" => Ok(false),
                _ => Err("the request is not one of HTTP/1.0 or HTTP/1.1"),
            }
        }
        _ => Err("the request line is not `METHOD TARGET HTTP/1.1`"),
    }
}

/// Name and value of a header.
fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("a header is continued on another line");
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or("a header has no colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
        return Err("the name of a header is empty, or has a space in it");
    }
    Ok((name, value))
}

/// The value of Content-Length.
fn number(value: &[u8]) -> Result<u64, Violation> {
    let digits = str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit));
    digits.and_then(|digits| digits.parse().ok()).ok_or("Content-Length is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `input` on in pieces of `size` bytes. Returns how many bytes were passed on.
    fn passed(input: &[u8], size: usize) -> Result<usize, Violation> {
        let (mut framing, mut waiting, mut count) = (Framing::Headers, Vec::new(), 0);
        for piece in input.chunks(size) {
            waiting.extend_from_slice(piece);
            loop {
                match framing.step(&waiting)? {
                    0 => break,
                    length => {
                        waiting.drain(..length);
                        count += length;
                    }
                }
            }
        }
        Ok(count)
    }

    #[test]
    fn right_requests_pass_wherever_they_are_split() {
        let requests = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\
            POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\r\n\
            POST / HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: Chunked\r\n\r\n\
            3\r\n\r\n\n\r\nA ;x=\"y\"\r\n0123456789\r\n000\r\nT: x\r\n\r\n\
            GET /last HTTP/1.0\r\n\r\n";
        for size in 1..requests.len() {
            assert_eq!(passed(requests, size), Ok(requests.len()), "{size}");
        }
    }

    #[test]
    fn nothing_of_a_wrong_request_passes() {
        for headers in ["Host: a\nB: c\r\n\r\n", "Host: a\r\n B: c\r\n\r\n", "Host: \0\r\n\r\n"] {
            let request = format!("GET / HTTP/1.1\r\n{headers}");
            for size in 1..request.len() {
                assert!(passed(request.as_bytes(), size).is_err(), "{request:?}");
            }
        }
    }
}
