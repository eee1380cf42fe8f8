//! The log files of a pool, as its supervisor keeps them: opened at the beginning, inherited by
//! every process, and opened again when a rotation has renamed them.
//!
//! The supervisor opens a file again first, and only then tells the others by the scoreboard. So a
//! path that cannot be opened costs one entry, and every process goes on with the file that it has.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::fstat,
    io::{DupFlags, Errno, dup3, write},
    stdio::{dup2_stderr, stderr, stdout},
};
use wire::{
    pool_logs::{
        AccessFile, AccessLog, LineFormat, LogKind, set_nonblocking, {self},
    },
    scoreboard::Scoreboard,
};

use crate::{
    pool::{
        args::{AccessFormat, LogOptions},
        file_owner::Maker,
    },
    system::trusted_path::Untrusted,
};

/// Links between the path of a log and a descriptor: `/dev/stderr` has one.
const MAX_LINKS: usize = 8;

/// The logs of a pool.
#[derive(Debug)]
pub(super) struct Logs {
    error: Option<LogFile>,
    access: Option<(LineFormat, Option<LogFile>)>,
    bell: Option<OwnedFd>,
    to_server: bool,
}

/// An open log.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: OwnedFd,
    /// The path names a descriptor that this process was started with (`/dev/stdout`): no rotation
    /// renames that, and the user that the pool serves as may not open it.
    is_descriptor: bool,
}

impl Logs {
    /// Standard error alone.
    pub(super) fn none() -> Self {
        Self { error: None, access: None, bell: None, to_server: false }
    }

    /// Opens what `words` ask for.
    ///
    /// # Errors
    /// If a file cannot be opened: the entry says which.
    pub(super) fn open(words: &LogOptions, maker: Maker<'_>) -> Result<Self, LogMessage> {
        let file = |path: &Path| -> Result<LogFile, LogMessage> {
            let opened = std::path::absolute(path).and_then(|path| {
                let is_descriptor = own_descriptor(&path).is_some();
                let file = maker.open_log(&path)?;
                Ok(LogFile { path, file, is_descriptor })
            });
            opened.map_err(|error| {
                if Untrusted::is_cause_of(&error) {
                    return untrusted(format!(
                        "the log `{}` is not opened: {error}",
                        path.display()
                    ));
                }
                let hint = if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
                    "a socket cannot be opened, nor a named pipe that nobody reads; `-` is \
                     standard error"
                } else {
                    "its directory must be there, and this user must be allowed to write in it"
                };
                LogMessage::error(
                    Code::BadSetting,
                    format!("the log `{}` cannot be opened: {error}", path.display()),
                )
                .hint(hint)
            })
        };
        let form = match words.access_format {
            AccessFormat::Combined => LineFormat::Combined,
            AccessFormat::Json => LineFormat::Json,
        };
        // Standard error is open. It may be a socket (systemd's journal), which nobody can open
        // again.
        let error = words
            .error_log
            .as_deref()
            .filter(|path| !is_standard_error(path))
            .map(file)
            .transpose()?;
        let is_open =
            |path: &Path| path.as_os_str() == "-" || (error.is_none() && is_standard_error(path));
        let access = words
            .access_log
            .as_deref()
            .map(|path| (!is_open(path)).then(|| file(path)).transpose());
        let access = access.transpose()?.map(|file| (form, file));
        if let Some((_, Some(LogFile { file, .. }))) = &access {
            // A disk never makes anybody wait for a reader.
            let _ = set_nonblocking(file);
        }
        Ok(Self { error, access, bell: None, to_server: words.errors_to_server })
    }

    /// From now on processes can be told to open the files again.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(super) fn ring(&mut self) -> io::Result<()> {
        self.bell = Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(())
    }

    /// From now on standard error is the error log.
    ///
    /// # Errors
    /// If descriptors are short.
    pub(super) fn begin(&self) -> io::Result<()> {
        match &self.error {
            Some(LogFile { file, .. }) => Ok(dup2_stderr(file)?),
            None => Ok(()),
        }
    }

    /// What a process that is started now has to know, which inherits [`Logs::inherited`].
    pub(super) fn terms(&self, scoreboard: &Scoreboard) -> pool_logs::PoolLogs {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        pool_logs::PoolLogs {
            error: self
                .error
                .as_ref()
                .map(|log| (bytes(&log.path), scoreboard.log_generation(LogKind::Error))),
            access: self.access.as_ref().map(|(form, file)| AccessLog {
                format: *form,
                file: file.as_ref().map(|log| AccessFile {
                    path: bytes(&log.path),
                    fd: log.file.as_raw_fd(),
                    generation: scoreboard.log_generation(LogKind::Access),
                }),
            }),
            bell_fd: self.bell.as_ref().map(|bell| bell.as_raw_fd()),
            to_server: self.to_server,
        }
    }

    /// Descriptors that processes inherit.
    pub(super) fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let access =
            self.access.iter().filter_map(|(_, log)| log.as_ref()).map(|log| log.file.as_fd());
        access.chain(self.bell.iter().map(|bell| bell.as_fd()))
    }

    /// Opens all files again and tells the workers so. What cannot be opened stays as it is; gives
    /// the entries about that.
    pub(super) fn reopen(&mut self, scoreboard: &Scoreboard) -> Vec<LogMessage> {
        let mut entries = Vec::new();
        let mut reopened = false;
        if let Some(LogFile { path, file, is_descriptor: false }) = &mut self.error {
            match again(path, file).and_then(|()| Ok(dup2_stderr(&*file)?)) {
                Ok(()) => {
                    scoreboard.next_log_generation(LogKind::Error);
                    reopened = true;
                }
                Err(error) => entries.push(not_reopened(path, &error)),
            }
        }
        if let Some((_, Some(LogFile { path, file, is_descriptor: false }))) = &mut self.access {
            match again(path, file) {
                Ok(()) => {
                    let _ = set_nonblocking(&*file);
                    scoreboard.next_log_generation(LogKind::Access);
                    reopened = true;
                }
                Err(error) => entries.push(not_reopened(path, &error)),
            }
        }
        if let Some(bell) = &self.bell {
            // It counts how often it was rung, and has room for more than anybody could ring.
            let _ = write(bell, &1_u64.to_ne_bytes());
        }
        if reopened {
            entries.push(LogMessage::notice(Code::LogsReopened, "the logs were opened again"));
        }
        entries
    }
}

