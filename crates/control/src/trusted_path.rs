//! Paths at which root may create files: paths that no other user can redirect.
//!
//! If another user replaces a directory of the path by a link while root works on it, root changes
//! the wrong file. So each directory of the path must belong to root, and be writable for root
//! alone or sticky (`/tmp`), where other users cannot rename files of root.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use rustix::process::geteuid;

/// Maximum number of links in one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// The sticky bit: only the owners of the directory and of a file may rename or remove the file.
const STICKY: u32 = 0o1000;

/// Is this process root, with access to the files of other users? The root of a user namespace with
/// one user (`unshare -r`) is an ordinary user with another number: it has the permissions of that
/// user only, and all other files seem to belong to user 65534.
pub fn is_real_root() -> bool {
    geteuid().is_root()
        && !fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| has_one_user(&map))
}

/// Does a user namespace with this ID map have only one user?
fn has_one_user(map: &str) -> bool {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2));
    counts.map(|count| count.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add) == 1
}

/// The path of a file that root may create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedPath {
    /// The path without links, except for a last one that must not be followed.
    pub path: PathBuf,
    /// Other users may create files in the directory, or may have created this file.
    pub is_shared: bool,
    /// The path names a file descriptor of this process (`/dev/stderr`), and the link is followed.
    pub is_descriptor: bool,
}

/// Why root must not create a file at a path.
#[derive(Debug)]
pub struct Untrusted(String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Untrusted {}

impl Untrusted {
    /// Is an untrusted path the cause of `error`?
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }

    /// A file that another user than root has created, or can change.
    pub fn file(path: &Path) -> io::Error {
        Self(format!("`{}` does not belong to root alone", path.display())).into()
    }
}

impl From<Untrusted> for io::Error {
    fn from(untrusted: Untrusted) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, untrusted)
    }
}

/// How a link at the end of a path is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// The link is followed.
    Followed,
    /// The path names the link itself.
    Kept,
}

/// Resolves `path`, and checks each of its directories.
///
/// # Errors
/// If a directory does not exist, or does not belong to root alone ([`Untrusted`]).
pub fn resolve(path: &Path, last: LastLink) -> io::Result<TrustedPath> {
    let mut components = Vec::new();
    push(&mut components, &std::path::absolute(path)?);
    let mut here = PathBuf::from("/");
    let mut is_shared = is_shared_directory(&here)?;
    let mut links = 0;
    while let Some(component) = components.pop() {
        if component == ".." {
            here.pop();
            is_shared = is_shared_directory(&here)?;
            continue;
        }
        let next = here.join(component);
        let is_last = components.is_empty();
        let found = match fs::symlink_metadata(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_last => {
                return Ok(TrustedPath { path: next, is_shared, is_descriptor: false });
            }
            found => found?,
        };
        if found.is_symlink() && !(is_last && last == LastLink::Kept) {
            if here.starts_with("/proc") && here.file_name() == Some(OsStr::new("fd")) {
                return Ok(TrustedPath { path: next, is_shared: false, is_descriptor: true });
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("there are too many links in the path"));
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
            push(&mut components, &target);
        } else if is_last {
            return Ok(TrustedPath { path: next, is_shared, is_descriptor: false });
        } else {
            here = next;
            is_shared = is_shared_directory(&here)?;
        }
    }
    Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"))
}

/// Pushes the components of `path` onto the components that are not resolved yet.
fn push(components: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    components.extend(names);
}

/// May other users create files in the directory `path`, but not change files of root in it?
///
/// # Errors
/// If they could change files of root, or `path` is not a directory.
fn is_shared_directory(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() {
        let sentence = format!("`{}` is not a directory", path.display());
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
    fn a_user_namespace_of_one_user_is_recognised() {
        assert!(has_one_user("         0       1000          1\n"));
        for map in
            ["         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n", "", "nonsense"]
        {
            assert!(!has_one_user(map), "{map}");
        }
    }
}
