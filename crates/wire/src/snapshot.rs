//! The identity and times of a file at one moment, to be compared with a later moment.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

/// Identity, size and times of a file or directory at one moment. Equal snapshots are of a file
/// that was neither changed nor replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change to the content, which programs can set.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change to the file or its inode, which only the kernel
    /// sets.
    changed: (i64, i64),
}

impl Snapshot {
    /// The file at `path`, links followed; `None` if it is missing or this user may not see it.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self::from(&found))
    }

    /// The open file `file`.
    pub fn of_open(file: &fs::File) -> Option<Self> {
        file.metadata().ok().map(|found| Self::from(&found))
    }

    /// The file at `path` itself, also if it is a symbolic link.
    pub fn of_link(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().map(|found| Self::from(&found))
    }

    /// Is `other` the same file with the same content? Unlike `==` this ignores other permissions
    /// and further links to the file.
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

    /// Was the file changed between `begin` and `end`? A change that seems to come from the future
    /// does not count: a clock is wrong, and stays so.
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
