//! Removes the files of exited warm pools from the runtime directory. Such pools were killed, or
//! had older code and so another name. The gateway that starts a pool calls this module.

use std::{
    collections::BTreeMap,
    fs::{
        File, {self},
    },
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

/// How long the log and the lock file of a pool that has exited are kept.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum number of logs of exited pools that are kept for one application.
const MAX_LOGS: usize = 8;

/// Removes files of pools that are not running from the runtime directory `directory`. The pool
/// `starting` is about to start.
pub(super) fn remove(directory: &Path, starting: &str) {
    let mut logs: BTreeMap<String, Vec<(SystemTime, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let file = entry.file_name();
        let Some((name, suffix)) = file.to_str().and_then(|file| file.rsplit_once('.')) else {
            continue;
        };
        if name == starting || !name.starts_with("warm-") {
            continue;
        }
        let Some(changed) = entry.metadata().and_then(|found| found.modified()).ok() else {
            continue;
        };
        let is_old = changed.elapsed().is_ok_and(|age| age > RETENTION);
        let is_leftover = match suffix {
            "log" if is_running(directory, name) => false,
            "log" if !is_old => {
                let family = name.rsplit_once('-').map_or(name, |(family, _)| family);
                logs.entry(family.to_owned()).or_default().push((changed, path));
                continue;
            }
            "log" => true,
            "sock" => is_old && !is_running(directory, name),
            "pool" => UnixStream::connect(&path)
                .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
            "lock" if is_old => {
                remove_lock(&path);
                false
            }
            "logged" | "draft" => is_old,
            _ => false,
        };
        if is_leftover {
            // Another gateway may have removed the file meanwhile.
            let _ = fs::remove_file(path);
        }
    }
    for mut logs in logs.into_values() {
        logs.sort();
        let surplus = logs.len().saturating_sub(MAX_LOGS);
        logs.drain(..surplus).for_each(|(_, path)| drop(fs::remove_file(path)));
    }
}

/// Is the lock of the pool `name` held, by the pool or by a gateway that is about to start it?
fn is_running(directory: &Path, name: &str) -> bool {
    File::open(directory.join(format!("{name}.lock")))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

/// Removes an unlocked lock file while locking it. A gateway that has opened the file meanwhile
/// finds that the file at its path is another one.
fn remove_lock(path: &Path) {
    if let Ok(file) = File::open(path)
        && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        let _ = fs::remove_file(path);
    }
}
