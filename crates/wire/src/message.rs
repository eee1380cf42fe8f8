//! The one format of messages between the processes of wsgate: a fixed header, and a payload that
//! postcard encodes.
//!
//! | bytes | field |
//! |---|---|
//! | 0–7 | magic: `wsgate`, a zero byte, the version of the header |
//! | 8–39 | name of the build, filled up with zero bytes |
//! | 40–43 | kind of the message, little-endian |
//! | 44–47 | length of the payload in bytes, little-endian |
//!
//! The layout of a payload belongs to one build. The header does not change, so each side can name
//! the build of the other before it reads a payload. `src/python/bootstrap.py` writes the header,
//! too.

use std::{
    fmt,
    fs::File,
    io,
    io::Write as _,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, fstat, memfd_create},
    io::{Errno, pread},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::build;

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 48;

/// Length of every command of a supervisor to its template in bytes.
pub const PACKET_BYTES: usize = 64;

/// Longest message in bytes. The kernel limits the environment of a process to 6 MiB (execve(2)).
const MAX_MESSAGE_BYTES: usize = 16 << 20;

const MAGIC: [u8; 8] = *b"wsgate\0\x01";
const BUILD_BYTES: usize = 32;
const KIND_AT: usize = MAGIC.len() + BUILD_BYTES;
const LENGTH_AT: usize = KIND_AT + 4;

/// What a message is. A number is never given to another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`crate::launch::Launch`].
    Launch = 1,
    /// [`crate::request::RequestMessage`].
    Request = 2,
    /// [`crate::request::Greeting`].
    Greeting = 3,
    /// [`crate::request::RequestFollows`].
    RequestFollows = 4,
    /// [`crate::report::Report`].
    Report = 5,
    /// The text of [`crate::report::Report::EngineFailed`], not encoded.
    EngineFailed = 6,
    /// [`crate::report::StopReason`].
    StopReason = 7,
    /// [`crate::template::TemplateCommand`].
    TemplateCommand = 8,
    /// [`crate::template::TemplateEvent`].
    TemplateEvent = 9,
    /// [`crate::check::Findings`].
    Findings = 10,
    /// A list of [`crate::check::SideEffect`].
    SideEffects = 11,
    /// [`crate::monitor::MonitorLaunch`].
    MonitorLaunch = 12,
    /// [`crate::serve::ServeLaunch`].
    ServeLaunch = 13,
}

/// A type that is sent as a message of its own kind.
pub trait Message: Serialize + DeserializeOwned {
    /// The kind that the header names.
    const KIND: Kind;
}

/// A value that the encoder refused, or that is longer than its message may be. No type of this
/// crate brings the former about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError;

/// Why bytes are not the message that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes do not begin with a header of wsgate's.
    NoMessage,
    /// A process of another build sent the message; the text names that build.
    OtherBuild(String),
    /// A message of another kind.
    OtherKind(u32),
    /// The length or the payload is wrong.
    Damaged,
}

/// Encodes `message`.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes = postcard::to_extend(message, bytes).map_err(|_| EncodeError)?;
    let length = bytes.len() - HEADER_BYTES;
    write_header(&mut bytes, M::KIND, length)?;
    Ok(bytes)
}

/// Encodes `message` into a packet of [`PACKET_BYTES`], filled up with zero bytes.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_packet<M: Message>(message: &M) -> Result<[u8; PACKET_BYTES], EncodeError> {
    let mut packet = [0; PACKET_BYTES];
    let length =
        postcard::to_slice(message, &mut packet[HEADER_BYTES..]).map_err(|_| EncodeError)?.len();
    write_header(&mut packet, M::KIND, length)?;
    Ok(packet)
}

/// Encodes the bytes of `text` as the payload of a message of `kind`.
///
/// # Errors
/// See [`EncodeError`].
pub(crate) fn encode_text(kind: Kind, text: &str) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = [&[0; HEADER_BYTES], text.as_bytes()].concat();
    write_header(&mut bytes, kind, text.len())?;
    Ok(bytes)
}

/// Decodes a message that fills `bytes`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let (payload, rest) = payload(M::KIND, bytes)?;
    if !rest.is_empty() {
        return Err(DecodeError::Damaged);
    }
    decode_payload(payload)
}

/// Decodes a packet of [`PACKET_BYTES`].
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_packet<M: Message>(packet: &[u8]) -> Result<M, DecodeError> {
    let (payload, rest) = payload(M::KIND, packet)?;
    if packet.len() != PACKET_BYTES || rest.iter().any(|&byte| byte != 0) {
        return Err(DecodeError::Damaged);
    }
    decode_payload(payload)
}

/// The payload of the message of `kind` that `bytes` begin with, and what follows on it.
///
/// # Errors
/// See [`DecodeError`].
pub(crate) fn payload(kind: Kind, bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(DecodeError::NoMessage);
    };
    let Some(sender) = header[..KIND_AT].strip_prefix(&MAGIC) else {
        return Err(DecodeError::NoMessage);
    };
    if sender != build_field() {
        let name = sender.split(|&byte| byte == 0).next().unwrap_or_default();
        return Err(DecodeError::OtherBuild(String::from_utf8_lossy(name).into_owned()));
    }
    let number = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if number(KIND_AT) != kind as u32 {
        return Err(DecodeError::OtherKind(number(KIND_AT)));
    }
    let length = usize::try_from(number(LENGTH_AT)).map_err(|_| DecodeError::Damaged)?;
    rest.split_at_checked(length).ok_or(DecodeError::Damaged)
}

fn decode_payload<M: Message>(payload: &[u8]) -> Result<M, DecodeError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(DecodeError::Damaged),
    }
}

fn write_header(bytes: &mut [u8], kind: Kind, length: usize) -> Result<(), EncodeError> {
    let header = bytes.first_chunk_mut::<HEADER_BYTES>().ok_or(EncodeError)?;
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..KIND_AT].copy_from_slice(&build_field());
    header[KIND_AT..LENGTH_AT].copy_from_slice(&(kind as u32).to_le_bytes());
    let length = u32::try_from(length).map_err(|_| EncodeError)?;
    header[LENGTH_AT..].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The name of this build as it stands in a header.
fn build_field() -> [u8; BUILD_BYTES] {
    let name = build().as_bytes();
    let mut field = [0; BUILD_BYTES];
    // Of a longer name, the beginning counts.
    let length = name.len().min(BUILD_BYTES);
    field[..length].copy_from_slice(&name[..length]);
    field
}

/// Writes `message` to a new file in memory, named `name` in /proc, whose descriptor another
/// process can inherit or receive.
///
/// # Errors
/// If memory or descriptors are short.
pub fn to_file<M: Message>(message: &M, name: &str) -> io::Result<OwnedFd> {
    let bytes = encode(message).map_err(io::Error::other)?;
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// Reads the bytes of the message in `file` from the beginning, wherever its offset stands.
///
/// # Errors
/// If the file cannot be read, or is longer than any message.
pub fn read_file(file: impl AsFd) -> io::Result<Vec<u8>> {
    let size = usize::try_from(fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if size > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(DecodeError::Damaged));
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match pread(&file, &mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message cannot be encoded")
    }
}

impl std::error::Error for EncodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMessage => f.write_str("the bytes are not a message of wsgate's"),
            Self::OtherBuild(other) => {
                write!(f, "the message is of build `{other}`, this process of build `{}`", build())
            }
            Self::OtherKind(kind) => write!(f, "the message is of another kind ({kind})"),
            Self::Damaged => f.write_str("the message is damaged"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
