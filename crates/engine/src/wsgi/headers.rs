//! Response headers: status and header fields, checked when the application passes them (PEP 3333
//! *The start_response() Callable*, *Other HTTP Features*; RFC 3875 6.3).
//!
//! Values that could inject another header are rejected, not corrected.

use std::{fmt, ops::Range};

use diagnostics::request_id;
use wire::request::ResponseFormat;

use crate::wsgi::names::{decimal, is_token};

/// The maximum length of a header field in bytes, with name and separator. Apache's CGI modules
/// accept lines below 8,190 bytes and answer longer lines with 500.
const MAX_FIELD_BYTES: usize = 8_180;

/// The maximum total length of the headers in bytes; lighttpd accepts no more.
const MAX_HEADERS_BYTES: usize = 65_000;

/// The usual size of response headers in bytes.
const USUAL_HEADERS_BYTES: usize = 512;

/// Hop-by-hop headers, which only the web server may send (RFC 9110 7.6.1; PEP 3333 *Other HTTP
/// Features*).
const HOP_BY_HOP: [&[u8]; 8] = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"TE",
    b"Trailers",
    b"Transfer-Encoding",
    b"Upgrade",
];

/// Valid response headers, in the form in which they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResponseHeaders {
    /// The headers without the blank line at the end.
    bytes: Vec<u8>,
    form: ResponseFormat,
    code: u16,
    content_length: Option<u64>,
    has_type: bool,
    /// The range of the `Location` field in `bytes`.
    location: Option<Range<usize>>,
}

/// The reason for which a status or header is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InvalidHeaders {
    Status(String),
    Interim(String),
    Name(String),
    ControlCharacter(String),
    HopByHop(String),
    StatusField,
    Duplicate(String),
    ContentLength(String),
    FieldTooLong(String, usize),
    HeadersTooLong(usize),
}

impl fmt::Display for InvalidHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(
                f,
                "status `{status}` is not three digits, a space and a reason without control \
                 characters, such as `200 OK`"
            ),
            Self::Interim(status) => {
                write!(
                    f,
                    "status `{status}` is no final one; interim responses are the web server's to \
                     send"
                )
            }
            Self::Name(name) => write!(f, "header name `{name}` is not an HTTP token"),
            Self::ControlCharacter(name) => {
                write!(
                    f,
                    "the value of header `{name}` holds a control character, such as a line end"
                )
            }
            Self::HopByHop(name) => {
                write!(f, "header `{name}` is hop-by-hop: only the web server may send it")
            }
            Self::StatusField => f.write_str(
                "header `Status` is how CGI sends the status; pass that as the first argument",
            ),
            Self::Duplicate(name) => write!(f, "header `{name}` is given twice"),
            Self::ContentLength(value) => {
                write!(f, "Content-Length `{value}` is not a number of bytes")
            }
            Self::FieldTooLong(name, length) => {
                write!(
                    f,
                    "header `{name}` is {length} bytes long; web servers take no more than \
                     {MAX_FIELD_BYTES}"
                )
            }
            Self::HeadersTooLong(length) => {
                write!(
                    f,
                    "the headers are {length} bytes long together; web servers take no more than \
                     {MAX_HEADERS_BYTES}"
                )
            }
        }
    }
}

