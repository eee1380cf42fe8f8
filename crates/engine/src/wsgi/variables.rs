//! The variables of a request, checked and completed (PEP 3333 *environ Variables*, RFC 3875 4.1).
//! `environ` converts these bytes to `str`.

use std::{borrow::Cow, collections::HashMap, fmt};

use diagnostics::message::{Code, LogMessage};
use wire::{mount, request::ResponseFormat};

use crate::wsgi::names::{KnownVariable, decimal, is_token, is_withheld, spells_authorization};

/// The variables of one request, checked and completed.
#[derive(Debug)]
pub(crate) struct Variables<'a> {
    pairs: Vec<Variable<'a>>,
    /// The positions in `pairs` of the variables that the server itself reads.
    known: [Option<usize>; KnownVariable::COUNT],
}

/// A variable of a request.
#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: Cow<'a, [u8]>,
}

/// Which of two variables with the same name is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DuplicatePolicy {
    /// The first, as with `getenv` in C.
    First,
    /// The last, as in a map that is filled in the order of the request.
    Last,
}

/// The length of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// This number of bytes (RFC 3875 4.2).
    Exactly(u64),
    /// To the end of the stream: the web server has decoded a chunked body and does not know the
    /// length.
    UntilEnd,
}

/// A malformed variable, for which the request is rejected with 400.
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
    /// The log message.
    pub(crate) fn log_message(&self) -> LogMessage {
        let is_absent = self.value.is_empty() && self.name == KnownVariable::RequestMethod.name();
        LogMessage::new(Code::BadRequest, self.to_string()).hint(if is_absent {
            "web servers set this variable for each request; in a shell, run `wsgate call APP`, \
             which sets all variables"
        } else {
            "the request was answered with 400; if the web server sent this for an ordinary \
             request, look at its settings"
        })
    }
}

impl<'a> Variables<'a> {
    /// Takes the variables in the order of the request.
    ///
    /// # Errors
    /// If a variable that a WSGI server relies on is malformed.
    pub(crate) fn new(
        received: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        duplicates: DuplicatePolicy,
    ) -> Result<Self, BadVariable> {
        let received = received.into_iter();
        let count = received.size_hint().1.unwrap_or(0);
        // `complete` adds a few variables.
        let pairs = Vec::with_capacity(count + 8);
        let mut variables = Self { pairs, known: [None; KnownVariable::COUNT] };
        let mut others = HashMap::with_capacity(count);
        let mut credentials = None;
        for (name, value) in received {
            let position = variables.pairs.len();
            let known = KnownVariable::of(name);
            if known.is_none() && is_withheld(name) {
                continue;
            }
            let earlier = match known {
                Some(known) => variables.known[known as usize].replace(position),
                None => others.insert(name, position),
            };
            if let Some(earlier) = earlier {
                // The environ has each name once (RFC 3875 4.1).
                match known {
                    Some(known) => variables.known[known as usize] = Some(earlier),
                    None => drop(others.insert(name, earlier)),
                }
                if duplicates == DuplicatePolicy::Last {
                    variables.pairs[earlier].value = Cow::Borrowed(value);
                }
                continue;
            }
            if known.is_none() && credentials.is_none() && spells_authorization(name) {
                credentials = Some(position);
            }
            variables.pairs.push(Variable { name, value: Cow::Borrowed(value) });
        }
        variables.check()?;
        variables.recover_authorization(credentials);
        variables.leave_out_if_empty(KnownVariable::ContentLength);
        variables.leave_out_if_empty(KnownVariable::ContentType);
        variables.complete();
        variables.correct_mount();
        Ok(variables)
    }

    /// All variables, each name once.
    pub(super) fn pairs(&self) -> &[Variable<'a>] {
        &self.pairs
    }

    /// The value of `variable`, which may be empty.
    pub(crate) fn get(&self, variable: KnownVariable) -> Option<&[u8]> {
        self.known[variable as usize].map(|position| self.pairs[position].value.as_ref())
    }

    /// The value of `variable`, unless it is empty, which means the same as missing (RFC 3875 4.1).
    pub(crate) fn filled(&self, variable: KnownVariable) -> Option<&[u8]> {
        self.get(variable).filter(|value| !value.is_empty())
    }

