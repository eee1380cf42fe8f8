//! The log of slow requests with their stacks (`--slow-log`), which the supervisor alone writes.

use std::os::fd::{AsFd as _, BorrowedFd};

use diagnostics::{
    error_log::write_at_once,
    message::{Code, LogMessage, Subject},
};
use rustix::io::Errno;

use crate::pool::log_file::LogFile;

/// The open log of slow requests.
#[derive(Debug)]
pub(super) struct SlowLog {
    log: LogFile,
    /// The last message could not be written.
    is_failing: bool,
    /// The beginning of the last message was written.
    is_torn: bool,
}

impl SlowLog {
    /// The log with the file `log`.
    pub(super) fn new(log: LogFile) -> Self {
        Self { log, is_failing: false, is_torn: false }
    }

    /// Its file.
    pub(super) fn file(&self) -> &LogFile {
        &self.log
    }

    /// Its file, to be reopened.
    pub(super) fn file_mut(&mut self) -> &mut LogFile {
        &mut self.log
    }

    /// Writes `message`, without waiting for a reader. Returns what belongs into the error log
    /// instead: nothing, or the message that could not be written, after the reason.
    pub(super) fn write(&mut self, message: LogMessage, about: Subject<'_>) -> Vec<LogMessage> {
        let gap = if self.is_torn { "\n" } else { "" };
        let text = [gap, &message.for_file(about)].concat();
        match write_all(self.log.as_fd(), text.as_bytes()) {
            Ok(()) => {
                (self.is_failing, self.is_torn) = (false, false);
                Vec::new()
            }
            Err((written, error)) => {
                self.is_torn |= written > gap.len();
                let was_failing = std::mem::replace(&mut self.is_failing, true);
                let reason = (!was_failing).then(|| self.not_written(error));
                reason.into_iter().chain([message]).collect()
            }
        }
    }

    fn not_written(&self, error: Errno) -> LogMessage {
        let path = self.log.path().display();
        let reason = match error {
            Errno::AGAIN => "nobody reads it".to_owned(),
            error => std::io::Error::from(error).to_string(),
        };
        LogMessage::new(
            Code::SlowNotLogged,
            format!("cannot write to the slow log `{path}`: {reason}"),
        )
        .hint(
            "make room on its disk, or see what its reader waits for; until then slow requests are \
             logged here",
        )
    }
}

/// Writes all of `bytes`.
///
/// # Errors
/// How many bytes were written, and the error of the kernel.
fn write_all(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), (usize, Errno)> {
    let mut written = 0;
    while written < bytes.len() {
        match write_at_once(file.as_fd(), &bytes[written..]) {
            Ok(0) => return Err((written, Errno::NOSPC)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}
