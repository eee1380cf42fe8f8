//! The directory that is this user's alone, for what wsgate keeps between requests: sockets, locks, compiled scripts.
//!
//! `WSGATE_RUNTIME_DIR`, or else `wsgate` in `XDG_RUNTIME_DIR`, or else `wsgate-UID` in the temporary directory. A web server mostly has no
//! `XDG_RUNTIME_DIR` and the shell of the same user has one, so whoever looks for pools looks into all of them.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// The directory, made if it is not there.
///
/// # Errors
/// If it cannot be made, or is not what only this user could have made: another user may have taken the name to feed us files.
pub(crate) fn open() -> io::Result<PathBuf> {
    let path = candidates()?.swap_remove(0);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), format!("`{}` cannot be made: {error}", path.display())));
        }
        _ => {}
    }
    if is_private(&path, geteuid().as_raw())? { Ok(path) } else { Err(not_private(&path)) }
}

/// Those that are there, in which pools of this user may have their sockets. For root, one that was named may be another user's.
///
/// # Errors
/// If all that are there are others'.
pub(crate) fn of_pools() -> io::Result<Vec<PathBuf>> {
    let user = geteuid();
    let (mut found, mut trouble) = (Vec::new(), None);
    for path in candidates()? {
        let owner = match fs::symlink_metadata(&path) {
            Ok(there) if user.is_root() && named().is_some() => there.uid(),
            Ok(_) => user.as_raw(),
            Err(_) => continue,
        };
        match is_private(&path, owner) {
            Ok(true) => found.push(path),
            Ok(false) => trouble = Some(not_private(&path)),
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Where the directory may be; it is made at the first of these.
fn candidates() -> io::Result<Vec<PathBuf>> {
    if let Some(named) = named() {
        let path = PathBuf::from(named);
        // The processes of a pool have working directories of their own.
        return if path.is_absolute() {
            Ok(vec![path])
        } else {
            let words = format!("`{}` in WSGATE_RUNTIME_DIR is no absolute path", path.display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, words))
        };
    }
    let user = geteuid().as_raw();
    // What the XDG Base Directory Specification asks of it; whoever has become another user may still have that one's.
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|path| path.is_absolute() && is_private(path, user).unwrap_or(false));
    let temporary = [env::temp_dir(), PathBuf::from("/tmp")].map(|directory| directory.join(format!("wsgate-{user}")));
    let mut paths: Vec<PathBuf> = session.map(|path| path.join("wsgate")).into_iter().chain(temporary).collect();
    paths.dedup();
    Ok(paths)
}

fn named() -> Option<OsString> {
    env::var_os("WSGATE_RUNTIME_DIR").filter(|directory| !directory.is_empty())
}

/// Is it a directory that `user` owns and nobody else may enter? Not followed if it is a link: whoever made that could turn it
/// elsewhere.
fn is_private(path: &Path, user: u32) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
}

fn not_private(path: &Path) -> io::Error {
    let user = geteuid().as_raw();
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("`{}` is no directory that only user {user} can use", path.display()),
    )
}
