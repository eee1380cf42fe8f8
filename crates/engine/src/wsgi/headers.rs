//! The head of a response: status and header fields, checked when the application gives them,
//! written when they leave.
//!
//! PEP 3333 *The start_response() Callable*, *Other HTTP Features*; RFC 3875 6.3. What would let an
//! application's data become a header of its own is refused, not mended.

use std::{fmt, ops::Range};

use wire::request::ResponseFormat;

use crate::wsgi::variables::{decimal, is_token};

/// Longest field, name and separator included. Apache's CGI modules take lines below 8,190 bytes
/// and answer longer ones with a bare 500.
const MAX_FIELD_BYTES: usize = 8_180;

/// Longest head in bytes; lighttpd takes no more.
const MAX_HEADERS_BYTES: usize = 65_000;

/// Room for a head as most are, in bytes.
const USUAL_HEADERS_BYTES: usize = 512;

/// Fields between two neighbours, which only the web server may send (RFC 9110 7.6.1; PEP 3333
/// *Other HTTP Features*).
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

/// A valid head, written as it will leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResponseHeaders {
    /// All but the blank line at the end.
    bytes: Vec<u8>,
    form: ResponseFormat,
    code: u16,
    content_length: Option<u64>,
    has_type: bool,
    /// Where in `bytes` the field stands.
    location: Option<Range<usize>>,
}

/// Why a status or header cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InvalidHeaders {
    Status(String),
    Interim(String),
    Name(String),
    ControlCharacter(String),
    HopByHop(String),
    StatusField,
    DuplicatePolicy(String),
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
            Self::DuplicatePolicy(name) => write!(f, "header `{name}` is given twice"),
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
    /// A head with a status and no field yet, as latin-1 bytes.
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

    /// Adds a field as the application gave it.
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
        // A CGI field comes once (RFC 3875 6.3).
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
            return Err(InvalidHeaders::DuplicatePolicy(text(name)));
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

    /// Does this status come without a body (RFC 9110 15.3.5, 15.3.6, 15.4.5)?
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.code, 204 | 205 | 304)
    }

    /// Does an announced length say something of this response? With 304 it is that of another (RFC
    /// 9110 8.6), and after 204 and 205 nothing comes.
    fn may_have_length(&self) -> bool {
        !matches!(self.code, 204 | 205)
    }

    /// Is the body a part of the whole (RFC 9110 15.3.7)?
    pub(super) fn is_partial(&self) -> bool {
        self.code == 206
    }

    /// Length of the body as the application announced it, in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Announces the length of the body.
    pub(super) fn set_content_length(&mut self, length: u64) {
        self.content_length = Some(length);
        self.push(b"Content-Length", length.to_string().as_bytes());
    }

    /// Has the web server close its client's connection behind this response.
    pub(super) fn close_connection(&mut self) {
        self.push(b"Connection", b"close");
    }

    /// A response that resets a form has a body of no bytes, and says so (RFC 9110 15.3.6).
    pub(super) fn complete_length(&mut self) {
        if self.code == 205 {
            self.set_content_length(0);
        }
    }

    /// A CGI response of status 200 with a `Location` is a redirect in the eyes of the web server,
    /// whatever the application meant (RFC 3875 6.2.2 to 6.2.4). Takes such a field away; tells
    /// whether there was one.
    pub(super) fn remove_redirect_of_success(&mut self) -> bool {
        match self.location.take_if(|_| self.code == 200) {
            Some(place) => {
                self.bytes.drain(place);
                true
            }
            None => false,
        }
    }

    /// The head as it leaves, blank line included.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        // HAProxy forgets a status when it comes to a `Location` behind it, and answers with 302.
        // Fields may stand in any order (RFC 3875 6.3).
        if let Some(place) =
            self.location.filter(|_| self.form == ResponseFormat::FastCgi && self.code != 302)
        {
            self.bytes[..place.end].rotate_right(place.len());
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }
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
