//! The log files of a pool: their settings, and how every process opens them.

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

/// Permissions of a new log file of a pool.
pub const POOL_LOG_MODE: Mode = Mode::from_raw_mode(0o640);

/// A log that a pool may write to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// The error log: log messages, and what applications print to standard error.
    Error,
    /// The access log: a line for each request.
    Access,
}

/// Settings of the logs of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLogs {
    /// The file behind standard error: its absolute path in bytes, and how often it was reopened
    /// before.
    pub error: Option<(Vec<u8>, u32)>,
    /// The access log.
    pub access: Option<AccessLog>,
    /// Descriptor by which the supervisor makes idle workers reopen their files (eventfd(2)).
    pub bell_fd: Option<i32>,
    /// Log messages about a request go to the web server, too.
    pub to_server: bool,
}

/// Settings of the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The format of its lines.
    pub format: LineFormat,
    /// The file; standard error without one.
    pub file: Option<AccessFile>,
}

/// The file of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessFile {
    /// Its absolute path, as bytes.
    pub path: Vec<u8>,
    /// Descriptor of the open file.
    pub fd: i32,
    /// How often it was reopened before.
    pub generation: u32,
}

/// The format of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineFormat {
    /// Apache's combined format, with further fields at the end.
    Combined,
    /// A JSON object.
    Json,
}

/// Makes writes to the access log `file` non-blocking: a pipe may be full. No process but wsgate's
/// has this file open.
///
/// # Errors
/// If the kernel refuses.
pub fn set_nonblocking(file: impl AsFd) -> io::Result<()> {
    Ok(fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::NONBLOCK)?)
}

/// Opens the log file at `path`, and creates it if it is missing: the owner may write, the group
/// may read. Each write goes to the end of the file, whichever process writes, so that a line
/// written at once is never torn.
///
/// # Errors
/// If the file cannot be opened. A named pipe that no process reads is an error, and not waited
/// for.
pub fn open_file(path: &[u8]) -> io::Result<OwnedFd> {
    open_file_with(path, OFlags::empty(), POOL_LOG_MODE)
}

/// As [`open_file`], with further flags, and with the permissions `mode` of a new file.
///
/// # Errors
/// As [`open_file`], and those of the flags.
pub fn open_file_with(path: &[u8], more: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::CLOEXEC
        | OFlags::NOCTTY
        | OFlags::NONBLOCK;
    let file = open(OsStr::from_bytes(path), flags | more, mode)?;
    // Only opening must not block: a write to a full pipe waits.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_created_and_appended_to() {
        let path = std::env::temp_dir().join(format!("wsgate-log-{}", std::process::id()));
        for line in ["one\n", "two\n"] {
            let file = open_file(path.as_os_str().as_bytes()).unwrap();
            assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
            rustix::io::write(&file, line.as_bytes()).unwrap();
            set_nonblocking(&file).unwrap();
            assert!(fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::remove_file(&path).unwrap();
    }
}
