//! One log file of a pool.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    io::{DupFlags, Errno, dup3},
    process::geteuid,
};

use crate::{pool::file_creator::FileCreator, system::trusted_path::Untrusted};

/// Maximum number of symbolic links from a log's path to a file descriptor; `/dev/stderr` has one.
const MAX_LINKS: usize = 8;

/// Open logs of the previous program of an upgrade, by their paths.
pub(super) type OpenLogs = BTreeMap<PathBuf, OwnedFd>;

/// An open log.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: OwnedFd,
    /// The path names a file descriptor of this process (`/dev/stdout`). No rotation renames this
    /// path, and the user of the pool may have no permission to open it.
    is_descriptor: bool,
}

impl LogFile {
    /// Another descriptor of the same file.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        let file = self.file.try_clone()?;
        Ok(Self { path: self.path.clone(), file, is_descriptor: self.is_descriptor })
    }

    /// Opens the log file at `path`, unless it was handed over.
    ///
    /// # Errors
    /// The log message that names the file.
    pub(super) fn open(
        path: &Path,
        creator: FileCreator<'_>,
        handed: &mut OpenLogs,
    ) -> Result<Self, LogMessage> {
        let opened = std::path::absolute(path).and_then(|path| {
            let is_descriptor = own_descriptor(&path).is_some();
            let file = match handed.remove(&path) {
                Some(file) => file,
                None => creator.open_log(&path)?,
            };
            Ok(Self { path, file, is_descriptor })
        });
        opened.map_err(|error| {
            if let Some(message) = unsafe_log(path, &error) {
                return message;
            }
            let user = creator.owner().0.unwrap_or_else(|| geteuid().as_raw());
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = parent.unwrap_or(Path::new(".")).display();
            let hint = match error.kind() {
                _ if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                    "wsgate cannot open a socket, or a named pipe without a reader; `-` means \
                     standard error"
                        .to_owned()
                }
                io::ErrorKind::NotFound => {
                    format!("create the directory `{directory}`, and let user {user} write in it")
                }
                io::ErrorKind::PermissionDenied => format!(
                    "let user {user} write in the directory `{directory}` and in the file, or name \
                     another file"
                ),
                _ => format!("check that user {user} can create files in `{directory}`"),
            };
            LogMessage::new(
                Code::BadSetting,
                format!("cannot open the log `{}`: {error}", path.display()),
            )
            .hint(hint)
        })
    }

    /// Reopens the file under the same file descriptor number, which other processes know. Returns
    /// whether it is another file then, or the log message about a failure. No rotation renames a
    /// file descriptor.
    pub(super) fn reopen(&mut self) -> Result<bool, LogMessage> {
        if self.is_descriptor {
            return Ok(false);
        }
        // This process already runs as the pool's user.
        let opened = FileCreator::new(None).open_log(&self.path);
        match opened.and_then(|new| Ok(dup3(&new, &mut self.file, DupFlags::CLOEXEC)?)) {
            Ok(()) => Ok(true),
            Err(error) => Err(not_reopened(&self.path, &error)),
        }
    }

    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The number of this process's file descriptor that `path` names: 2 for `/dev/stderr`.
pub(super) fn own_descriptor(path: &Path) -> Option<RawFd> {
    let own = fs::canonicalize("/proc/self").ok()?;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory = fs::canonicalize(path.parent()?).ok()?;
        if directory.starts_with(&own) && directory.file_name() == Some("fd".as_ref()) {
            return path.file_name()?.to_str()?.parse().ok();
        }
        path = directory.join(fs::read_link(&path).ok()?);
    }
    None
}

/// The log message about a log that root cannot open safely, if that is the cause of `error`.
pub(super) fn unsafe_log(path: &Path, error: &io::Error) -> Option<LogMessage> {
    Untrusted::is_cause_of(error)
        .then(|| untrusted(format!("cannot open the log `{}` safely: {error}", path.display())))
}

/// The log message about a file that root must not create.
pub(super) fn untrusted(sentence: String) -> LogMessage {
    LogMessage::new(Code::UntrustedPath, sentence).hint(
        "use a directory that belongs to the user of --user, or one whose whole path only root can \
         write to, such as /run/wsgate",
    )
}

fn not_reopened(path: &Path, error: &io::Error) -> LogMessage {
    LogMessage::new(
        Code::LogNotReopened,
        format!("cannot reopen the log `{}`: {error}", path.display()),
    )
    .hint("the pool keeps writing to the open file; correct the directory and send SIGUSR1 again")
}
