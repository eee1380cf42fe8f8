//! Directories of a path that this user may not enter.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// The first directory of `path` that this user may not enter.
pub(crate) fn first_closed(path: &Path) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> =
        path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()).collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|ancestor| ancestor.is_dir() && access(*ancestor, Access::EXEC_OK).is_err())
        .map(Path::to_owned)
}
