//! Log files of a pool: opened by the supervisor, inherited by every process, and reopened after a
//! rotation.
//!
//! The supervisor reopens a file first, and then notifies the other processes through the
//! scoreboard. If a path cannot be opened, the supervisor logs one message, and every process keeps
//! the open file.

use std::{
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use diagnostics::{
    log_style::{self, LogFormat},
    message::{Code, LogMessage},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::fstat,
    io::write,
    stdio::{dup2_stderr, stderr, stdout},
};
use wire::{
    pool_logs::{
        AccessFile, AccessLog, LineFormat, LogKind, set_nonblocking, {self},
    },
    scoreboard::Scoreboard,
};

use crate::pool::{
    args::FastcgiArgs,
    file_creator::FileCreator,
    log_file::{LogFile, OpenLogs, own_descriptor},
    log_options::{AccessFormat, LogOptions},
    slow_log::SlowLog,
};

/// Format and file of an access log, if they are not those of the error log.
type AccessTarget = (Option<AccessFormat>, Option<LogFile>);

/// The logs of a pool.
#[derive(Debug)]
pub(super) struct Logs {
    /// `None` if standard error is the error log.
    error: Option<LogFile>,
    /// Without a format, the lines have that of the error log. Without a file, they go to standard
    /// error.
    access: Option<AccessTarget>,
    /// `None` if slow requests are logged in the error log.
    slow: Option<SlowLog>,
    /// eventfd that wakes processes to reopen their logs.
    reopen_bell: Option<OwnedFd>,
    to_server: bool,
}

impl Logs {
    /// Logs to standard error only.
    pub(super) fn none() -> Self {
        Self { error: None, access: None, slow: None, reopen_bell: None, to_server: false }
    }

    /// Opens the logs that `args` name, except for those that were `handed` over.
    ///
    /// # Errors
    /// The log message that names the file which cannot be opened.
    pub(super) fn open(
        args: &FastcgiArgs,
        creator: FileCreator<'_>,
        handed: &mut OpenLogs,
    ) -> Result<Self, LogMessage> {
        let file = |path: &Path| LogFile::open(path, creator, handed);
        let error_log = args.logging.error_log.as_deref();
        // Standard error is open already, and may be a socket (systemd's journal), which cannot be
        // reopened.
        let error = error_log.filter(|path| !is_standard_error(path)).map(file).transpose()?;
        let access = access_log(&args.logs, error.is_some(), creator, handed)?;
        let slow = slow_log(&args.logs, creator, handed)?;
        Ok(Self { error, access, slow, reopen_bell: None, to_server: args.logs.errors_to_server })
    }

    /// The logs with the access log and the slow log of `options`, for processes that are started
    /// later.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub(super) fn with(&self, options: &LogOptions) -> Result<Self, LogMessage> {
        // This process already runs as the pool's user.
        let (creator, mut handed) = (FileCreator::new(None), OpenLogs::new());
        let access = access_log(options, self.error.is_some(), creator, &mut handed)?;
        let copied = |error: io::Error| {
            LogMessage::new(Code::BadSetting, format!("the logs cannot be changed: {error}"))
                .hint("raise the limit of file descriptors: ulimit -n")
        };
        Ok(Self {
            error: self.error.as_ref().map(LogFile::try_clone).transpose().map_err(copied)?,
            access,
            slow: slow_log(options, creator, &mut handed)?,
            reopen_bell: self
                .reopen_bell
                .as_ref()
                .map(OwnedFd::try_clone)
                .transpose()
                .map_err(copied)?,
            to_server: options.errors_to_server,
        })
    }

    /// Opens the error log at `path`, which the `#!` line of the script names.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub(super) fn open_error_log(
        &mut self,
        path: &Path,
        handed: &mut OpenLogs,
    ) -> Result<(), LogMessage> {
        if !is_standard_error(path) {
            // This process already runs as the pool's user.
            self.error = Some(LogFile::open(path, FileCreator::new(None), handed)?);
        }
        Ok(())
    }

    /// Creates the bell that wakes processes to reopen the files.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(super) fn create_bell(&mut self) -> io::Result<()> {
        self.reopen_bell = Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(())
    }

    /// Redirects standard error to the error log.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(super) fn redirect_stderr(&self) -> io::Result<()> {
        match &self.error {
            Some(log) => Ok(dup2_stderr(log)?),
            None => Ok(()),
        }
    }

    /// The part of the launch message for a process that inherits [`Logs::inherited`].
    pub(super) fn for_launch(&self, scoreboard: &Scoreboard) -> pool_logs::PoolLogs {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        pool_logs::PoolLogs {
            error: self
                .error
                .as_ref()
                .map(|log| (bytes(log.path()), scoreboard.log_generation(LogKind::Error))),
            access: self.access.as_ref().map(|(format, file)| AccessLog {
                format: match (format, log_style::format()) {
                    (Some(AccessFormat::Json), _) | (None, LogFormat::Json) => LineFormat::Json,
                    (Some(AccessFormat::Combined), _) | (None, LogFormat::Text) => {
                        LineFormat::Combined
                    }
                },
                file: file.as_ref().map(|log| AccessFile {
                    path: bytes(log.path()),
                    fd: log.as_fd().as_raw_fd(),
                    generation: scoreboard.log_generation(LogKind::Access),
                }),
            }),
            bell_fd: self.reopen_bell.as_ref().map(|bell| bell.as_raw_fd()),
            to_server: self.to_server,
        }
    }

    /// File descriptors that processes inherit.
    pub(super) fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let access = self.access.iter().filter_map(|(_, log)| log.as_ref()).map(|log| log.as_fd());
        access.chain(self.reopen_bell.iter().map(|bell| bell.as_fd()))
    }

    /// The open files, which can be handed over.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, BorrowedFd<'_>)> {
        let access = self.access.iter().filter_map(|(_, log)| log.as_ref());
        let slow = self.slow.iter().map(SlowLog::file);
        self.error.iter().chain(access).chain(slow).map(|log| (log.path(), log.as_fd()))
    }

    /// The log of slow requests, if it is not the error log.
    pub(super) fn slow(&mut self) -> Option<&mut SlowLog> {
        self.slow.as_mut()
    }

    /// Reopens all files and asks the other processes to do so. A file that cannot be reopened
    /// stays open, and has a message instead of the one that the logs were reopened. Returns the
    /// log messages about the result.
    pub(super) fn reopen(&mut self, scoreboard: &Scoreboard) -> Vec<LogMessage> {
        let mut messages = Vec::new();
        let mut reopened = false;
        let mut reopen = |log: &mut LogFile| {
            let is_new = log.reopen().unwrap_or_else(|message| {
                messages.push(message);
                false
            });
            reopened |= is_new;
            is_new
        };
        if let Some(log) = &mut self.error
            && reopen(log)
        {
            // Both descriptors are open, so that this cannot fail.
            let _ = dup2_stderr(&*log);
            scoreboard.next_log_generation(LogKind::Error);
        }
        if let Some((_, Some(log))) = &mut self.access
            && reopen(log)
        {
            let _ = set_nonblocking(&*log);
            scoreboard.next_log_generation(LogKind::Access);
        }
        if let Some(log) = &mut self.slow {
            reopen(log.file_mut());
        }
        if let Some(bell) = &self.reopen_bell {
            // An eventfd is a counter of 64 bits, which does not overflow in practice.
            let _ = write(bell, &1_u64.to_ne_bytes());
        }
        if reopened && messages.is_empty() {
            messages.push(LogMessage::new(Code::LogsReopened, "the logs were reopened"));
        }
        messages
    }
}

