//! The variables of a request: which of them reach the application, and what they are worth.
//!
//! PEP 3333 *environ Variables*, RFC 3875 section 4.1. All are bytes here; they become `str` in
//! `environ`.

use std::{borrow::Cow, fmt};

use diagnostics::message::{Code, LogMessage};
use wire::{mount, request::ResponseFormat};

use crate::wsgi::remembered::{Came, Kind, Remembered, Time, spells_authorization};

/// The variables of one request, checked and completed.
#[derive(Debug)]
pub(crate) struct Variables<'a> {
    pairs: Vec<Variable<'a>>,
    /// How often all numbers of variables had been forgotten.
    generation: u64,
    /// Where in `pairs` the variables stand that a server itself looks at.
    places: [Option<usize>; KnownVariable::COUNT],
}

/// A variable of a request.
#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: Cow<'a, [u8]>,
    /// Names the variable, in requests of the same generation.
    pub(super) number: usize,
    /// Values of the variable that have the same version are the same; 0 stands for one that is not
    /// known.
    pub(super) version: u64,
}

/// Which one counts of two variables with one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DuplicatePolicy {
    /// As in C's `getenv`.
    First,
    /// As in a map that is filled in the order in which they come.
    Last,
}

/// How far a request body reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// So many bytes (RFC 3875 4.2).
    Exactly(u64),
    /// To the end of the stream: the front has taken a chunked coding off and does not know the
    /// length.
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
    /// The log message.
    pub(crate) fn log_message(&self) -> LogMessage {
        LogMessage::error(Code::BadRequest, self.to_string()).hint(
            "the request was answered with 400; if the web server sent this for an ordinary \
             request, look at its settings",
        )
    }
}

macro_rules! known {
    ($($variable:ident = $name:literal,)*) => {
        /// The variables that a server itself looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum KnownVariable { $(#[doc = $name] $variable,)* }

        impl KnownVariable {
            const COUNT: usize = Self::ALL.len();

            /// All of them, in their order.
            pub(super) const ALL: [Self; [$($name),*].len()] = [$(Self::$variable),*];

            /// Its name.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variable => $name,)* }
            }

            pub(super) fn of(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() { return Some(Self::$variable); })*
                None
            }
        }
    };
}

known! {
    RequestMethod = "REQUEST_METHOD",
    RequestUri = "REQUEST_URI",
    ScriptName = "SCRIPT_NAME",
    PathInfo = "PATH_INFO",
    QueryString = "QUERY_STRING",
    ContentLength = "CONTENT_LENGTH",
    ContentType = "CONTENT_TYPE",
    ServerName = "SERVER_NAME",
    ServerSoftware = "SERVER_SOFTWARE",
    ServerPort = "SERVER_PORT",
    ServerProtocol = "SERVER_PROTOCOL",
    Https = "HTTPS",
    RequestScheme = "REQUEST_SCHEME",
    RedirectStatus = "REDIRECT_STATUS",
    HttpAuthorization = "HTTP_AUTHORIZATION",
    HttpTransferEncoding = "HTTP_TRANSFER_ENCODING",
    UniqueId = "UNIQUE_ID",
}

impl<'a> Variables<'a> {
    /// Takes the variables as they came, in their order. `remembered` is what is known of
    /// those of earlier requests.
    ///
    /// # Errors
    /// If one that a WSGI server must rely on is malformed.
    pub(crate) fn new(
        received: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        twice: DuplicatePolicy,
        remembered: &mut Remembered,
    ) -> Result<Self, BadVariable> {
        let received = received.into_iter();
        let mut coming = remembered.begin();
        let mut variables = Self {
            // A few are added below.
            pairs: Vec::with_capacity(received.size_hint().1.unwrap_or(0) + 8),
            generation: coming.generation(),
            places: [None; KnownVariable::COUNT],
        };
        let mut credentials = None;
        for (name, value) in received {
            let place = variables.pairs.len();
            let Came { number, kind, time } = coming.next(name, value, place);
            let version = match time {
                _ if kind == Kind::Withheld => continue,
                Time::First(version) => version,
                // A name comes once (RFC 3875 4.1).
                Time::Again(place) => {
                    if twice == DuplicatePolicy::Last {
                        let version = coming.version(number, value);
                        variables.pairs[place] =
                            Variable { name, value: Cow::Borrowed(value), number, version };
                    }
                    continue;
                }
            };
            match kind {
                Kind::KnownVariable(known) => variables.places[known as usize] = Some(place),
                Kind::SpellsAuthorization if credentials.is_none() => credentials = Some(place),
                Kind::SpellsAuthorization | Kind::Other | Kind::Withheld => {}
            }
            variables.pairs.push(Variable { name, value: Cow::Borrowed(value), number, version });
        }
        variables.check()?;
        variables.recover_authorization(credentials);
        variables.leave_out_if_empty(KnownVariable::ContentLength);
        variables.leave_out_if_empty(KnownVariable::ContentType);
        variables.complete();
        variables.settle_mount();
        Ok(variables)
    }

