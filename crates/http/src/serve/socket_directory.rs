//! The directory with the sockets of the pools behind a server.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    process::geteuid,
};
use tempfile::TempDir;

/// How the names of these directories begin.
const PREFIX: &str = "wsgate-serve.";

/// A directory that a server locks as long as it runs, and removes at its end.
pub(super) struct SocketDirectory {
    directory: TempDir,
    _lock: File,
}

impl SocketDirectory {
    /// Creates a directory, and removes those of servers of this user that were killed.
    ///
    /// # Errors
    /// If the directory cannot be created or locked.
    pub(super) fn create() -> io::Result<Self> {
        remove_abandoned(&std::env::temp_dir());
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
            // Another server may have removed the directory before it was locked.
            if let Some(lock) = lock(directory.path())? {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }

    /// The path of the directory.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Locks the directory at `path`; `None` if another process has locked or removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let flags = i32::try_from((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits());
    let flags = flags.map_err(io::Error::other)?;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        locked => locked?,
    }
    let inode = file.metadata()?.ino();
    let is_same = path.symlink_metadata().is_ok_and(|found| found.ino() == inode);
    Ok(is_same.then_some(file))
}

/// Removes the directories in `parent` of servers of this user that no longer run.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_own = entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
            && entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw());
        if is_own && let Ok(Some(_lock)) = lock(&entry.path()) {
            // What cannot be removed stays, and harms nobody.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_servers_that_have_exited_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let names = ["wsgate-serve.gone", "wsgate-serve.runs", "other"];
        let [gone, runs, other] = names.map(|name| parent.path().join(name));
        for path in [&gone, &runs, &other] {
            fs::create_dir(path).unwrap();
            fs::write(path.join("1.sock"), "").unwrap();
        }
        let link = parent.path().join("wsgate-serve.link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let held = lock(&runs).unwrap();
        remove_abandoned(parent.path());
        assert!(held.is_some() && !gone.exists() && runs.join("1.sock").exists());
        assert!(other.join("1.sock").exists() && link.exists());
    }
}
