//! The request body that the options describe, as curl makes it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{
        Read as _, Seek as _, Write as _, {self},
    },
    os::unix::ffi::OsStrExt as _,
};

use anyhow::{Context as _, Result};

use crate::call::{
    body_files::{regular, source, temporary},
    body_options::{BodyOptions, DataKind},
    multipart,
};

/// A request body in a file.
pub(super) struct Body {
    /// The bytes; no body is an empty file.
    pub(super) file: File,
    /// The number of bytes; `None` without a body.
    pub(super) length: Option<u64>,
    /// The media type, unless a header names another.
    pub(super) content_type: Option<String>,
}

impl Body {
    /// No request body.
    pub(super) fn none() -> Result<Self> {
        let file = File::open("/dev/null").context("an empty request body")?;
        Ok(Self { file, length: None, content_type: None })
    }

    /// The body of `options`. Named pipes are waited for `timeout_secs`; 0 is no limit.
    pub(super) fn new(options: &BodyOptions, timeout_secs: u64) -> Result<Self> {
        if !options.form.is_empty() {
            let (file, content_type) = multipart::form(&options.form, timeout_secs)?;
            return Self::of(file, content_type);
        }
        let content_type = if options.is_json() {
            "application/json"
        } else {
            "application/x-www-form-urlencoded"
        };
        let file = match &options.data[..] {
            [] => return Self::none(),
            // The file is sent directly, because it may be too large for memory.
            [(DataKind::Binary | DataKind::Json, only)] if file_of(only).is_some() => {
                regular(source(file_of(only).unwrap_or_default(), timeout_secs)?)?
            }
            pieces => {
                let mut file = temporary()?;
                for (position, (kind, value)) in pieces.iter().enumerate() {
                    if position > 0 && *kind != DataKind::Json {
                        file.write_all(b"&")?;
                    }
                    write_piece(*kind, value, timeout_secs, &mut file)?;
                }
                file
            }
        };
        Self::of(file, content_type.to_owned())
    }

    /// The body in `file`, which is a regular file.
    fn of(mut file: File, content_type: String) -> Result<Self> {
        file.rewind()?;
        let length = Some(file.metadata()?.len());
        Ok(Self { file, length, content_type: Some(content_type) })
    }

    /// The bytes of the body, as text for a query.
    pub(super) fn into_text(mut self) -> Result<String> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).context("a query is text")?;
        Ok(text)
    }
}

/// The name of the file in a value `@FILE`.
fn file_of(value: &OsStr) -> Option<&OsStr> {
    value.as_bytes().strip_prefix(b"@").map(OsStr::from_bytes)
}

/// Writes one value to `file`, as curl sends it.
fn write_piece(kind: DataKind, value: &OsStr, timeout_secs: u64, file: &mut File) -> Result<()> {
    match (kind, file_of(value)) {
        (DataKind::Raw, _) | (DataKind::Ascii | DataKind::Binary | DataKind::Json, None) => {
            file.write_all(value.as_bytes())?;
        }
        (DataKind::Ascii, Some(path)) => {
            let mut source = source(path, timeout_secs)?;
            let mut piece = vec![0; 1 << 16];
            loop {
                let length = source.read(&mut piece)?;
                if length == 0 {
                    break;
                }
                let mut kept = piece[..length].to_vec();
                kept.retain(|byte| !b"\r\n\0".contains(byte));
                file.write_all(&kept)?;
            }
        }
        (DataKind::Binary | DataKind::Json, Some(path)) => {
            io::copy(&mut source(path, timeout_secs)?, file)
                .with_context(|| format!("`{}` as request body", path.display()))?;
        }
        (DataKind::UrlEncoded, _) => {
            let value = value.as_bytes();
            // `=TEXT` and `@FILE` have no name.
            let end = value.iter().position(|byte| b"=@".contains(byte));
            let (name, bytes) = match end {
                None => (&b""[..], value.to_vec()),
                Some(end) if value[end] == b'=' => (&value[..end], value[end + 1..].to_vec()),
                Some(end) => {
                    let mut bytes = Vec::new();
                    let path = OsStr::from_bytes(&value[end + 1..]);
                    source(path, timeout_secs)?.read_to_end(&mut bytes)?;
                    (&value[..end], bytes)
                }
            };
            if !name.is_empty() {
                file.write_all(name)?;
                file.write_all(b"=")?;
            }
            file.write_all(url_encoded(&bytes).as_bytes())?;
        }
    }
    Ok(())
}

/// `bytes` percent-encoded for a form: a space is `+`.
fn url_encoded(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else if byte == b' ' {
            encoded.push('+');
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
