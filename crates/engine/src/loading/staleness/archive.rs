//! Code in archives.

use std::path::Path;

/// The archive (zip, egg) that contains `file`, if the file system lacks the file itself.
pub(crate) fn archive_of(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|path| path.is_file())
}
