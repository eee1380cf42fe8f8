//! The variables of a request: which of them reach the application, and what they are worth.
//!
//! PEP 3333 *environ Variables*, RFC 3875 section 4.1. Bytes become `str` here, once, as latin-1.

use std::fmt;

use link::entry::{Code, Entry};
use pyo3::{
    ffi, intern,
    prelude::*,
    types::{PyDict, PyString},
};

use super::{Setting, file_wrapper::FileWrapper, mount};

/// The variables of one request, checked and completed.
#[derive(Debug)]
pub(crate) struct Variables {
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How far a request body reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// So many bytes (RFC 3875 4.2).
    Exactly(u64),
    /// To the end of the stream: the front has taken a chunked coding off and does not know the length.
    UntilEnd,
}

/// A variable that makes the request unfit to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadVariable {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl fmt::Display for BadVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the variable {} is `{}`, which is not {}", self.name, self.value, self.expected)
    }
}

impl BadVariable {
    /// The log entry.
    pub(crate) fn entry(&self) -> Entry {
        Entry::error(Code::BadRequest, self.to_string())
            .hint("the request was answered with 400; if the web server sent this for an ordinary request, look at its settings")
    }
}

impl Variables {
    /// Takes the variables as they came, in their order.
    ///
    /// # Errors
    /// If one that a WSGI server must rely on is malformed.
    pub(crate) fn new(received: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, BadVariable> {
        let mut variables = Self { pairs: Vec::new() };
        for (name, value) in received {
            // A name comes once (RFC 3875 4.1); as in C's getenv the first one counts.
            if !is_withheld(&name) && variables.get(&name).is_none() {
                variables.pairs.push((name, value));
            }
        }
        variables.check()?;
        variables.recover_authorization();
        variables.complete();
        mount::settle(&mut variables);
        Ok(variables)
    }

    /// Value of `name`; an empty one is there all the same.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// Value of `name` unless it is missing or empty, which mean the same (RFC 3875 4.1).
    pub(crate) fn filled(&self, name: &[u8]) -> Option<&[u8]> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// Gives `name` a value, in place of an earlier one.
    pub(super) fn set(&mut self, name: &[u8], value: impl Into<Vec<u8>>) {
        match self.pairs.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.into(),
            None => self.pairs.push((name.to_vec(), value.into())),
        }
    }

    /// Is this a `HEAD` request, whose reply has no body (RFC 3875 4.3.3)?
    pub(crate) fn is_head(&self) -> bool {
        self.get(b"REQUEST_METHOD") == Some(b"HEAD")
    }

    /// How far the request body reaches (RFC 3875 4.1.2, 4.2), where only the variables tell.
    pub(crate) fn body_length(&self) -> BodyLength {
        match self.body_length_in_stream() {
            BodyLength::UntilEnd if !self.is_chunked() => BodyLength::Exactly(0),
            length => length,
        }
    }

    /// How far the request body reaches, where the end of the stream that it comes in is certain (FastCGI 1.0, 6.2).
    pub(crate) fn body_length_in_stream(&self) -> BodyLength {
        self.filled(b"CONTENT_LENGTH").and_then(decimal).map_or(BodyLength::UntilEnd, BodyLength::Exactly)
    }

    /// Did the client send its body in chunks? The front has put them together, and has not counted them.
    fn is_chunked(&self) -> bool {
        self.get(b"HTTP_TRANSFER_ENCODING")
            .is_some_and(|coding| coding.to_ascii_lowercase().windows(7).any(|word| word == b"chunked"))
    }

