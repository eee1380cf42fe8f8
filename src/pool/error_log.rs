//! Non-blocking writer of the supervisor's log messages. Keeps messages in memory while the reader
//! of standard error is slow, up to a limit.

use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use diagnostics::{
    error_log::{await_reader, lost_messages, write_at_once},
    message::{LogMessage, Subject},
};
use rustix::{io::Errno, stdio::stderr};

/// Maximum size of unwritten messages in bytes.
const MAX_UNWRITTEN_BYTES: usize = 64 * 1024;

/// How long the supervisor waits for a reader before it exits.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Log messages of the supervisor.
#[derive(Debug)]
pub(super) struct ErrorLog {
    /// The text for messages that concern no request ([`Subject::no_request`]).
    about: String,
    unwritten: VecDeque<u8>,
    /// Messages that did not fit into memory.
    lost: u64,
    /// The disk is full. Unlike for a pipe, poll(2) does not report when the disk has room again.
    is_full: bool,
}

impl ErrorLog {
    /// The log of the pool of `app`.
    pub(super) fn of_pool(app: &str) -> Self {
        let about = about_pool(app);
        Self { about, unwritten: VecDeque::new(), lost: 0, is_full: false }
    }

    /// The pool has the application `app` from now on.
    pub(super) fn set_app(&mut self, app: &str) {
        self.about = about_pool(app);
    }

    /// Logs `message` about the pool.
    pub(super) fn log(&mut self, message: &LogMessage) {
        let text = message.for_log(self.subject());
        self.add(&text);
    }

    /// What messages that concern no request are about.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject::new(&self.about)
    }

    /// Logs `message` about something else, such as a request.
    pub(super) fn log_about(&mut self, message: &LogMessage, about: Subject<'_>) {
        self.add(&message.for_log(about));
    }

    fn add(&mut self, text: &str) {
        if self.unwritten.len() + text.len() > MAX_UNWRITTEN_BYTES {
            self.lost += 1;
            return;
        }
        self.unwritten.extend(text.as_bytes());
        self.write();
    }

    /// Writes as much as possible without blocking.
    pub(super) fn write(&mut self) {
        loop {
            let (first, _) = self.unwritten.as_slices();
            if first.is_empty() {
                if self.lost == 0 {
                    return;
                }
                self.unwritten.extend(lost_messages(self.lost, self.subject()).as_bytes());
                self.lost = 0;
                continue;
            }
            let written = write_at_once(stderr(), first);
            self.is_full = matches!(written, Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG));
            match written {
                Ok(count) => drop(self.unwritten.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return,
                // Standard error is closed, so the error cannot be reported.
                Err(_) => (self.unwritten, self.lost) = (VecDeque::new(), 0),
            }
        }
    }

    /// Does a message wait for the reader?
    pub(super) fn is_behind(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Standard error, to be polled for writing while messages wait for a reader.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'static>> {
        (self.is_behind() && !self.is_full).then(stderr)
    }

    /// Writes the rest before the supervisor exits. Waits for [`FINISH_TIMEOUT`] at most.
    pub(super) fn finish(&mut self) {
        let due = Instant::now() + FINISH_TIMEOUT;
        while self.is_behind() && !self.is_full && Instant::now() < due {
            await_reader(stderr(), due.saturating_duration_since(Instant::now()));
            self.write();
        }
    }
}

fn about_pool(app: &str) -> String {
    Subject::no_request(&format!("pool of {app}"))
}