    /// Sets `variable`, and replaces an earlier value.
    pub(super) fn set(&mut self, variable: KnownVariable, value: impl Into<Cow<'a, [u8]>>) {
        match self.known[variable as usize] {
            Some(position) => {
                self.pairs[position].value = value.into();
            }
            None => {
                self.known[variable as usize] = Some(self.pairs.len());
                let (name, value) = (variable.name().as_bytes(), value.into());
                self.pairs.push(Variable { name, value });
            }
        }
    }

    /// The path of the request.
    pub(crate) fn path(&self) -> Vec<u8> {
        let parts = [KnownVariable::ScriptName, KnownVariable::PathInfo];
        parts.map(|known| self.get(known).unwrap_or_default()).concat()
    }

    /// Is this a `HEAD` request, whose response has no body (RFC 3875 4.3.3)?
    pub(crate) fn is_head(&self) -> bool {
        self.get(KnownVariable::RequestMethod) == Some(b"HEAD")
    }

    /// Does the request have the method `GET` or `HEAD`?
    pub(super) fn is_get_or_head(&self) -> bool {
        self.is_head() || self.get(KnownVariable::RequestMethod) == Some(b"GET")
    }

    /// Does the web server reuse the client's connection after a body that is shorter than its
    /// Content-Length? In CGI the web server cannot learn of a failure. Over FastCGI, Apache and
    /// lighttpd ignore the failure.
    pub(super) fn web_server_ignores_short_bodies(&self, form: ResponseFormat) -> bool {
        match form {
            ResponseFormat::Cgi => true,
            ResponseFormat::FastCgi => {
                self.get(KnownVariable::ServerSoftware).is_some_and(|software| {
                    software.starts_with(b"Apache") || software.starts_with(b"lighttpd")
                })
            }
            ResponseFormat::NonParsed => false,
        }
    }

    /// The length of the request body (RFC 3875 4.1.2, 4.2), if only the variables give it.
    pub(crate) fn body_length(&self) -> BodyLength {
        match self.body_length_in_stream() {
            BodyLength::UntilEnd if !self.is_chunked() => BodyLength::Exactly(0),
            length => length,
        }
    }

    /// The length of the request body, if its stream has an end (FastCGI 1.0, 6.2).
    pub(crate) fn body_length_in_stream(&self) -> BodyLength {
        self.filled(KnownVariable::ContentLength)
            .and_then(decimal)
            .map_or(BodyLength::UntilEnd, BodyLength::Exactly)
    }

    /// Did the client send a chunked body? The web server has decoded it without counting.
    fn is_chunked(&self) -> bool {
        self.get(KnownVariable::HttpTransferEncoding).is_some_and(|coding| {
            coding.to_ascii_lowercase().windows(7).any(|word| word == b"chunked")
        })
    }

