//! The status of all running pools, asked in parallel and with limits: pools of other users may be
//! hostile.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    thread::{
        Builder, {self},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    connection::{MAX_ANSWER_BYTES, STATUS_TIMEOUT, connected, no_answer, parsed, read_some},
    other_users::directories,
    pool_status::PoolStatus,
    protocol::ControlCommand,
    sockets::names,
    user_name::UserNames,
};

/// Maximum size of all responses of a directory in bytes.
const MAX_DIRECTORY_BYTES: usize = 2 * MAX_ANSWER_BYTES;

/// The status of all pools that this user may control, and the errors of pools that did not
/// respond. Root sees the pools of all users.
///
/// # Errors
/// If no runtime directory is usable.
pub fn all() -> Result<(Vec<PoolStatus>, Vec<anyhow::Error>)> {
    let directories = directories()?;
    // The pools of one user must not delay those of the others.
    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = directories
            .iter()
            .map(|directory| (directory, Builder::new().spawn_scoped(scope, || ask_all(directory))))
            .collect();
        asked
            .into_iter()
            .flat_map(|(directory, asked)| {
                // At the limit of processes, this thread asks.
                let answers = asked
                    .map_or_else(|_| ask_all(directory), |asked| asked.join().unwrap_or_default());
                answers.into_iter().map(move |(name, answer)| (directory, name, answer))
            })
            .collect()
    });
    let (mut statuses, mut troubles) = (Vec::new(), Vec::new());
    for (directory, name, answer) in answers {
        match answer.and_then(|answer| parsed(&answer)) {
            Ok(status) => statuses.extend(status.map(|status| located(status, directory))),
            Err(error) => troubles.push(error.context(no_answer(&name))),
        }
    }
    let key = |status: &PoolStatus| (status.name.clone(), status.user.clone());
    statuses.sort_by_key(key);
    Ok((statuses, troubles))
}

/// Sets in `status` what no pool is believed about: its user, and the directory of its socket.
pub(crate) fn located(status: PoolStatus, directory: &Path) -> PoolStatus {
    let owner = fs::metadata(directory).map(|found| UserNames::read().name(found.uid()));
    PoolStatus {
        user: owner.unwrap_or_default(),
        directory: directory.display().to_string(),
        ..status
    }
}

/// Asks all pools of `directory` in parallel, so that a slow pool does not delay the others.
fn ask_all(directory: &Path) -> Vec<(String, Result<Vec<u8>>)> {
    let (mut asked, mut done) = (Vec::new(), Vec::new());
    for name in names(directory) {
        match request_status(directory, &name) {
            Ok(Some(stream)) => asked.push((name, stream, Vec::new())),
            // The pool was killed and left its socket.
            Ok(None) => {}
            Err(error) => done.push((name, Err(error))),
        }
    }
    let due = Instant::now() + STATUS_TIMEOUT;
    let mut bytes = MAX_DIRECTORY_BYTES;
    while !asked.is_empty() {
        let left = Timespec::try_from(due.saturating_duration_since(Instant::now())).ok();
        let mut watched: Vec<_> =
            asked.iter().map(|(_, stream, _)| PollFd::new(stream, PollFlags::IN)).collect();
        if matches!(poll(&mut watched, left.as_ref()), Ok(0)) {
            let late = asked
                .drain(..)
                .map(|(name, ..)| (name, Err(io::Error::from(io::ErrorKind::TimedOut).into())));
            done.extend(late);
            break;
        }
        for (name, mut stream, mut answer) in std::mem::take(&mut asked) {
            match read_some(&mut stream, &mut answer) {
                Ok(Some(0)) => done.push((name, Ok(answer))),
                Ok(count) => match bytes.checked_sub(count.unwrap_or(0)) {
                    Some(left) => {
                        bytes = left;
                        asked.push((name, stream, answer));
                    }
                    None => {
                        done.push((name, Err(anyhow!("the answers of its directory are too long"))))
                    }
                },
                Err(error) => done.push((name, Err(error.into()))),
            }
        }
    }
    done
}

/// A non-blocking connection on which the status was requested; `None` if the pool is not running.
///
/// # Errors
/// If the pool cannot be asked.
fn request_status(directory: &Path, name: &str) -> Result<Option<UnixStream>> {
    let Some(mut stream) = connected(directory, name, Duration::from_millis(100))? else {
        return Ok(None);
    };
    stream.write_all(ControlCommand::Status.line().as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(Some(stream))
}
