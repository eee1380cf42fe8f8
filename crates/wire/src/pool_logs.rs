//! The log files of a pool: what they are, and how every process opens them.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use serde::{Deserialize, Serialize};

/// A log that a pool may keep in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// What goes wrong, and what applications print: standard error.
    Error,
    /// A line for each request.
    Access,
}

/// What a pool writes where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLogs {
    /// The file behind standard error, as an absolute path in bytes, and how often it was opened
    /// again before.
    pub error: Option<(Vec<u8>, u32)>,
    /// The access log.
    pub access: Option<AccessLog>,
    /// Descriptor of an event that tells idle workers to open their files again.
    pub bell_fd: Option<i32>,
    /// What a request says in the error log goes to the web server, too.
    pub to_server: bool,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The form of its lines.
    pub form: LineForm,
    /// Where they go; standard error without it.
    pub file: Option<AccessFile>,
}

/// The file of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessFile {
    /// Its absolute path, as bytes.
    pub path: Vec<u8>,
    /// The open file, as a descriptor.
    pub fd: i32,
    /// How often it was opened again before.
    pub generation: u32,
}

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineForm {
    /// Apache's combined line, and what it lacks behind it.
    Combined,
    /// An object of JSON.
    Json,
}

/// Makes writes to the access log `file`, which nobody but wsgate has open, never wait: a pipe may
/// be full.
///
/// # Errors
/// If the kernel refuses.
pub fn never_wait(file: impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::NONBLOCK)?)
}

/// Opens the log file at `path`, which is made if it is not there: the owner writes, the group may
/// read. What is written goes to its end, whoever else writes there; so a line that leaves in one
/// write is never torn.
///
/// # Errors
/// If that may not be. A named pipe that nobody reads is an error, and never a wait.
pub fn open_file(path: &[u8]) -> io::Result<OwnedFd> {
    open_file_with(path, OFlags::empty())
}

/// As [`open_file`], with more flags.
///
/// # Errors
/// As [`open_file`], and what the flags ask for.
pub fn open_file_with(path: &[u8], more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    let file = open(OsStr::from_bytes(path), flags | more, Mode::from_raw_mode(0o640))?;
    // Not waiting is for the opening alone: lines that find a pipe full wait.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}
