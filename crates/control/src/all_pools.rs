//! The status of all running pools, asked in parallel and with limits: pools of other users may be
//! hostile.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    thread::{
        Builder, {self},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    connection::{
        Found, MAX_ANSWER_BYTES, STATUS_TIMEOUT, check_runs, connected, failed, parsed, peer,
        read_some, socket_path,
    },
    other_users::directories,
    pool_error::PoolError,
    pool_status::PoolStatus,
    protocol::ControlCommand,
    sockets::names,
    user_name::UserNames,
};

/// Maximum size of all responses of a directory in bytes.
const MAX_DIRECTORY_BYTES: usize = 2 * MAX_ANSWER_BYTES;

/// How long a pool may take to make room in its accept queue.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(100);

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
        match answer.and_then(|answer| Ok(parsed(&name, &answer)?)) {
            Ok(status) => statuses.extend(status.map(|status| located(status, directory))),
            Err(error) => troubles.push(error),
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
    let due = Instant::now() + STATUS_TIMEOUT;
    for name in names(directory) {
        match request_status(directory, &name, due) {
            Ok(Some(stream)) => asked.push((name, stream, Vec::new())),
            Ok(None) => {}
            Err(error) => done.push((name, Err(error))),
        }
    }
    let mut bytes = MAX_DIRECTORY_BYTES;
    while !asked.is_empty() {
        let left = Timespec::try_from(due.saturating_duration_since(Instant::now())).ok();
        let mut watched: Vec<_> =
            asked.iter().map(|(_, stream, _)| PollFd::new(stream, PollFlags::IN)).collect();
        if matches!(poll(&mut watched, left.as_ref()), Ok(0)) {
            done.extend(asked.drain(..).map(|(name, stream, _)| {
                let error = PoolError::silent(&name, peer(&stream));
                (name, Err(error.into()))
            }));
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
                        let reason = &"the answers of its directory are too long";
                        let error = PoolError::invalid(&name, reason);
                        done.push((name, Err(error.into())));
                    }
                },
                Err(error) => {
                    let error = failed(&stream, &name, &error);
                    done.push((name, Err(error.into())));
                }
            }
        }
    }
    done
}

/// A non-blocking connection on which the status was requested; `None` if there is no such pool.
///
/// # Errors
/// If the pool cannot be asked: it was killed, or its supervisor is stopped.
fn request_status(directory: &Path, name: &str, due: Instant) -> Result<Option<UnixStream>> {
    let left = due.saturating_duration_since(Instant::now());
    // No limit at all is 0 for the kernel.
    let limit = left.clamp(Duration::from_millis(1), CONNECT_TIMEOUT);
    let mut stream = match connected(directory, name, limit)? {
        Found::Pool(stream) => stream,
        Found::Killed => {
            return Err(PoolError::killed(name, &socket_path(directory, name)).into());
        }
        Found::Nothing => return Ok(None),
    };
    check_runs(&stream, name)?;
    let sent = stream.write_all(ControlCommand::Status.line().as_bytes());
    let sent = sent.and_then(|()| stream.set_nonblocking(true));
    sent.map_err(|error| failed(&stream, name, &error))?;
    Ok(Some(stream))
}
