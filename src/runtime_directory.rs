//! The directory that is this user's alone, for what wsgate keeps between requests.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::PathBuf,
};

use rustix::process::geteuid;

/// The directory, made if it is not there: `WSGATE_RUNTIME_DIR`, or one below the temporary directory that is named by the
/// user's id.
///
/// # Errors
/// If it cannot be made, or is not what only this user could have made: another user may have taken the name to feed us files.
pub(crate) fn open() -> io::Result<PathBuf> {
    let user = geteuid().as_raw();
    let path = env::var_os("WSGATE_RUNTIME_DIR")
        .filter(|directory| !directory.is_empty())
        .map_or_else(|| env::temp_dir().join(format!("wsgate-{user}")), PathBuf::from);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(io::Error::new(error.kind(), format!("`{}` cannot be made: {error}", path.display())));
        }
        _ => {}
    }
    // Not followed if it is a link: whoever made that could turn it elsewhere.
    let found = fs::symlink_metadata(&path)?;
    if found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0 {
        Ok(path)
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("`{}` is no directory that only user {user} can use", path.display()),
        ))
    }
}
