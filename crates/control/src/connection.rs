//! Connections to control sockets, with limits on responses.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::{io::Errno, net::sockopt};

use crate::{
    pool_error::{PoolError, listener_of},
    pool_status::PoolStatus,
    process_state::StopCause,
    protocol::{SOCKET_SUFFIX, connect_within},
};

/// How long a supervisor may take to send its status, and all pools of a directory together.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum size of a response in bytes: enough for more than twenty thousand threads.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// What is behind the control socket of a pool.
pub(crate) enum Found {
    /// The pool is running, and accepts connections.
    Pool(UnixStream),
    /// The pool was killed, and has left its socket.
    Killed,
    /// There is no socket, or the socket of another user.
    Nothing,
}

impl Found {
    /// The connection, if the pool is running.
    pub(crate) fn pool(self) -> Option<UnixStream> {
        match self {
            Self::Pool(stream) => Some(stream),
            Self::Killed | Self::Nothing => None,
        }
    }
}

/// Connects to the pool `name` of `directory`.
///
/// # Errors
/// [`PoolError`] if its accept queue is full; also if `directory` does not exist.
pub(crate) fn connected(directory: &Path, name: &str, limit: Duration) -> Result<Found> {
    let owner = fs::metadata(directory)?.uid();
    let path = socket_path(directory, name);
    let stream = match connect_within(&path, limit) {
        Ok(stream) => stream,
        Err(Errno::AGAIN) => {
            return Err(PoolError::silent(name, listener_of(directory, name)).into());
        }
        Err(Errno::CONNREFUSED) if is_socket(&path) => return Ok(Found::Killed),
        Err(_) => return Ok(Found::Nothing),
    };
    // A link may lead to another user's socket, which must not receive commands.
    let is_owners = sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid.as_raw() == owner);
    Ok(if is_owners { Found::Pool(stream) } else { Found::Nothing })
}

/// The path of the control socket of the pool `name`.
pub(crate) fn socket_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{SOCKET_SUFFIX}"))
}

/// Is `path` a socket, and no link?
pub fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The process that opened the socket at the other end: the supervisor.
pub(crate) fn peer(stream: &UnixStream) -> Option<i32> {
    sockopt::socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero().get())
}

/// Checks that the supervisor of the pool `name` can answer on `stream`.
///
/// # Errors
/// If the supervisor is stopped: nothing would come before a timeout.
pub(crate) fn check_runs(stream: &UnixStream, name: &str) -> Result<(), PoolError> {
    match peer(stream) {
        Some(pid) if StopCause::of(pid).is_some() => Err(PoolError::silent(name, Some(pid))),
        _ => Ok(()),
    }
}

/// The error of the pool `name` for an error on its connection.
pub(crate) fn failed(stream: &UnixStream, name: &str, error: &io::Error) -> PoolError {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            PoolError::silent(name, peer(stream))
        }
        _ => PoolError::invalid(name, error),
    }
}

/// Reads the bytes that have arrived. Returns their number: 0 at the end, `None` if no bytes have
/// arrived.
///
/// # Errors
/// If the connection fails, or the response is too long.
pub(crate) fn read_some(
    stream: &mut UnixStream,
    answer: &mut Vec<u8>,
) -> io::Result<Option<usize>> {
    let mut piece = [0; 64 * 1024];
    match stream.read(&mut piece) {
        Ok(length) if answer.len() + length > MAX_ANSWER_BYTES => {
            Err(io::Error::other("its answer is too long"))
        }
        Ok(length) => {
            answer.extend_from_slice(&piece[..length]);
            Ok(Some(length))
        }
        Err(error)
            if [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock].contains(&error.kind()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads to the end, for `limit` at most.
///
/// # Errors
/// `TimedOut` at the timeout, or the error of the connection.
pub(crate) fn read_all(
    stream: &mut UnixStream,
    answer: &mut Vec<u8>,
    limit: Duration,
) -> io::Result<()> {
    let due = Instant::now() + limit;
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        if read_some(stream, answer)? == Some(0) {
            return Ok(());
        }
    }
}

/// Parses the answer of the pool `name`; `None` if the pool exited before sending anything.
///
/// # Errors
/// If `answer` is not a status.
pub fn parsed(name: &str, answer: &[u8]) -> Result<Option<PoolStatus>, PoolError> {
    if answer.is_empty() {
        return Ok(None);
    }
    let status = serde_json::from_slice(answer).map(Some);
    status.map_err(|_| PoolError::invalid(name, &"its answer is not a valid status"))
}