    /// Is the request one over TLS? Only what the front itself says counts, never a header.
    fn scheme(&self) -> &'static str {
        let tls = |name: &[u8], values: [&[u8]; 3]| {
            self.get(name).is_some_and(|value| values.iter().any(|known| known.eq_ignore_ascii_case(value)))
        };
        if tls(b"HTTPS", [b"on", b"1", b"yes"]) || tls(b"REQUEST_SCHEME", [b"https"; 3]) { "https" } else { "http" }
    }

    fn check(&self) -> Result<(), BadVariable> {
        let refuse = |name: &'static str, value: &[u8], expected| {
            Err(BadVariable { name, value: String::from_utf8_lossy(value).into_owned(), expected })
        };
        match self.get(b"REQUEST_METHOD") {
            Some(method) if is_token(method) => {}
            method => return refuse("REQUEST_METHOD", method.unwrap_or_default(), "a method"),
        }
        if let Some(length) = self.filled(b"CONTENT_LENGTH")
            && decimal(length).is_none()
        {
            return refuse("CONTENT_LENGTH", length, "a number of bytes");
        }
        if let Some(port) = self.filled(b"SERVER_PORT")
            && decimal(port).is_none()
        {
            return refuse("SERVER_PORT", port, "a port number");
        }
        Ok(())
    }

    /// Web servers keep credentials from CGI programs; deployers pass them on in one of these spellings
    /// (RFC 3875 4.1.18).
    fn recover_authorization(&mut self) {
        if self.filled(b"HTTP_AUTHORIZATION").is_some() {
            return;
        }
        let spelling = |name: &[u8]| {
            let mut rest = name;
            while let Some(inner) = rest.strip_prefix(b"REDIRECT_") {
                rest = inner;
            }
            rest == b"HTTP_AUTHORIZATION" || rest.eq_ignore_ascii_case(b"Authorization")
        };
        let found = self.pairs.iter().find(|(name, value)| !value.is_empty() && spelling(name));
        if let Some((_, credentials)) = found {
            let credentials = credentials.clone();
            self.set(b"HTTP_AUTHORIZATION", credentials);
        }
    }

    /// What the PEP promises to every application, for fronts that leave it out.
    fn complete(&mut self) {
        let port: &[u8] = if self.scheme() == "https" { b"443" } else { b"80" };
        for (name, value) in
            [(&b"SERVER_NAME"[..], &b"localhost"[..]), (b"SERVER_PORT", port), (b"SERVER_PROTOCOL", b"HTTP/1.0")]
        {
            if self.filled(name).is_none() {
                self.set(name, value);
            }
        }
        // A server-side include is served as HTTP/1.0 (RFC 3875 4.1.16).
        if self.get(b"SERVER_PROTOCOL") == Some(b"INCLUDED") {
            self.set(b"SERVER_PROTOCOL", b"HTTP/1.0");
        }
        if self.get(b"QUERY_STRING").is_none() {
            self.set(b"QUERY_STRING", b"");
        }
    }
}

/// Variables that no application may see: `HTTP_PROXY` is a header that HTTP clients take for a setting
/// (CVE-2016-1000110); the other two repeat `CONTENT_…` under a name that RFC 3875 4.1.18 gives to other headers.
fn is_withheld(name: &[u8]) -> bool {
    name == b"HTTP_PROXY" || name == b"HTTP_CONTENT_LENGTH" || name == b"HTTP_CONTENT_TYPE"
}

/// An RFC 9110 token: what methods and header names are made of.
pub(super) fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A number written in decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Makes the environ dictionary.
pub(super) fn dictionary<'py>(
    py: Python<'py>,
    variables: &Variables,
    setting: &Setting,
    errors: Bound<'py, PyAny>,
    request_id: &str,
    input: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let environ = PyDict::new(py);
    for (name, value) in &variables.pairs {
        environ.set_item(latin1(py, name)?, latin1(py, value)?)?;
    }
    environ.set_item(intern!(py, "wsgi.version"), (1, 0))?;
    environ.set_item(intern!(py, "wsgi.url_scheme"), variables.scheme())?;
    environ.set_item(intern!(py, "wsgi.input"), input)?;
    environ.set_item(intern!(py, "wsgi.input_terminated"), true)?;
    environ.set_item(intern!(py, "wsgi.errors"), errors)?;
    environ.set_item(intern!(py, "wsgi.multithread"), setting.multithread)?;
    environ.set_item(intern!(py, "wsgi.multiprocess"), setting.multiprocess)?;
    environ.set_item(intern!(py, "wsgi.run_once"), setting.run_once)?;
    environ.set_item(intern!(py, "wsgi.file_wrapper"), py.get_type::<FileWrapper>())?;
    environ.set_item(intern!(py, "wsgate.version"), env!("CARGO_PKG_VERSION"))?;
    environ.set_item(intern!(py, "wsgate.request_id"), request_id)?;
    Ok(environ.into_any())
}

/// Bytes as the PEP's native strings: each byte one character (*Unicode Issues*).
fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: pointer and length are those of a live slice, whose length fits `Py_ssize_t` as every slice's does; the call
    // copies, and returns a new reference to a `str` or null with an exception set.
    let string = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len().cast_signed(), std::ptr::null()),
        )
    }?;
    Ok(string.cast_into()?)
}
