//! The error log: log messages, each in one write, and bytes that applications print.
//!
//! `files` reopens the log files of a pool, and `access` writes the access log. `rate_limit` limits
//! messages that clients can cause. `transcript` copies the messages of one request.

pub(crate) mod access;
mod access_sink;
pub(crate) mod files;
mod output;
pub(crate) mod rate_limit;
mod transcript;

use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use diagnostics::{
    error_log,
    message::{LogMessage, Subject, request_line},
};
use rustix::stdio::stderr;
use wire::scoreboard::OneTimeWarning;

pub(crate) use crate::log::{
    output::{OutputLabel, is_open_traceback},
    transcript::Transcript,
};
use crate::process::forks;

/// Writes log messages about one request.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    label: Arc<RequestLabel>,
    /// Collects the messages instead of writing them.
    collected: Option<Arc<Mutex<String>>>,
    transcript: Option<Arc<Transcript>>,
}

/// The request that a message is about.
#[derive(Debug)]
struct RequestLabel {
    /// Request id, method and target.
    line: String,
    id_length: usize,
}

impl RequestLabel {
    fn id(&self) -> &str {
        &self.line[..self.id_length]
    }
}

impl Log {
    /// The log of the request with the id `request_id`; `request` is its method and target.
    pub(crate) fn new(request_id: &str, request: &str) -> Self {
        Self::labelled([request_id, " ", request].concat(), request_id.len())
    }

    /// The log of a request to `target` by the method `method`.
    pub(crate) fn for_target(request_id: &str, method: &str, target: &str) -> Self {
        Self::new(request_id, &request_line(method, target))
    }

    /// The log of messages that concern no request, but `what`, such as `worker`.
    pub(crate) fn without_request(what: &str) -> Self {
        Self::labelled(Subject::no_request(what), 0)
    }

    fn labelled(line: String, id_length: usize) -> Self {
        Self {
            label: Arc::new(RequestLabel { line, id_length }),
            collected: None,
            transcript: None,
        }
    }

    /// Also copies each message to `transcript`.
    pub(crate) fn copied_to(self, transcript: Option<Arc<Transcript>>) -> Self {
        Self { transcript, ..self }
    }

    /// A log that collects its messages instead of writing them, with the collected text.
    pub(crate) fn collecting(request_id: &str, request: &str) -> (Self, Arc<Mutex<String>>) {
        let messages = Arc::new(Mutex::new(String::new()));
        let log = Self { collected: Some(messages.clone()), ..Self::new(request_id, request) };
        (log, messages)
    }

    /// Writes one message.
    pub(crate) fn write(&self, message: &LogMessage) {
        match &self.collected {
            Some(collected) => collected
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&message.for_client()),
            None => {
                write_all(self.text(message).as_bytes());
                if let Some(transcript) = &self.transcript {
                    transcript.add(message.for_reader(self.subject()).as_bytes());
                }
            }
        }
    }

    /// Writes a message that no process of this pool has written before. A collecting log drops the
    /// message, which concerns the application and not the request.
    pub(crate) fn write_once(&self, warning: OneTimeWarning, message: impl FnOnce() -> LogMessage) {
        if self.collected.is_none() && crate::log::files::is_first_warning(warning) {
            self.write(&message());
        }
    }

    /// The text of one message, for another writer.
    pub(crate) fn text(&self, message: &LogMessage) -> String {
        message.for_log(self.subject())
    }

    fn subject(&self) -> Subject<'_> {
        Subject::new(&self.label.line)
    }

    /// The request id, as error pages show it.
    pub(crate) fn request_id(&self) -> &str {
        self.label.id()
    }

    /// Notes that this thread serves the request, until the returned value is dropped.
    pub(crate) fn enter(&self) -> OutputLabel {
        output::enter(&self.label)
    }

    /// Request id, method and target.
    pub(crate) fn line(&self) -> &str {
        &self.label.line
    }
}

/// Writes `bytes` to the error log, with a limited wait for the reader. Does not use std's streams:
/// another thread may hold their lock when the application forks.
pub(crate) fn write_all(bytes: &[u8]) {
    reopen_rotated();
    write_to([forks::log(), stderr()], bytes);
}

/// Writes text that the application prints to the application's standard error.
pub(crate) fn print(bytes: &[u8]) {
    reopen_rotated();
    write_to([stderr(), forks::log()], &output::in_style(bytes));
}

/// Writes text that the application writes to `wsgi.errors`.
pub(crate) fn write_errors(bytes: &[u8]) {
    write_all(&output::in_style(bytes));
}

/// Reopens the log files that the supervisor has reopened after a rotation.
pub(crate) fn reopen_rotated() {
    for failure in files::reopen_rotated() {
        let text = Log::without_request("worker").text(&failure);
        write_to([forks::log(), stderr()], text.as_bytes());
    }
}

fn write_to(logs: [BorrowedFd<'_>; 2], bytes: &[u8]) {
    error_log::write_to(logs, bytes, Subject::new(&Subject::no_request("error log")));
}

/// Logs how many messages were lost. Must be called when the process exits.
pub(crate) fn finish() {
    if error_log::has_lost() {
        write_to([forks::log(), stderr()], b"");
    }
}
