//! The variables and the body of a request that is described on the command line (RFC 3875 4.1).

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{
        File, {self},
    },
    io::{
        Seek as _, Write as _, {self},
    },
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::FileTypeExt as _,
        },
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use diagnostics::escape::{
    Escaped, {self},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fcntl_setfl, open as open_file},
};

use crate::{call::args::Call, config::settings::AT_A_TERMINAL, request::Request};

/// A request that can be made.
pub(super) struct Composed {
    pub(super) request: Request,
    pub(super) body: OwnedFd,
}

/// Variables in the making; a header that comes again joins the first.
#[derive(Default)]
struct Variables(Vec<(OsString, OsString)>);

impl Variables {
    fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().to_owned();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    fn header(&mut self, name: &str, value: &str) {
        let variable = match name.to_ascii_uppercase().replace('-', "_") {
            name if name == "CONTENT_TYPE" || name == "CONTENT_LENGTH" => {
                return self.set(&name, value);
            }
            name => format!("HTTP_{name}"),
        };
        match self.0.iter_mut().find(|(known, _)| *known == *variable) {
            Some((_, old)) => {
                old.push(if variable == "HTTP_COOKIE" { "; " } else { ", " });
                old.push(value);
            }
            None => self.0.push((variable.into(), value.into())),
        }
    }
}

impl Composed {
    /// Composes the request for `target` that `call` describes; `script` is the file that it is
    /// for, if it is for one.
    pub(super) fn new(call: &Call, target: &str, script: Option<&OsStr>) -> Result<Self> {
        let target = Target::parse(call, target)?;
        let method =
            call.method.as_deref().unwrap_or(if call.data.is_empty() { "GET" } else { "POST" });
        if !is_token(method) {
            bail!("`{method}` is no method: write GET, POST or any other word");
        }
        let mut variables = Variables::default();
        let port = match target.host.rsplit_once(':') {
            Some((_, port))
                if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) =>
            {
                port.to_owned()
            }
            _ => if target.https { "443" } else { "80" }.to_owned(),
        };
        let name = target.host.strip_suffix(&format!(":{port}")).unwrap_or(&target.host);
        for (name, value) in [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", concat!("wsgate/", env!("CARGO_PKG_VERSION"))),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", name),
            ("SERVER_PORT", &port),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REQUEST_METHOD", method),
            ("REQUEST_URI", &target.request_uri),
            ("SCRIPT_NAME", call.options.script_name.as_deref().unwrap_or_default()),
            ("QUERY_STRING", &target.query),
            ("HTTP_HOST", &target.host),
            ("HTTP_USER_AGENT", concat!("wsgate/", env!("CARGO_PKG_VERSION"))),
            ("HTTP_ACCEPT", "*/*"),
        ] {
            variables.set(name, value);
        }
        variables.set("PATH_INFO", OsString::from_vec(target.path_info));
        if target.https {
            variables.set("HTTPS", "on");
        }
        if let Some(script) = script {
            variables.set("SCRIPT_FILENAME", script);
        }
        if let Some(credentials) = &call.auth {
            // The value may be half a password: the message does not show it.
            ensure!(credentials.contains(':'), "--auth has no colon: write USER:PASSWORD");
            variables.set(
                "HTTP_AUTHORIZATION",
                format!("Basic {}", BASE64_STANDARD.encode(credentials)),
            );
        }
        if let Some(user) = &call.remote_user {
            variables.set("REMOTE_USER", user);
            variables.set("AUTH_TYPE", "Basic");
        }
        let patience = call.options.timeout.unwrap_or(AT_A_TERMINAL);
        let body = match body(&call.data, patience)? {
            Some((body, length)) => {
                variables.set("CONTENT_LENGTH", length.to_string());
                variables.set("CONTENT_TYPE", "application/x-www-form-urlencoded");
                body
            }
            None => File::open("/dev/null").context("an empty request body")?.into(),
        };
        // What is said explicitly wins over all that was made up.
        let mut given: Vec<&str> = Vec::new();
        for header in &call.headers {
            let (name, value) = header
                .split_once(':')
                .filter(|(name, value)| {
                    is_token(name) && !value.contains(|c: char| c.is_control() && c != '\t')
                })
                .with_context(|| format!("`{header}` is no header: write `Name: value`"))?;
            if !given.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                variables.0.retain(|(known, _)| {
                    *known != *format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"))
                });
                given.push(name);
            }
            variables.header(name, value.trim());
        }
        Ok(Self { request: Request::made(method, &target.request_uri, variables.0), body })
    }
}

