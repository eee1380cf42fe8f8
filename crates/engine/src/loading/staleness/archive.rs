//! Code in archives.

use std::path::Path;

/// The archive (zip, egg) that contains `file`, which the file system does not have.
pub(crate) fn archive_of(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|path| path.is_file())
}