/// The access log of `options`, which is part of standard error unless it names another file.
fn access_log(
    options: &LogOptions,
    has_error_log: bool,
    creator: FileCreator<'_>,
    handed: &mut OpenLogs,
) -> Result<Option<AccessTarget>, LogMessage> {
    let is_open =
        |path: &Path| path.as_os_str() == "-" || (!has_error_log && is_standard_error(path));
    let Some(path) = &options.access_log else { return Ok(None) };
    let file = (!is_open(path)).then(|| LogFile::open(path, creator, handed)).transpose()?;
    if let Some(file) = &file {
        // An error is ignored: only pipes and sockets can block, not a file on a disk.
        let _ = set_nonblocking(file);
    }
    Ok(Some((options.access_format, file)))
}

/// The log of slow requests of `options`.
fn slow_log(
    options: &LogOptions,
    creator: FileCreator<'_>,
    handed: &mut OpenLogs,
) -> Result<Option<SlowLog>, LogMessage> {
    let file = options.slow_log.as_deref().map(|path| LogFile::open(path, creator, handed));
    Ok(file.transpose()?.map(SlowLog::new))
}

/// Does `path` name the standard error of this process?
fn is_standard_error(path: &Path) -> bool {
    match path.as_os_str().to_str() {
        Some("-") => true,
        _ => match std::path::absolute(path).ok().and_then(|path| own_descriptor(&path)) {
            Some(2) => true,
            // Service managers and containers often use one socket or pipe for both streams.
            Some(1) => matches!(
                (fstat(stdout()), fstat(stderr())),
                (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
            ),
            _ => false,
        },
    }
}
