//! The variables of a request (RFC 3875 4.1).

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    io::{
        Write as _, {self},
    },
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
};

use anyhow::{Context as _, Result, bail};
use diagnostics::escape::{
    Escaped, {self},
};

use crate::{call::body_files::UnusableFile, request::Request};

/// The variables of a request. Values of a repeated header are joined.
#[derive(Default)]
pub(super) struct Variables(pub(super) Vec<(OsString, OsString)>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let value = value.as_ref().to_owned();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Adds the headers of the command line. A header there replaces the default header.
    pub(super) fn add_headers(&mut self, headers: &[Header]) {
        let mut replaced: Vec<String> = Vec::new();
        for header in headers {
            let variable = header.variable();
            if !replaced.contains(&variable) {
                // Removing the type or the value of a body is possible, but not its length.
                let is_length = variable == "CONTENT_LENGTH" && header.value.is_none();
                self.0.retain(|(known, _)| *known != *variable || is_length);
                replaced.push(variable.clone());
            }
            let Some(value) = &header.value else { continue };
            match self.0.iter_mut().find(|(known, _)| *known == *variable) {
                Some((_, old)) if variable.starts_with("HTTP_") => {
                    old.push(if variable == "HTTP_COOKIE" { "; " } else { ", " });
                    old.push(value);
                }
                _ => self.set(&variable, value),
            }
        }
    }
}

/// A request header of the command line.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) name: String,
    /// Without a value, the header is not sent.
    pub(super) value: Option<OsString>,
}

impl Header {
    /// The headers in the values of `-H`.
    ///
    /// # Errors
    /// If a value is no header, or a file with headers cannot be read.
    pub(super) fn all(values: &[OsString]) -> Result<Vec<Self>> {
        let mut headers = Vec::new();
        for value in values {
            match value.as_bytes().strip_prefix(b"@") {
                None => headers.push(Self::parse(value.as_bytes())?),
                Some(path) => {
                    let path = OsStr::from_bytes(path);
                    let source = if path == "-" { OsStr::new("/dev/stdin") } else { path };
                    let text = std::fs::read(source)
                        .with_context(|| format!("`{}`", path.display()))
                        .context(UnusableFile::after_at("the file of headers cannot be read"))?;
                    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                    for line in lines.filter(|line| !line.is_empty()) {
                        headers.push(Self::parse(line)?);
                    }
                }
            }
        }
        Ok(headers)
    }

    fn parse(line: &[u8]) -> Result<Self> {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = line[colon + 1..].trim_ascii();
                (&line[..colon], (!value.is_empty()).then_some(value))
            }
            // `Name;` is a header without a value.
            None => (line.strip_suffix(b";").unwrap_or_default(), Some(&b""[..])),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let is_strange = |value: &[u8]| value.iter().any(|c| c.is_ascii_control() && *c != b'\t');
        if !is_token(&name) || value.is_some_and(is_strange) {
            let shown = String::from_utf8_lossy(line);
            bail!("`{shown}` is not a header: write `Name: value`");
        }
        Ok(Self { name, value: value.map(|value| OsString::from_vec(value.to_vec())) })
    }

    /// The variable of this header.
    fn variable(&self) -> String {
        match self.name.to_ascii_uppercase().replace('-', "_") {
            name if name == "CONTENT_TYPE" || name == "CONTENT_LENGTH" => name,
            name => format!("HTTP_{name}"),
        }
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
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}
