//! The log files of a process of a pool, which are reopened when a rotation has renamed them.
//!
//! The supervisor reopens a file first, and then increments a counter in the scoreboard. A process
//! compares the counter before each write. So no line goes to the old file after the supervisor has
//! announced the new file. An event wakes processes that have nothing to write.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::fstat,
    stdio::{dup2_stderr, dup2_stdout, stderr, stdout},
};
use wire::{
    pool_logs::{LineFormat, LogKind, open_file, set_nonblocking},
    scoreboard::{OneTimeWarning, Scoreboard},
};

use crate::{
    log::access_sink::AccessLogSink,
    process::forks::{
        Descriptor, {self},
    },
};

static FILES: OnceLock<LogFiles> = OnceLock::new();

/// The log files of this process.
struct LogFiles {
    scoreboard: Scoreboard,
    error: Option<LogFile>,
    access: Option<AccessLogFile>,
    bell: Option<Descriptor>,
}

/// A log file and the generation that is open.
struct LogFile {
    which: LogKind,
    path: Vec<u8>,
    generation: AtomicU32,
}

struct AccessLogFile {
    form: LineFormat,
    file: Option<(LogFile, Mutex<AccessLogSink>)>,
}

/// The descriptors of the logs in the launch message.
pub(crate) struct LogDescriptors {
    /// The access log.
    pub(crate) access: Option<Descriptor>,
    /// An event that signals rotated files.
    pub(crate) bell: Option<Descriptor>,
}

/// Takes over the log files of this process. Must be called once.
///
/// # Errors
/// If the scoreboard cannot be mapped.
pub(crate) fn take_over(
    logs: &wire::pool_logs::PoolLogs,
    descriptors: LogDescriptors,
    scoreboard: BorrowedFd<'_>,
) -> io::Result<()> {
    let place = |which, path: &[u8], generation: u32| LogFile {
        which,
        path: path.to_vec(),
        generation: AtomicU32::new(generation),
    };
    let files = LogFiles {
        scoreboard: Scoreboard::attach(scoreboard.try_clone_to_owned()?)?,
        error: logs
            .error
            .as_ref()
            .map(|(path, generation)| place(LogKind::Error, path, *generation)),
        access: logs.access.as_ref().map(|access| AccessLogFile {
            form: access.format,
            file: access.file.as_ref().zip(descriptors.access).map(|(file, descriptor)| {
                let sink = AccessLogSink::new(descriptor);
                (place(LogKind::Access, &file.path, file.generation), Mutex::new(sink))
            }),
        }),
        bell: descriptors.bell,
    };
    // No files are set yet, since this function is called once.
    drop(FILES.set(files));
    Ok(())
}

/// Reopens the files that the supervisor has reopened. Returns the messages for files that cannot
/// be reopened.
pub(super) fn reopen_rotated() -> Vec<LogMessage> {
    // A child that the application has forked may have redirected its standard streams.
    FILES.get().filter(|_| !forks::is_child()).map_or_else(Vec::new, LogFiles::reopen_rotated)
}

/// Is this the first call for `warning` in this pool, or in a process without a pool?
pub(crate) fn is_first_warning(warning: OneTimeWarning) -> bool {
    static WARNED: AtomicU32 = AtomicU32::new(0);
    match FILES.get() {
        Some(files) => files.scoreboard.is_first_warning(warning),
        None => WARNED.fetch_or(warning.bit(), Ordering::Relaxed) & warning.bit() == 0,
    }
}

/// A descriptor that becomes readable when [`reopen_rotated`] is due, and stays readable. Only the
/// edges have a meaning.
pub(crate) fn bell() -> Option<BorrowedFd<'static>> {
    Some(FILES.get()?.bell.as_ref()?.as_fd())
}

/// The format of access log lines, if there is an access log.
pub(crate) fn access_form() -> Option<LineFormat> {
    Some(FILES.get()?.access.as_ref()?.form)
}

impl LogFiles {
    fn reopen_rotated(&self) -> Vec<LogMessage> {
        let mut failures = Vec::new();
        if let Some(file) = self.error.as_ref().filter(|file| file.is_old(&self.scoreboard)) {
            failures.extend(file.reopen(|file| {
                let files = [stdout(), stderr(), forks::log()];
                let [printed, errors, logged] =
                    files.map(|file| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)));
                // Standard streams follow, unless the application has redirected them.
                if printed.is_ok() && printed == logged {
                    dup2_stdout(&file)?;
                }
                if errors.is_ok() && errors == logged {
                    dup2_stderr(&file)?;
                }
                forks::redirect_log(file.as_fd());
                Ok(())
            }));
            forks::save_standard();
        }
        if let Some((file, sink)) = self.access.as_ref().and_then(|access| access.file.as_ref())
            && file.is_old(&self.scoreboard)
        {
            failures.extend(file.reopen(|file| {
                set_nonblocking(&file)?;
                sink.lock().unwrap_or_else(PoisonError::into_inner).replace_file(file);
                Ok(())
            }));
        }
        failures
    }
}

impl LogFile {
    /// Is there a new file that no other thread has opened yet?
    fn is_old(&self, scoreboard: &Scoreboard) -> bool {
        let generation = scoreboard.log_generation(self.which);
        self.generation.load(Ordering::Relaxed) != generation
            && self.generation.swap(generation, Ordering::Relaxed) != generation
    }

    /// Opens the file again. Returns the message for a failure.
    fn reopen(&self, replace: impl FnOnce(Descriptor) -> io::Result<()>) -> Option<LogMessage> {
        let error = Descriptor::made(|| open_file(&self.path)).and_then(replace).err()?;
        // The supervisor itself was able to reopen the file.
        let path = String::from_utf8_lossy(&self.path);
        Some(
            LogMessage::new(
                Code::LogNotReopened,
                format!("the log `{path}` cannot be opened again: {error}"),
            )
            .hint(
                "this process goes on with the file that it has; see whether its user may write \
                 in that directory",
            ),
        )
    }
}

/// The destination of access log lines, if there is an access log.
pub(super) fn access_log() -> Option<AccessLog> {
    let access = FILES.get()?.access.as_ref()?;
    Some(access.file.as_ref().map_or(AccessLog::ErrorLog, |(_, sink)| AccessLog::File(sink)))
}

/// The destination of access log lines.
pub(super) enum AccessLog {
    /// The error log.
    ErrorLog,
    /// A separate file or pipe.
    File(&'static Mutex<AccessLogSink>),
}