    /// The scheme of the request. Only variables of the web server itself count, never a header.
    pub(super) fn scheme(&self) -> &'static str {
        let tls = |variable, values: [&[u8]; 3]| {
            self.get(variable)
                .is_some_and(|value| values.iter().any(|known| known.eq_ignore_ascii_case(value)))
        };
        if tls(KnownVariable::Https, [b"on", b"1", b"yes"])
            || tls(KnownVariable::RequestScheme, [b"https"; 3])
        {
            "https"
        } else {
            "http"
        }
    }

    fn check(&self) -> Result<(), BadVariable> {
        let refuse = |variable: KnownVariable, value: &[u8], expected| {
            let value = diagnostics::escape::text(value).into_owned();
            Err(BadVariable { name: variable.name(), value, expected })
        };
        match self.get(KnownVariable::RequestMethod) {
            Some(method) if is_token(method) => {}
            method => {
                return refuse(
                    KnownVariable::RequestMethod,
                    method.unwrap_or_default(),
                    "a method",
                );
            }
        }
        for (variable, expected) in [
            (KnownVariable::ContentLength, "a number of bytes"),
            (KnownVariable::ServerPort, "a port number"),
        ] {
            if let Some(value) = self.filled(variable)
                && decimal(value).is_none()
            {
                return refuse(variable, value, expected);
            }
        }
        Ok(())
    }

    /// Sets `HTTP_AUTHORIZATION` from one of its spellings; `spelt` is the position of the first.
    /// Web servers withhold credentials from CGI programs (RFC 3875 4.1.18). Administrators pass
    /// them on in one of several spellings.
    fn recover_authorization(&mut self, spelt: Option<usize>) {
        let Some(first) = spelt.filter(|_| self.filled(KnownVariable::HttpAuthorization).is_none())
        else {
            return;
        };
        let found = self.pairs[first..]
            .iter()
            .find(|pair| !pair.value.is_empty() && spells_authorization(pair.name));
        if let Some(pair) = found {
            let credentials = pair.value.clone();
            self.set(KnownVariable::HttpAuthorization, credentials);
        }
    }

    /// Corrects `SCRIPT_NAME` and `PATH_INFO`.
    fn correct_mount(&mut self) {
        let given = mount::MountVariables {
            script_name: self.get(KnownVariable::ScriptName),
            path_info: self.get(KnownVariable::PathInfo),
            request_uri: self.get(KnownVariable::RequestUri),
            redirect_status: self.get(KnownVariable::RedirectStatus),
        };
        if let Some((script_name, path_info)) = given.corrected() {
            self.set(KnownVariable::ScriptName, script_name);
            self.set(KnownVariable::PathInfo, path_info);
        }
    }

    /// Makes `script_name` the mount (`--script-name`), if the path of the request is below it.
    pub(crate) fn mount_at(&mut self, script_name: &str) {
        let [before, behind] = [KnownVariable::ScriptName, KnownVariable::PathInfo]
            .map(|known| self.get(known).unwrap_or_default());
        if before == script_name.as_bytes() {
            return;
        }
        let path = [before, behind].concat();
        if mount::is_below(&path, script_name.as_bytes()) {
            self.set(KnownVariable::PathInfo, path[script_name.len()..].to_vec());
            self.set(KnownVariable::ScriptName, script_name.as_bytes().to_vec());
        }
    }

    /// The value of the variable `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&[u8]> {
        let found = self.pairs.iter().find(|pair| pair.name == name.as_bytes());
        found.map(|pair| pair.value.as_ref())
    }

    /// Sets the variable `name`, which is not one of [`KnownVariable`].
    pub(super) fn set_named(&mut self, name: &'static str, value: String) {
        let value = Cow::Owned(value.into_bytes());
        match self.pairs.iter_mut().find(|pair| pair.name == name.as_bytes()) {
            Some(pair) => pair.value = value,
            None => self.pairs.push(Variable { name: name.as_bytes(), value }),
        }
    }

    /// Removes the variable `name`, which is not one of [`KnownVariable`].
    pub(super) fn remove(&mut self, name: &str) {
        if let Some(position) = self.pairs.iter().position(|pair| pair.name == name.as_bytes()) {
            self.remove_at(position);
        }
    }

    /// Removes `variable` if its value is empty. The PEP gives both the same meaning, but
    /// applications convert a present value: `int(environ.get("CONTENT_LENGTH", 0))`.
    fn leave_out_if_empty(&mut self, variable: KnownVariable) {
        let Some(position) =
            self.known[variable as usize].filter(|&position| self.pairs[position].value.is_empty())
        else {
            return;
        };
        self.known[variable as usize] = None;
        self.remove_at(position);
    }

    fn remove_at(&mut self, position: usize) {
        // The last variable moves to the position.
        self.pairs.swap_remove(position);
        let last = self.pairs.len();
        if let Some(moved) = self.known.iter_mut().flatten().find(|other| **other == last) {
            *moved = position;
        }
    }

    /// Adds variables that the PEP requires and some web servers omit.
    fn complete(&mut self) {
        let port: &[u8] = if self.scheme() == "https" { b"443" } else { b"80" };
        for (variable, value) in [
            (KnownVariable::ServerName, &b"localhost"[..]),
            (KnownVariable::ServerPort, port),
            (KnownVariable::ServerProtocol, b"HTTP/1.0"),
        ] {
            if self.filled(variable).is_none() {
                self.set(variable, value);
            }
        }
        // A server-side include is served as HTTP/1.0 (RFC 3875 4.1.16).
        if self.get(KnownVariable::ServerProtocol) == Some(b"INCLUDED") {
            self.set(KnownVariable::ServerProtocol, &b"HTTP/1.0"[..]);
        }
        if self.get(KnownVariable::QueryString).is_none() {
            self.set(KnownVariable::QueryString, &b""[..]);
        }
    }
}
