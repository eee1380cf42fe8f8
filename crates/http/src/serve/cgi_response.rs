//! The beginning of a CGI response (RFC 3875 6): its headers become those of HTTP.

use hyper::{
    HeaderMap, StatusCode,
    header::{HeaderName, HeaderValue},
};

/// Maximum length of the headers in bytes.
const MAX_HEADER_BYTES: usize = 256 * 1024;

/// Status and headers of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ResponseStart {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// Why bytes are not the beginning of a CGI response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadStart(pub(super) &'static str);

impl ResponseStart {
    /// Parses what `bytes` begin with. Returns the length of the headers, too; `None` if more bytes
    /// have to come.
    ///
    /// # Errors
    /// If the bytes are no headers.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, BadStart> {
        let mut start = Self { status: StatusCode::OK, headers: HeaderMap::new() };
        let (mut at, mut has_status) = (0, false);
        loop {
            let Some(length) = bytes[at..].iter().position(|&byte| byte == b'\n') else {
                let is_long = bytes.len() > MAX_HEADER_BYTES;
                return if is_long { Err(BadStart("headers are too long")) } else { Ok(None) };
            };
            let line = &bytes[at..at + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            at += length + 1;
            if line.is_empty() {
                if start.headers.contains_key("location") && !has_status {
                    start.status = StatusCode::FOUND;
                }
                return Ok(Some((start, at)));
            }
            has_status |= start.add(line)?;
        }
    }

    /// Adds a header line. Returns whether the line is the status.
    fn add(&mut self, line: &[u8]) -> Result<bool, BadStart> {
        let colon =
            line.iter().position(|&byte| byte == b':').ok_or(BadStart("a line without colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = value.get(..3).ok_or(BadStart("a short status"))?;
            self.status = StatusCode::from_bytes(code).map_err(|_| BadStart("a wrong status"))?;
            return Ok(true);
        }
        let name = HeaderName::from_bytes(name).map_err(|_| BadStart("a wrong header name"))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| BadStart("a wrong header value"))?;
        // These belong to the connection with the client, which is not the application's.
        if !["connection", "keep-alive", "transfer-encoding", "upgrade"].contains(&name.as_str()) {
            self.headers.append(name, value);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_complete_with_its_empty_line() {
        let bytes = b"Status: 404 Not Found\r\nA: b\r\na: c\r\nConnection: x\r\n\r\nbody";
        for end in 0..bytes.len() - 4 {
            assert_eq!(ResponseStart::parse(&bytes[..end]), Ok(None), "{end}");
        }
        let (start, length) = ResponseStart::parse(bytes).unwrap().unwrap();
        assert_eq!((start.status.as_u16(), &bytes[length..]), (404, &b"body"[..]));
        let values: Vec<_> = start.headers.iter().map(|(_, value)| value.as_bytes()).collect();
        assert_eq!(values, [b"b", b"c"]);
    }

    #[test]
    fn a_status_is_200_or_a_redirect_if_there_is_none() {
        for (bytes, status) in [
            (&b"Content-Type: text/plain\n\n"[..], 200),
            (b"Location: http://a/\n\n", 302),
            (b"Location: http://a/\nStatus: 201\n\n", 201),
        ] {
            let (start, length) = ResponseStart::parse(bytes).unwrap().unwrap();
            assert_eq!((start.status.as_u16(), length), (status, bytes.len()));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in
            [&b"hello\n"[..], b"Status: x\n", b"Status: 20\n", b"a b: c\n", b"A: \0\n", b": c\n"]
        {
            assert!(ResponseStart::parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(ResponseStart::parse(&vec![b'x'; MAX_HEADER_BYTES + 1]).is_err());
    }
}
