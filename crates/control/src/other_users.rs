//! The runtime directories of other users, whose pools root sees.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::runtime_directory::{self, RuntimeDirectoryError};

/// Directories in which each user has one with its number in the name: those of sessions, and the
/// temporary directory.
const PLACES: [(&str, &str, &str); 2] = [("/run/user", "", "wsgate"), ("/tmp", "wsgate-", "")];

/// Maximum number of directories of other users that root searches.
const MAX_DIRECTORIES: usize = 256;

/// The runtime directories of all pools that this user may see, each once.
///
/// # Errors
/// If no runtime directory is usable.
pub(crate) fn directories() -> Result<Vec<PathBuf>, RuntimeDirectoryError> {
    let mut directories = runtime_directory::of_pools()?.found;
    directories.extend(directories_of_others());
    let mut seen = BTreeSet::new();
    directories.retain(|path| {
        fs::metadata(path).is_ok_and(|found| seen.insert((found.dev(), found.ino())))
    });
    Ok(directories)
}

/// The runtime directories of other users, if this process runs as root: those that belong to the
/// user whose number is in their path, and that no other user may enter.
fn directories_of_others() -> Vec<PathBuf> {
    if !geteuid().is_root() || std::env::var_os("WSGATE_RUNTIME_DIR").is_some() {
        return Vec::new();
    }
    let found = PLACES.into_iter().flat_map(|(place, prefix, below)| {
        let entries = fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(move |entry| {
            let user: u32 = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            let path = if below.is_empty() { entry.path() } else { entry.path().join(below) };
            is_private(&path, user).then_some(path)
        })
    });
    found.take(MAX_DIRECTORIES).collect()
}

/// Does `path` belong to `user`, and may no other user enter it? A link is not followed.
fn is_private(path: &Path, user: u32) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
}