/// Does `path` name what this process has as standard error?
fn is_standard_error(path: &Path) -> bool {
    match path.as_os_str().to_str() {
        Some("-") => true,
        _ => match std::path::absolute(path).ok().and_then(|path| own_descriptor(&path)) {
            Some(2) => true,
            // Service managers and containers often have one socket or pipe for both.
            Some(1) => matches!(
                (fstat(stdout()), fstat(stderr())),
                (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
            ),
            _ => false,
        },
    }
}

/// The number of the descriptor of this process that `path` names, such as `/dev/stderr`.
fn own_descriptor(path: &Path) -> Option<RawFd> {
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

/// Opens the file at `path` again under the same descriptor, whose number others were told.
fn again(path: &Path, file: &mut OwnedFd) -> io::Result<()> {
    // By now this process has the user that it serves as.
    let new = Maker::new(None).open_log(path)?;
    Ok(dup3(&new, file, DupFlags::CLOEXEC)?)
}

/// The log message about a file that root does not make.
pub(super) fn untrusted(sentence: String) -> LogMessage {
    LogMessage::error(Code::UntrustedPath, sentence).hint(
        "use a directory that belongs to the user of --user; or one that only root can write in, on \
         all of its path, such as /run/wsgate",
    )
}

fn not_reopened(path: &Path, error: &io::Error) -> LogMessage {
    LogMessage::warning(
        Code::LogNotReopened,
        format!("the log `{}` cannot be opened again: {error}", path.display()),
    )
    .hint(
        "what is logged goes on into the file that is open; put the directory right and send USR1 \
         again",
    )
}
