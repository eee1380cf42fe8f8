//! What the kernel says of a file, to be compared with what it says later.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

/// A file or directory, links followed, at one moment. Two that are equal are of a file that nobody
/// has changed or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change to the content, which programs can set.
    modified: (i64, i64),
    /// The same for the file as a whole, which only the kernel sets.
    changed: (i64, i64),
}

impl Snapshot {
    /// What is at `path` now; `None` if nothing is, or nothing that this user may see.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self::from(&found))
    }

    /// The file that `file` has open.
    pub fn of_open(file: &fs::File) -> Option<Self> {
        file.metadata().ok().map(|found| Self::from(&found))
    }

    /// The same of a link, which is not followed.
    pub fn of_link(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|found| Self::from(&found))
    }

    /// Has the file other content, or is it another file? Unlike `==` this lets a further link to
    /// it, or other permissions, pass.
    pub fn is_same_content(&self, other: &Self) -> bool {
        let content = |file: &Self| (file.device, file.inode, file.size, file.modified);
        content(self) == content(other)
    }

    fn from(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Was it changed between two times? What seems to come from the future was not: some clock is
    /// wrong, and stays so.
    pub fn is_changed_between(&self, begin: SystemTime, end: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanoseconds)) =
            (u64::try_from(self.changed.0), u32::try_from(self.changed.1))
        else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        changed.is_some_and(|changed| changed > begin && changed <= end)
    }
}