impl ResponseHeaders {
    /// Headers with a status, as latin-1 bytes, and no field.
    pub(super) fn new(form: ResponseFormat, status: &[u8]) -> Result<Self, InvalidHeaders> {
        let code = match status {
            [b'1', b'0'..=b'9', b'0'..=b'9', b' ', ..] => {
                return Err(InvalidHeaders::Interim(text(status)));
            }
            [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', reason @ ..]
                if !reason.iter().any(|&byte| is_control(byte)) =>
            {
                status[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(InvalidHeaders::Status(text(status))),
        };
        let (before, after) = form.around_status();
        let mut bytes = Vec::with_capacity(USUAL_HEADERS_BYTES);
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend_from_slice(status);
        bytes.extend_from_slice(after.as_bytes());
        if bytes.len() > MAX_HEADERS_BYTES {
            return Err(InvalidHeaders::HeadersTooLong(bytes.len()));
        }
        Ok(Self { bytes, form, code, content_length: None, has_type: false, location: None })
    }

    /// Adds a field as the application passed it.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), InvalidHeaders> {
        if !is_token(name) {
            return Err(InvalidHeaders::Name(text(name)));
        }
        if value.iter().any(|&byte| byte != b'\t' && is_control(byte)) {
            return Err(InvalidHeaders::ControlCharacter(text(name)));
        }
        let length = name.len() + 2 + value.len();
        if length > MAX_FIELD_BYTES {
            return Err(InvalidHeaders::FieldTooLong(text(name), length));
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"Status") {
            return Err(InvalidHeaders::StatusField);
        }
        if HOP_BY_HOP.iter().any(|known| is(known)) {
            return Err(InvalidHeaders::HopByHop(text(name)));
        }
        // CGI allows these fields once (RFC 3875 6.3).
        let is_twice = if is(b"Content-Length") {
            let length =
                decimal(value).ok_or_else(|| InvalidHeaders::ContentLength(text(value)))?;
            self.content_length.replace(length).is_some()
        } else if is(b"Content-Type") {
            std::mem::replace(&mut self.has_type, true)
        } else if is(b"Location") {
            let place = self.bytes.len()..self.bytes.len() + length + 2;
            self.location.replace(place).is_some()
        } else {
            false
        };
        if is_twice {
            return Err(InvalidHeaders::Duplicate(text(name)));
        }
        if self.may_have_length() || !is(b"Content-Length") {
            self.push(name, value);
        }
        if self.bytes.len() > MAX_HEADERS_BYTES {
            return Err(InvalidHeaders::HeadersTooLong(self.bytes.len()));
        }
        Ok(())
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Is there a `Content-Type`?
    pub(super) fn has_type(&self) -> bool {
        self.has_type
    }

    /// Does this status exclude a body (RFC 9110 15.3.5, 15.3.6, 15.4.5)?
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.code, 204 | 205 | 304)
    }

    /// May the response have a Content-Length? With 304 the length describes another response (RFC
    /// 9110 8.6); 204 and 205 have no body.
    fn may_have_length(&self) -> bool {
        !matches!(self.code, 204 | 205)
    }

    /// The status of the response.
    pub(super) fn status(&self) -> u16 {
        self.code
    }

    /// Is the body a part of a representation (RFC 9110 15.3.7)?
    pub(super) fn is_partial(&self) -> bool {
        self.code == 206
    }

    /// The Content-Length in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Adds a Content-Length.
    pub(super) fn set_content_length(&mut self, length: u64) {
        self.content_length = Some(length);
        self.push(b"Content-Length", length.to_string().as_bytes());
    }

    /// Asks the web server to close the client's connection after this response.
    pub(super) fn close_connection(&mut self) {
        self.push(b"Connection", b"close");
    }

    /// Names of the header fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.bytes.split(|&byte| byte == b'\n').skip(1);
        lines.filter_map(|line| line.split(|&byte| byte == b':').next().filter(|n| !n.is_empty()))
    }

    /// Adds a field that asks the web server for the body, which then has another length than the
    /// response of the application.
    pub(super) fn leave_body_to_server(
        &mut self,
        name: &str,
        value: &[u8],
    ) -> Result<(), InvalidHeaders> {
        self.add(name.as_bytes(), value)?;
        if self.content_length.take().is_some() {
            let lines = self.bytes.split_inclusive(|&byte| byte == b'\n');
            let is_length = |line: &&[u8]| is_field(line, "Content-Length");
            self.bytes = lines.filter(|line| !is_length(line)).flatten().copied().collect();
        }
        Ok(())
    }

    /// Adds the request id, unless the application has sent an id of its own.
    pub(super) fn add_request_id(&mut self, id: &str) {
        let name = request_id::HEADER;
        let mut lines = self.bytes.split(|&byte| byte == b'\n');
        if !id.is_empty() && !lines.any(|line| is_field(line, name)) {
            self.push(name.as_bytes(), id.as_bytes());
        }
    }

    /// Adds `Content-Length: 0` to a response with status 205 (RFC 9110 15.3.6).
    pub(super) fn complete_length(&mut self) {
        if self.code == 205 {
            self.set_content_length(0);
        }
    }

    /// Removes the `Location` of a response with status 200, which web servers treat as a redirect
    /// in CGI (RFC 3875 6.2.2 to 6.2.4). Returns whether the response had a `Location`.
    pub(super) fn remove_redirect_of_success(&mut self) -> bool {
        match self.location.take_if(|_| self.code == 200) {
            Some(place) => {
                self.bytes.drain(place);
                true
            }
            None => false,
        }
    }

