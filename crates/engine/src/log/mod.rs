//! The error log: entries, each in one write, and bytes that applications print.

pub(crate) mod files;
pub(crate) mod rate_limit;

use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use diagnostics::{error_log, message::LogMessage};
use rustix::{process::getpid, stdio::stderr};
use wire::scoreboard::OneTimeWarning;

use crate::process::forks;

/// Writes entries about one request to the error log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    about: Arc<About>,
    kept: Option<Arc<Mutex<String>>>,
    transcript: Option<Arc<Transcript>>,
}

/// Most bytes that a transcript holds between two takings.
const MOST: usize = 64 * 1024;

/// What stands in the place of what it does not hold.
const MORE: &str = "(more was written; the pool's own log has it)\n";

/// A copy of what the log is told about one request, for somebody who takes it away piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Transcript {
    /// Keeps a copy of `piece`, or of as much of it as there is room for.
    pub(crate) fn add(&self, piece: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = MOST.checked_sub(held.bytes).filter(|_| !piece.is_empty()) else {
            return;
        };
        let mut copy = piece[..piece.len().min(room)].to_vec();
        if piece.len() > room {
            // Beyond the limit now, so that this is said once.
            copy.extend(MORE.as_bytes());
        }
        held.bytes += copy.len();
        held.pieces.push(copy);
    }

    /// Takes all that was added since the last time.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner)).pieces
    }
}

/// Which request an entry is about.
#[derive(Debug)]
struct About {
    /// Id, method and target.
    line: String,
    id_length: usize,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pid {}", self.line, getpid().as_raw_nonzero())
    }
}

impl Log {
    /// Entries about the request with the id `request_id`; `request` is its method and target.
    pub(crate) fn new(request_id: &str, request: &str) -> Self {
        Self::about([request_id, " ", request].concat(), request_id.len())
    }

    /// The same, of a request to `target` by the method `method`.
    pub(crate) fn of(request_id: &str, method: &str, target: &str) -> Self {
        Self::about([request_id, " ", method, " ", target].concat(), request_id.len())
    }

    fn about(line: String, id_length: usize) -> Self {
        Self { about: Arc::new(About { line, id_length }), kept: None, transcript: None }
    }

    /// The same, with a copy of each entry for `transcript`.
    pub(crate) fn copied_to(self, transcript: Option<Arc<Transcript>>) -> Self {
        Self { transcript, ..self }
    }

    /// A log that keeps its entries in place of writing them, and what it keeps.
    pub(crate) fn kept(request_id: &str, request: &str) -> (Self, Arc<Mutex<String>>) {
        let entries = Arc::new(Mutex::new(String::new()));
        let log = Self { kept: Some(entries.clone()), ..Self::new(request_id, request) };
        (log, entries)
    }

    /// Writes one entry.
    pub(crate) fn entry(&self, entry: &LogMessage) {
        match &self.kept {
            Some(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&entry.for_client())
            }
            None => {
                let text = self.text(entry);
                write_all(text.as_bytes());
                if let Some(transcript) = &self.transcript {
                    transcript.add(text.as_bytes());
                }
            }
        }
    }

    /// Writes an entry that no process of this pool has written before. It is about the application
    /// rather than about this request, so that a log which is kept to judge a request does without.
    pub(crate) fn entry_once(&self, warning: OneTimeWarning, entry: impl FnOnce() -> LogMessage) {
        if self.kept.is_none() && crate::log::files::is_first_warning(warning) {
            self.entry(&entry());
        }
    }

    /// The text of one entry, for somebody else to write.
    pub(crate) fn text(&self, entry: &LogMessage) -> String {
        entry.for_log(&*self.about)
    }

    /// Names the request on error pages.
    pub(crate) fn request_id(&self) -> &str {
        &self.about.line[..self.about.id_length]
    }

    /// Id, method and target of the request.
    pub(crate) fn line(&self) -> &str {
        &self.about.line
    }
}

/// Writes `bytes` to the error log, with a wait that ends if nobody reads it. Not by way of std,
/// whose lock another thread may hold when the application forks.
pub(crate) fn write_all(bytes: &[u8]) {
    crate::log::files::look();
    write_to([forks::log(), stderr()], bytes);
}

/// Writes what the application prints, to where it has led standard error.
pub(crate) fn print(bytes: &[u8]) {
    crate::log::files::look();
    write_to([stderr(), forks::log()], bytes);
}

fn write_to(logs: [BorrowedFd<'_>; 2], bytes: &[u8]) {
    error_log::write_to(
        logs,
        bytes,
        &format_args!("- (error log) pid {}", getpid().as_raw_nonzero()),
    );
}

/// The process ends: says how many messages were lost.
pub(crate) fn finish() {
    if error_log::has_lost() {
        write_to([forks::log(), stderr()], b"");
    }
}
