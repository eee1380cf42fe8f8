//! Follows symbolic links to targets that do not exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// How many links the kernel follows.
const MAX_LINKS: usize = 40;

/// Where the link `path` leads to, by way of other links; `None` if they lead back to themselves.
/// The target need not exist.
pub(crate) fn end(path: &Path) -> Option<PathBuf> {
    let mut end = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(target) = fs::read_link(&end) else { return Some(end) };
        end = end.parent().unwrap_or(Path::new("/")).join(target);
    }
    None
}