    /// All of them, each name once.
    pub(super) fn pairs(&self) -> &[Variable<'a>] {
        &self.pairs
    }

    /// Tells of two requests whether the numbers of their variables mean the same.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Value of `variable`; an empty one is there all the same.
    pub(crate) fn get(&self, variable: KnownVariable) -> Option<&[u8]> {
        self.places[variable as usize].map(|place| self.pairs[place].value.as_ref())
    }

    /// Value of `variable` unless it is missing or empty, which mean the same (RFC 3875 4.1).
    pub(crate) fn filled(&self, variable: KnownVariable) -> Option<&[u8]> {
        self.get(variable).filter(|value| !value.is_empty())
    }

    /// Gives `variable` a value, in place of an earlier one.
    pub(super) fn set(&mut self, variable: KnownVariable, value: impl Into<Cow<'a, [u8]>>) {
        match self.places[variable as usize] {
            Some(place) => {
                let pair = &mut self.pairs[place];
                pair.value = value.into();
                pair.version = 0;
            }
            None => {
                self.places[variable as usize] = Some(self.pairs.len());
                let (name, value) = (variable.name().as_bytes(), value.into());
                self.pairs.push(Variable { name, value, number: variable as usize, version: 0 });
            }
        }
    }

    /// Is this a `HEAD` request, whose response has no body (RFC 3875 4.3.3)?
    pub(crate) fn is_head(&self) -> bool {
        self.get(KnownVariable::RequestMethod) == Some(b"HEAD")
    }

    /// Does the web server complete a body that is shorter than its Content-Length with the next
    /// response on its client's connection? In CGI it learns of no failure; over FastCGI, Apache
    /// and lighttpd go on as if there were none.
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

    /// How far the request body reaches (RFC 3875 4.1.2, 4.2), where only the variables tell.
    pub(crate) fn body_length(&self) -> BodyLength {
        match self.body_length_in_stream() {
            BodyLength::UntilEnd if !self.is_chunked() => BodyLength::Exactly(0),
            length => length,
        }
    }

    /// How far the request body reaches, where the end of the stream that it comes in is certain
    /// (FastCGI 1.0, 6.2).
    pub(crate) fn body_length_in_stream(&self) -> BodyLength {
        self.filled(KnownVariable::ContentLength)
            .and_then(decimal)
            .map_or(BodyLength::UntilEnd, BodyLength::Exactly)
    }

    /// Did the client send its body in chunks? The front has put them together, and has not counted
    /// them.
    fn is_chunked(&self) -> bool {
        self.get(KnownVariable::HttpTransferEncoding).is_some_and(|coding| {
            coding.to_ascii_lowercase().windows(7).any(|word| word == b"chunked")
        })
    }

    /// Is the request one over TLS? Only what the front itself says counts, never a header.
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

    /// Web servers keep credentials from CGI programs; deployers pass them on in one of several
    /// spellings (RFC 3875 4.1.18), the first of which stands at `spelt`.
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

    /// Sets `SCRIPT_NAME` and `PATH_INFO` right.
    fn settle_mount(&mut self) {
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

    /// Makes `script_name` the mount, as `--script-name` wants it, if the path of the request is
    /// below it.
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

    /// Removes `variable` if its value is empty. The PEP lets both mean the same, but applications
    /// convert what is there: `int(environ.get("CONTENT_LENGTH", 0))`.
    fn leave_out_if_empty(&mut self, variable: KnownVariable) {
        let Some(place) =
            self.places[variable as usize].filter(|&place| self.pairs[place].value.is_empty())
        else {
            return;
        };
        self.places[variable as usize] = None;
        // The last one takes the place.
        self.pairs.swap_remove(place);
        let last = self.pairs.len();
        if let Some(moved) = self.places.iter_mut().flatten().find(|other| **other == last) {
            *moved = place;
        }
    }

    /// What the PEP promises to every application, for fronts that leave it out.
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

/// An RFC 9110 token: what methods and header names are made of.
pub(super) fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// Which bytes a token is made of.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut place = 0;
    while place < marks.len() {
        table[marks[place] as usize] = true;
        place += 1;
    }
    table
};

/// A number written in decimal digits and nothing else. A greater one than the length of a file may
/// be (`off_t`) is none.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_i64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.map(i64::cast_unsigned)
}
