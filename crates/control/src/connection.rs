//! Connections to control sockets, with limits on responses.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::{io::Errno, net::sockopt};

use crate::{
    pool_status::PoolStatus,
    protocol::{SOCKET_SUFFIX, connect_within},
};

/// How long a supervisor may take to send its status, and all pools of a directory together.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a response in bytes: enough for more than twenty thousand threads.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A connection to the pool `name` of `directory`; `None` if no such pool is running.
///
/// # Errors
/// If its accept queue is full, or `directory` does not exist.
pub(crate) fn connected(
    directory: &Path,
    name: &str,
    limit: Duration,
) -> Result<Option<UnixStream>> {
    let owner = fs::metadata(directory)?.uid();
    let stream = match connect_within(&directory.join(format!("{name}{SOCKET_SUFFIX}")), limit) {
        Ok(stream) => stream,
        Err(Errno::AGAIN) => bail!("its accept queue is full"),
        Err(_) => return Ok(None),
    };
    // A link may lead to another user's socket, which must not receive commands.
    let is_owners = sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid.as_raw() == owner);
    Ok(Some(stream).filter(|_| is_owners))
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

/// Reads to the end, for [`STATUS_TIMEOUT`] at most.
///
/// # Errors
/// `TimedOut` at the timeout, or the error of the connection.
pub(crate) fn read_all(stream: &mut UnixStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let due = Instant::now() + STATUS_TIMEOUT;
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

/// Parses a status; `None` if the pool exited before sending anything.
///
/// # Errors
/// If `answer` is not a status.
pub fn parsed(answer: &[u8]) -> Result<Option<PoolStatus>> {
    if answer.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(answer).map(Some).context("its answer is not a valid status")
}

/// The message that the pool `name` does not respond.
pub(crate) fn no_answer(name: &str) -> String {
    format!("the pool `{name}` does not answer; its supervisor may be stopped")
}
