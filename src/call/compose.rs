//! The variables and the body of a request that the arguments describe (RFC 3875 4.1).

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Write as _},
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

use wire::{host_port::HostPort, synthetic_request::SyntheticRequest};

use crate::{call::args::CallArgs, config::settings::INTERACTIVE_TIMEOUT_SECS, request::Request};

/// A request that can be sent.
pub(super) struct ComposedRequest {
    pub(super) request: Request,
    pub(super) body: OwnedFd,
}

/// The context of an error about a file with the request body: the arguments may be right.
#[derive(Debug)]
pub(super) struct UnusableBody;

impl fmt::Display for UnusableBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body cannot be read")
    }
}

/// The variables of a request. Values of a repeated header are joined.
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

impl ComposedRequest {
    /// The request for `target` that `args` describe; `script` is the file of the application, if
    /// it is in a file.
    pub(super) fn new(args: &CallArgs, target: &str, script: Option<&OsStr>) -> Result<Self> {
        let call = &args.call;
        let target = Target::parse(args, target)?;
        let method =
            call.method.as_deref().unwrap_or(if call.data.is_empty() { "GET" } else { "POST" });
        if !is_token(method) {
            bail!("`{method}` is not a method: write GET, POST or another name");
        }
        let mut variables = Variables::default();
        let described = SyntheticRequest {
            method,
            is_https: target.https,
            host: &target.host,
            script_name: args.request.script_name.as_deref().unwrap_or_default(),
            path: target.path,
            query: target.query,
        };
        for (name, value) in described.variables() {
            variables.set(name, OsString::from_vec(value));
        }
        if let Some(script) = script {
            variables.set("SCRIPT_FILENAME", script);
        }
        if let Some(credentials) = &call.auth {
            // The message does not show the value, which may be part of a password.
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
        let timeout_secs = args.request.timeout.unwrap_or(INTERACTIVE_TIMEOUT_SECS);
        ensure!(!call.data.iter().any(|data| data == "@"), "`--data @` names no file");
        let body = match body(&call.data, timeout_secs).context(UnusableBody)? {
            Some((body, length)) => {
                variables.set("CONTENT_LENGTH", length.to_string());
                variables.set("CONTENT_TYPE", "application/x-www-form-urlencoded");
                body
            }
            None => File::open("/dev/null").context("an empty request body")?.into(),
        };
        // A header on the command line replaces the default header.
        let mut replaced: Vec<&str> = Vec::new();
        for header in &call.headers {
            let (name, value) = header
                .split_once(':')
                .filter(|(name, value)| {
                    is_token(name) && !value.contains(|c: char| c.is_control() && c != '\t')
                })
                .with_context(|| format!("`{header}` is not a header: write `Name: value`"))?;
            if !replaced.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                variables.0.retain(|(known, _)| {
                    *known != *format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"))
                });
                replaced.push(name);
            }
            variables.header(name, value.trim());
        }
        let request = Request::synthetic(method, &described.request_uri(), variables.0);
        Ok(Self { request, body })
    }
}

/// Prints the variables of `request` to standard error.
pub(super) fn print_variables(request: &Request) {
    let mut variables: Vec<_> = request.variables.iter().collect();
    variables.sort();
    let mut shown = String::new();
    for (name, value) in variables {
        let (name, value) = (escape::text(name.as_bytes()), escape::text(value.as_bytes()));
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "> {}={}", Escaped(&name), Escaped(&value));
    }
    // If standard error is closed, nobody reads the message.
    let _ = io::stderr().lock().write_all(shown.as_bytes());
}

/// Is `name` a token, as methods and header names are (RFC 9110 5.6.2)?
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// The parts of TARGET.
struct Target<'a> {
    https: bool,
    host: String,
    /// The path below that of the application.
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn parse(args: &CallArgs, target: &'a str) -> Result<Self> {
        let mut https = args.call.https;
        let mut host = args.call.host.clone();
        let mut target = target;
        if let Some((scheme @ ("http" | "https"), rest)) = target.split_once("://") {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            https |= scheme == "https";
            host = rest[..end].to_owned();
            target = &rest[end..];
        }
        check_host(&host)?;
        let script_name = args.request.script_name.as_deref().unwrap_or_default();
        if !(target.is_empty() || target.starts_with('/') || target.starts_with('?')) {
            bail!("`{target}` is not a target: write /path?query, or a full URL");
        }
        // Browsers do not send the fragment.
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() && script_name.is_empty() { "/" } else { path };
        Ok(Self { https, host, path, query })
    }
}

/// Is `host` NAME or NAME:PORT, as a `Host` header has them?
fn check_host(host: &str) -> Result<()> {
    let parts = HostPort::split(host);
    let name = parts.host;
    let is_address = name.starts_with('[') && name.ends_with(']');
    let is_strange = |character: char| {
        character.is_whitespace() || character == '/' || (character == ':' && !is_address)
    };
    if name.is_empty() || name.contains(is_strange) {
        bail!("`{host}` is not a host: write NAME or NAME:PORT, and an IPv6 address in brackets");
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some(port) = parts.port.filter(|port| !is_port(port)) {
        bail!("`{port}` is not a port, in `{host}`: a port is a number from 1 to 65535");
    }
    Ok(())
}

/// The request body and its length in bytes.
fn body(data: &[String], timeout_secs: u64) -> Result<Option<(OwnedFd, u64)>> {
    if data.is_empty() {
        return Ok(None);
    }
    let mut file = match data {
        // The file is sent directly, because it may be too large for memory.
        [only] if only.starts_with('@') && only != "@-" => open(&only[1..], timeout_secs)?,
        _ => {
            let mut file = tempfile::tempfile().context("a temporary file for the request body")?;
            for (position, piece) in data.iter().enumerate() {
                if position > 0 {
                    file.write_all(b"&")?;
                }
                match piece.strip_prefix('@') {
                    Some("-") => io::copy(&mut io::stdin().lock(), &mut file)
                        .context("standard input as request body")?,
                    Some(path) => io::copy(&mut open(path, timeout_secs)?, &mut file)
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
        bail!("it is a directory");
    }
    if !found.is_file() {
        // A pipe or device: its length is known only at the end.
        let mut copy = tempfile::tempfile().context("a temporary file for the request body")?;
        io::copy(&mut file, &mut copy)?;
        copy.rewind()?;
        file = copy;
    }
    let length = file.metadata()?.len();
    Ok(Some((file.into(), length)))
}

/// Opens a file with a request body. Waits `timeout_secs` for the writer of a named pipe; 0 is no
/// limit.
fn open(path: &str, timeout_secs: u64) -> Result<File> {
    let cannot = || format!("the file `{path}` cannot be opened");
    let is_fifo = fs::metadata(path).with_context(cannot)?.file_type().is_fifo();
    if !is_fifo {
        return File::open(path).with_context(cannot);
    }
    // Without NONBLOCK, opening a named pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = open_file(path, flags, Mode::empty()).with_context(cannot)?;
    let limit = Timespec::try_from(Duration::from_secs(timeout_secs)).ok();
    let limit = limit.filter(|_| timeout_secs > 0);
    if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], limit.as_ref())? == 0 {
        bail!("no process has written to the named pipe `{path}` for {timeout_secs} s");
    }
    fcntl_setfl(&pipe, OFlags::empty())?;
    Ok(pipe.into())
}