    /// The headers as they are sent, with the blank line.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        // HAProxy ignores a status before a `Location`, and answers with 302. Fields may have any
        // order (RFC 3875 6.3).
        if let Some(place) =
            self.location.filter(|_| self.form == ResponseFormat::FastCgi && self.code != 302)
        {
            self.bytes[..place.end].rotate_right(place.len());
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }
}

/// Is `line` the field `name`?
fn is_field(line: &[u8], name: &str) -> bool {
    line.split_at_checked(name.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(name.as_bytes()) && rest.starts_with(b":")
    })
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

fn text(latin1: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut text: String = latin1.iter().take(SHOWN).map(|&byte| char::from(byte)).collect();
    if latin1.len() > SHOWN {
        text.push('…');
    }
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(form: ResponseFormat, status: &str, fields: &[(&str, &str)]) -> ResponseHeaders {
        let mut headers = ResponseHeaders::new(form, status.as_bytes()).expect(status);
        for (name, value) in fields {
            headers.add(name.as_bytes(), value.as_bytes()).expect(name);
        }
        headers
    }

    fn refusal(name: &[u8], value: &[u8]) -> InvalidHeaders {
        let mut headers = headers(ResponseFormat::Cgi, "200 OK", &[("Content-Type", "text/plain")]);
        headers.add(name, value).expect_err("the field is refused")
    }

    #[test]
    fn status_and_fields_are_sent_in_the_order_of_the_application() {
        let headers = headers(ResponseFormat::Cgi, "404 Not Found", &[("B", "2"), ("A", "1")]);
        assert_eq!(headers.into_bytes(), b"Status: 404 Not Found\r\nB: 2\r\nA: 1\r\n\r\n");
    }

    #[test]
    fn a_status_is_three_digits_a_space_and_a_reason() {
        for status in ["", "200", "OK", "20 OK", "2000 OK", "099 OK", "200 a\nb"] {
            let refused = ResponseHeaders::new(ResponseFormat::Cgi, status.as_bytes());
            assert!(matches!(refused, Err(InvalidHeaders::Status(_))), "{status}");
        }
        let interim = ResponseHeaders::new(ResponseFormat::Cgi, b"103 Early Hints");
        assert!(matches!(interim, Err(InvalidHeaders::Interim(_))));
    }

    #[test]
    fn fields_that_could_inject_others_or_belong_to_the_web_server_are_refused() {
        assert!(matches!(refusal(b"A B", b""), InvalidHeaders::Name(_)));
        assert!(matches!(refusal(b"A", b"1\r\nB: 2"), InvalidHeaders::ControlCharacter(_)));
        assert!(matches!(refusal(b"Status", b"200 OK"), InvalidHeaders::StatusField));
        assert!(matches!(refusal(b"connection", b"close"), InvalidHeaders::HopByHop(_)));
        assert!(matches!(refusal(b"content-type", b"a/b"), InvalidHeaders::Duplicate(_)));
        assert!(matches!(refusal(b"Content-Length", b"+1"), InvalidHeaders::ContentLength(_)));
        let long = vec![b'x'; MAX_FIELD_BYTES];
        assert!(matches!(refusal(b"A", &long), InvalidHeaders::FieldTooLong(..)));
    }

    #[test]
    fn a_location_of_a_success_is_removed_and_that_of_a_redirect_stays() {
        let fields = [("Location", "/x"), ("A", "1")];
        let mut success = headers(ResponseFormat::Cgi, "200 OK", &fields);
        assert!(success.remove_redirect_of_success());
        assert_eq!(success.into_bytes(), b"Status: 200 OK\r\nA: 1\r\n\r\n");
        let mut redirect = headers(ResponseFormat::FastCgi, "303 See Other", &fields);
        assert!(!redirect.remove_redirect_of_success());
        assert!(redirect.into_bytes().starts_with(b"Location: /x\r\nStatus: 303 See Other\r\n"));
    }

    #[test]
    fn a_status_without_a_body_has_no_length_of_the_application() {
        let mut headers = headers(ResponseFormat::Cgi, "205 Reset", &[("Content-Length", "9")]);
        headers.complete_length();
        assert_eq!(headers.into_bytes(), b"Status: 205 Reset\r\nContent-Length: 0\r\n\r\n");
    }
}
