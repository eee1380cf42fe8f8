//! The head of a reply: status and header fields, checked when the application gives them, written when they leave.
//!
//! PEP 3333 *The start_response() Callable*, *Other HTTP Features*; RFC 3875 6.3. What would let an application's data
//! become a header of its own is refused, not mended.

use std::fmt;

use link::page::Form;

use super::environ::{decimal, is_token};

/// Longest field, name and separator included. Apache's CGI modules take lines below 8,190 bytes and answer longer ones with
/// a bare 500.
const LONGEST_FIELD: usize = 8_180;

/// Longest head in bytes; lighttpd takes no more.
const LONGEST_HEAD: usize = 65_000;

/// A valid head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    status: Vec<u8>,
    code: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    content_length: Option<u64>,
}

/// Why a status or header cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    Status(String),
    Interim(String),
    Name(String),
    ControlCharacter(String),
    HopByHop(String),
    StatusField,
    Twice(String),
    ContentLength(String),
    FieldTooLong(String, usize),
    HeadTooLong(usize),
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(
                f,
                "status `{status}` is not three digits, a space and a reason without control characters, such as `200 OK`"
            ),
            Self::Interim(status) => {
                write!(f, "status `{status}` is no final one; interim responses are the web server's to send")
            }
            Self::Name(name) => write!(f, "header name `{name}` is not an HTTP token"),
            Self::ControlCharacter(name) => {
                write!(f, "the value of header `{name}` holds a control character, such as a line end")
            }
            Self::HopByHop(name) => write!(f, "header `{name}` is hop-by-hop: only the web server may send it"),
            Self::StatusField => {
                f.write_str("header `Status` is how CGI sends the status; pass that as the first argument")
            }
            Self::Twice(name) => write!(f, "header `{name}` is given twice"),
            Self::ContentLength(value) => write!(f, "Content-Length `{value}` is not a number of bytes"),
            Self::FieldTooLong(name, length) => {
                write!(f, "header `{name}` is {length} bytes long; web servers take no more than {LONGEST_FIELD}")
            }
            Self::HeadTooLong(length) => {
                write!(f, "the headers are {length} bytes long together; web servers take no more than {LONGEST_HEAD}")
            }
        }
    }
}

impl Head {
    /// Checks what an application gave to `start_response`, as latin-1 bytes.
    pub(super) fn new(status: Vec<u8>, fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, BadHead> {
        let code = match status.as_slice() {
            [b'1', b'0'..=b'9', b'0'..=b'9', b' ', ..] => return Err(BadHead::Interim(text(&status))),
            [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', reason @ ..]
                if !reason.iter().any(|&byte| is_control(byte)) =>
            {
                status[..3].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(BadHead::Status(text(&status))),
        };
        let mut head = Self { status, code, fields: Vec::with_capacity(fields.len() + 2), content_length: None };
        for (name, value) in fields {
            head.add(name, value)?;
        }
        let length =
            head.status.len() + head.fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
        if length > LONGEST_HEAD {
            return Err(BadHead::HeadTooLong(length));
        }
        Ok(head)
    }

    fn add(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), BadHead> {
        if !is_token(&name) {
            return Err(BadHead::Name(text(&name)));
        }
        if value.iter().any(|&byte| byte != b'\t' && is_control(byte)) {
            return Err(BadHead::ControlCharacter(text(&name)));
        }
        let length = name.len() + 2 + value.len();
        if length > LONGEST_FIELD {
            return Err(BadHead::FieldTooLong(text(&name), length));
        }
        match name.to_ascii_lowercase().as_slice() {
            b"status" => return Err(BadHead::StatusField),
            b"connection"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"te"
            | b"trailers"
            | b"transfer-encoding"
            | b"upgrade" => return Err(BadHead::HopByHop(text(&name))),
            b"content-length" => {
                let length = decimal(&value).ok_or_else(|| BadHead::ContentLength(text(&value)))?;
                if self.content_length.replace(length).is_some() {
                    return Err(BadHead::Twice(text(&name)));
                }
            }
            // A CGI field comes once (RFC 3875 6.3).
            b"content-type" | b"location" if self.has(&name) => return Err(BadHead::Twice(text(&name))),
            _ => {}
        }
        self.fields.push((name, value));
        Ok(())
    }

    /// Is there a field of that name, in whatever case?
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// Does this status come without a body (RFC 9110 15)?
    pub(super) fn is_bodiless(&self) -> bool {
        matches!(self.code, 204 | 304)
    }

    /// Length of the body as the application announced it, in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Announces the length of the body.
    pub(super) fn set_content_length(&mut self, length: u64) {
        self.content_length = Some(length);
        self.fields.push((b"Content-Length".to_vec(), length.to_string().into_bytes()));
    }

    /// Gives a document the type that CGI demands of it (RFC 3875 6.3.1), where the application gave none.
    pub(super) fn set_unknown_type(&mut self) {
        self.fields.push((b"Content-Type".to_vec(), b"application/octet-stream".to_vec()));
    }

    /// A CGI reply of status 200 with a `Location` is a redirect in the eyes of the web server, whatever the application
    /// meant (RFC 3875 6.2.2 to 6.2.4). Takes such a field away; tells whether there was one.
    pub(super) fn remove_redirect_of_success(&mut self) -> bool {
        let before = self.fields.len();
        if self.code == 200 {
            self.fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"location"));
        }
        self.fields.len() < before
    }

    /// The head as it leaves, blank line included.
    pub(super) fn render(&self, form: Form) -> Vec<u8> {
        let mut line = form.status_line("").into_bytes();
        // The text of the status line goes where the empty one ends.
        let end = line.iter().position(|&byte| byte == b'\r').unwrap_or(line.len());
        line.splice(end..end, self.status.iter().copied());
        // HAProxy forgets a status when it comes to a `Location` behind it, and answers with 302. Fields may stand in any order
        // (RFC 3875 6.3).
        let is_at_risk = form == Form::FastCgi && self.code != 302;
        let goes_first = |name: &[u8]| is_at_risk && name.eq_ignore_ascii_case(b"location");
        let (first, rest): (Vec<_>, Vec<_>) = self.fields.iter().partition(|(name, _)| goes_first(name));
        let mut head = Vec::new();
        append(&mut head, &first);
        head.extend(line);
        append(&mut head, &rest);
        head.extend_from_slice(b"\r\n");
        head
    }
}

fn append(head: &mut Vec<u8>, fields: &[&(Vec<u8>, Vec<u8>)]) {
    for (name, value) in fields {
        head.extend_from_slice(name);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
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