/// Shows the variables of `request` on standard error.
pub(super) fn show(request: &Request) {
    let mut variables: Vec<_> = request.variables.iter().collect();
    variables.sort();
    let mut shown = String::new();
    for (name, value) in variables {
        let (name, value) = (escape::text(name.as_bytes()), escape::text(value.as_bytes()));
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "> {}={}", Escaped(&name), Escaped(&value));
    }
    // If standard error is closed there is nobody to show them to.
    let _ = io::stderr().lock().write_all(shown.as_bytes());
}

/// Is it what methods and header names are made of (RFC 9110 5.6.2)?
fn is_token(word: &str) -> bool {
    !word.is_empty()
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// What is requested, taken apart.
struct Target {
    https: bool,
    host: String,
    request_uri: String,
    path_info: Vec<u8>,
    query: String,
}

impl Target {
    fn parse(call: &Call, target: &str) -> Result<Self> {
        let mut https = call.https;
        let mut host = call.host.clone();
        let mut target = target;
        if let Some((scheme @ ("http" | "https"), rest)) = target.split_once("://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            https |= scheme == "https";
            host = rest[..end].to_owned();
            target = &rest[end..];
        }
        if host.is_empty()
            || host.contains(|character: char| character.is_whitespace() || character == '/')
        {
            bail!("`{host}` is no host: write NAME or NAME:PORT");
        }
        let script_name = call.options.script_name.as_deref().unwrap_or_default();
        if !(target.is_empty() || target.starts_with('/') || target.starts_with('?')) {
            bail!("`{target}` is no target: write /path?query, or a whole URL");
        }
        // A fragment is the browser's affair.
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() && script_name.is_empty() { "/" } else { path };
        let question = if query.is_empty() { "" } else { "?" };
        Ok(Self {
            https,
            host,
            request_uri: format!("{script_name}{path}{question}{query}"),
            path_info: wire::percent::decode(path.as_bytes()),
            query: query.to_owned(),
        })
    }
}

/// The request body and its length in bytes.
fn body(data: &[String], patience: u64) -> Result<Option<(OwnedFd, u64)>> {
    if data.is_empty() {
        return Ok(None);
    }
    let mut file = match data {
        // Read from where it is, however large it may be.
        [only] if only.starts_with('@') && only != "@-" => open(&only[1..], patience)?,
        _ => {
            let mut file = tempfile::tempfile().context("a temporary file for the request body")?;
            for (position, piece) in data.iter().enumerate() {
                if position > 0 {
                    file.write_all(b"&")?;
                }
                match piece.strip_prefix('@') {
                    Some("-") => io::copy(&mut io::stdin().lock(), &mut file)
                        .context("standard input as request body")?,
                    Some(path) => io::copy(&mut open(path, patience)?, &mut file)
                        .with_context(|| format!("`{path}` as request body"))?,
                    None => file.write_all(piece.as_bytes()).map(|()| 0)?,
                };
            }
            file.rewind()?;
            file
        }
    };
    let found = file.metadata()?;
    if found.is_dir() {
        bail!("a directory is no request body");
    }
    if !found.is_file() {
        // A pipe or device: only reading it tells how long it is.
        let mut copy = tempfile::tempfile().context("a temporary file for the request body")?;
        io::copy(&mut file, &mut copy)?;
        copy.rewind()?;
        file = copy;
    }
    let length = file.metadata()?.len();
    Ok(Some((file.into(), length)))
}

/// Opens a file with a request body. A named pipe gets `patience` seconds for its writer, or no
/// limit with 0.
fn open(path: &str, patience: u64) -> Result<File> {
    let cannot = || format!("the file `{path}` for the request body cannot be opened");
    let is_fifo = fs::metadata(path).with_context(cannot)?.file_type().is_fifo();
    if !is_fifo {
        return File::open(path).with_context(cannot);
    }
    // Without this flag, opening waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = open_file(path, flags, Mode::empty()).with_context(cannot)?;
    let limit = Timespec::try_from(Duration::from_secs(patience)).ok().filter(|_| patience > 0);
    if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], limit.as_ref())? == 0 {
        bail!("`{path}` is a named pipe into which nobody has written for {patience} s");
    }
    fcntl_setfl(&pipe, OFlags::empty())?;
    Ok(pipe.into())
}
