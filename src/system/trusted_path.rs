//! Where root may make files: on a way that nobody but root can lead elsewhere.
//!
//! A link that somebody swaps in between two steps of root's gives files of root's away. So each
//! directory on the way must be root's, and writable for root alone or sticky (`/tmp`), where
//! nobody can rename what is root's.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::process::geteuid;

/// Most links on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// The sticky bit: in such a directory only its owner and a file's owner rename or remove that
/// file.
const STICKY: u32 = 0o1000;

/// Is this process root, with power over files of other users? The root of a user namespace that
/// holds one user (`unshare -r`) is an ordinary user under another number: it has that user's
/// rights alone, and sees the owners of all other files as the user 65534.
pub(crate) fn is_mighty() -> bool {
    geteuid().is_root()
        && !fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| holds_one_user(&map))
}

/// Does a user namespace with this map hold one user?
fn holds_one_user(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2));
    counts.map(|count| count.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add) == 1
}

/// A file that root may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its path without links; at the end there may be one, which must not be followed.
    pub(crate) path: PathBuf,
    /// Others may make files beside it, or may have made it.
    pub(crate) is_shared: bool,
    /// It is a descriptor of this process (`/dev/stderr`), which is followed.
    pub(crate) is_descriptor: bool,
}

/// Why root must not make a file somewhere.
#[derive(Debug)]
pub(crate) struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Untrusted {}

impl Untrusted {
    /// Is this why `error` came?
    pub(crate) fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }

    /// A file that somebody else than root has made, or can still change.
    pub(crate) fn file(path: &Path) -> io::Error {
        Self(format!("`{}` is not root's alone", path.display())).into()
    }
}

impl From<Untrusted> for io::Error {
    fn from(untrusted: Untrusted) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, untrusted)
    }
}

/// What becomes of a link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastLink {
    /// It is followed.
    Followed,
    /// It is what the path names.
    Kept,
}

/// Looks at each directory on the way to `path`.
///
/// # Errors
/// If one is not there, or is not root's alone ([`Untrusted`]).
pub(crate) fn place(path: &Path, last: LastLink) -> io::Result<Place> {
    let mut steps = Vec::new();
    push(&mut steps, &std::path::absolute(path)?);
    let mut here = PathBuf::from("/");
    let mut is_shared = is_shared_directory(&here)?;
    let mut links = 0;
    while let Some(step) = steps.pop() {
        if step == ".." {
            here.pop();
            is_shared = is_shared_directory(&here)?;
            continue;
        }
        let next = here.join(step);
        let is_last = steps.is_empty();
        let found = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_last => {
                return Ok(Place { path: next, is_shared, is_descriptor: false });
            }
            found => found?,
        };
        if found.is_symlink() && !(is_last && last == LastLink::Kept) {
            if here.starts_with("/proc") && here.file_name() == Some(OsStr::new("fd")) {
                return Ok(Place { path: next, is_shared: false, is_descriptor: true });
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("there are too many links on the way"));
            }
            if is_shared && found.uid() != 0 {
                return Err(Untrusted(format!(
                    "`{}` is a link of user {}",
                    next.display(),
                    found.uid()
                ))
                .into());
            }
            let target = fs::read_link(&next)?;
            if target.is_absolute() {
                here = PathBuf::from("/");
                is_shared = is_shared_directory(&here)?;
            }
            push(&mut steps, &target);
        } else if is_last {
            return Ok(Place { path: next, is_shared, is_descriptor: false });
        } else {
            here = next;
            is_shared = is_shared_directory(&here)?;
        }
    }
    Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"))
}

/// Puts the steps of `path` on top of those that are still to be taken.
fn push(steps: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    steps.extend(names);
}

/// May others make files in the directory `path`, though they cannot touch what is root's in it?
///
/// # Errors
/// If they can, or it is no directory.
fn is_shared_directory(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        let sentence = format!("`{}` is no directory", path.display());
        return Err(io::Error::new(io::ErrorKind::NotADirectory, sentence));
    }
    if found.uid() != 0 {
        return Err(Untrusted(format!(
            "the directory `{}` belongs to user {}",
            path.display(),
            found.uid()
        ))
        .into());
    }
    let is_writable = found.mode() & 0o002 != 0 || (found.mode() & 0o020 != 0 && found.gid() != 0);
    if is_writable && found.mode() & STICKY == 0 {
        return Err(Untrusted(format!(
            "users other than root can write in the directory `{}`",
            path.display()
        ))
        .into());
    }
    Ok(is_writable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_of_one_user_is_told_from_others() {
        assert!(holds_one_user("         0       1000          1\n"));
        for map in
            ["         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n", "", "nonsense"]
        {
            assert!(!holds_one_user(map), "{map}");
        }
    }
}
