//! The body of a form with files (RFC 7578), as curl makes it of `-F`.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{
        Write as _, {self},
    },
    os::unix::ffi::OsStrExt as _,
};

use anyhow::{Context as _, Result, bail};
use diagnostics::request_id;

use crate::call::{
    body_files::{source, temporary},
    body_options::FormKind,
};

/// The media types of files, by the end of their names.
const TYPES: [(&str, &str); 10] = [
    (".gif", "image/gif"),
    (".jpg", "image/jpeg"),
    (".jpeg", "image/jpeg"),
    (".png", "image/png"),
    (".svg", "image/svg+xml"),
    (".txt", "text/plain"),
    (".htm", "text/html"),
    (".html", "text/html"),
    (".pdf", "application/pdf"),
    (".xml", "application/xml"),
];

/// A value of `-F` that is none.
#[derive(Debug)]
pub(super) struct BadField(String);

impl std::fmt::Display for BadField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadField {}

/// The content of a field.
enum Content {
    Text(Vec<u8>),
    /// A file of the client, which has a name and a type.
    Upload(OsString),
    /// A file whose content is the value.
    FromFile(OsString),
}

/// A field of a form.
struct Field {
    name: Vec<u8>,
    content: Content,
    media_type: Option<Vec<u8>>,
    file_name: Option<Vec<u8>>,
}

impl Field {
    fn parse(kind: FormKind, value: &OsStr) -> Result<Self> {
        let shown = value.display();
        let bytes = value.as_bytes();
        let Some(equals) = bytes.iter().position(|byte| *byte == b'=') else {
            bail!(BadField(format!(
                "`{shown}` is not a field of a form: write NAME=TEXT or NAME=@FILE"
            )));
        };
        let (name, rest) = (bytes[..equals].to_vec(), &bytes[equals + 1..]);
        if kind == FormKind::Text {
            let content = Content::Text(rest.to_vec());
            return Ok(Self { name, content, media_type: None, file_name: None });
        }
        let (sign, rest) = match rest {
            [sign @ (b'@' | b'<'), rest @ ..] => (*sign, rest),
            rest => (b'=', rest),
        };
        let (word, mut rest) = word(rest);
        let content = match sign {
            b'@' => Content::Upload(OsStr::from_bytes(&word).to_owned()),
            b'<' => Content::FromFile(OsStr::from_bytes(&word).to_owned()),
            _ => Content::Text(word),
        };
        let mut field = Self { name, content, media_type: None, file_name: None };
        while let [b';', untrimmed @ ..] = rest {
            let after = untrimmed.trim_ascii_start();
            let lower = after.to_ascii_lowercase();
            if lower.starts_with(b"type=") {
                let (value, end) = plain_word(&after[5..]);
                field.media_type = Some(value.trim_ascii().to_vec());
                rest = end;
            } else if lower.starts_with(b"filename=") {
                let (value, end) = self::word(&after[9..]);
                field.file_name = Some(value);
                rest = end;
            } else if let Some(media_type) = &mut field.media_type
                && !lower.starts_with(b"headers=")
                && !lower.starts_with(b"encoder=")
            {
                // A parameter of the media type, such as `;charset=utf-8`.
                let (value, end) = plain_word(untrimmed);
                media_type.push(b';');
                media_type.extend(value);
                rest = end;
            } else {
                bail!(BadField(format!(
                    "`{}` in the field `{shown}` is neither `type=` nor `filename=`: \
                     --form-string sends a value with `;`",
                    String::from_utf8_lossy(plain_word(after).0)
                )));
            }
        }
        Ok(field)
    }

    fn write(&self, timeout_secs: u64, file: &mut File) -> Result<()> {
        file.write_all(b"Content-Disposition: form-data; name=\"")?;
        file.write_all(&escaped(&self.name))?;
        file.write_all(b"\"")?;
        let mut file_name = self.file_name.clone();
        let mut media_type = self.media_type.clone();
        match &self.content {
            Content::Upload(path) => {
                let base = path.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let name = file_name.get_or_insert_with(|| base.to_vec());
                // Standard input has no type.
                if media_type.is_none() && path != "-" {
                    let known = type_of(name).unwrap_or("application/octet-stream");
                    media_type = Some(known.as_bytes().to_vec());
                }
            }
            Content::FromFile(path) if media_type.is_none() => {
                media_type = type_of(path.as_bytes()).map(|known| known.as_bytes().to_vec());
            }
            Content::FromFile(_) | Content::Text(_) => {}
        }
        if let Some(name) = &file_name {
            file.write_all(b"; filename=\"")?;
            file.write_all(&escaped(name))?;
            file.write_all(b"\"")?;
        }
        if let Some(media_type) = &media_type {
            file.write_all(b"\r\nContent-Type: ")?;
            file.write_all(media_type)?;
        }
        file.write_all(b"\r\n\r\n")?;
        match &self.content {
            Content::Text(text) => file.write_all(text)?,
            Content::Upload(path) | Content::FromFile(path) => {
                io::copy(&mut source(path, timeout_secs)?, file)
                    .with_context(|| format!("`{}` as a field", path.display()))?;
            }
        }
        Ok(())
    }
}

/// The body of the form `fields`, and its media type.
pub(super) fn form(fields: &[(FormKind, OsString)], timeout_secs: u64) -> Result<(File, String)> {
    let boundary = format!("{}{}", "-".repeat(24), request_id::new());
    let mut file = temporary()?;
    for (kind, value) in fields {
        write!(file, "--{boundary}\r\n")?;
        Field::parse(*kind, value)?.write(timeout_secs, &mut file)?;
        file.write_all(b"\r\n")?;
    }
    write!(file, "--{boundary}--\r\n")?;
    let media_type = format!("multipart/form-data; boundary={boundary}");
    Ok((file, media_type))
}

/// The media type of a file with this name, if that is well known.
fn type_of(name: &[u8]) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let known = TYPES.iter().find(|(end, _)| name.ends_with(end.as_bytes()));
    known.map(|(_, media_type)| *media_type)
}

/// A name in quotes, as browsers and curl write it.
fn escaped(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in name {
        match byte {
            b'"' => escaped.extend(b"%22"),
            b'\r' => escaped.extend(b"%0D"),
            b'\n' => escaped.extend(b"%0A"),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

/// The text up to the next semicolon, and the rest.
fn plain_word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| *byte == b';').unwrap_or(text.len()))
}

/// The word that `text` begins with, which may stand in quotes, and the rest.
fn word(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let plain = || {
        let (word, rest) = plain_word(text);
        (word.trim_ascii_end().to_vec(), rest)
    };
    let Some(mut rest) = text.strip_prefix(b"\"") else { return plain() };
    let mut word = Vec::new();
    loop {
        match rest {
            [b'\\', byte @ (b'\\' | b'"'), after @ ..] => {
                word.push(*byte);
                rest = after;
            }
            [b'"', after @ ..] if after.is_empty() || after[0] == b';' => return (word, after),
            // Without an end, the quote is a character like others.
            [] | [b'"', ..] => return plain(),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}
