//! The supervisor's end of the error log, which never waits: what cannot be written is kept until
//! it can be, up to a limit.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use diagnostics::error_log::{await_reader, lost_messages, write_at_once};
use rustix::{io::Errno, stdio::stderr};

/// Bytes of messages that are kept.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// How long the end of the pool waits for a reader.
const END_WAIT_LIMIT: Duration = Duration::from_secs(1);

/// Messages that were not written yet.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    kept: VecDeque<u8>,
    lost: u64,
    /// The disk is full, which poll(2) does not tell.
    is_full: bool,
}

impl ErrorLog {
    /// Writes `message` when that is possible.
    pub(super) fn add(&mut self, message: &[u8], about: &dyn fmt::Display) {
        if self.kept.len() + message.len() > MAX_KEPT_BYTES {
            self.lost += 1;
            return;
        }
        self.kept.extend(message);
        self.write(about);
    }

    /// Writes what can be written now.
    pub(super) fn write(&mut self, about: &dyn fmt::Display) {
        loop {
            let (first, _) = self.kept.as_slices();
            if first.is_empty() {
                if self.lost == 0 {
                    return;
                }
                self.kept.extend(lost_messages(self.lost, about).as_bytes());
                self.lost = 0;
                continue;
            }
            let written = write_at_once(stderr(), first);
            self.is_full = matches!(written, Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG));
            match written {
                Ok(count) => drop(self.kept.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => return,
                // There is no log, and nowhere to say so.
                Err(_) => *self = Self::default(),
            }
        }
    }

    /// Has nobody read what was written last?
    pub(super) fn is_behind(&self) -> bool {
        !self.kept.is_empty()
    }

    /// What to wait for, until it takes more.
    pub(super) fn watched(&self) -> Option<BorrowedFd<'static>> {
        (self.is_behind() && !self.is_full).then(stderr)
    }

    /// Writes what is left. The pool ends, and waits for that a little.
    pub(super) fn finish(&mut self, about: &dyn fmt::Display) {
        let due = Instant::now() + END_WAIT_LIMIT;
        while self.is_behind() && !self.is_full && Instant::now() < due {
            await_reader(stderr(), due.saturating_duration_since(Instant::now()));
            self.write(about);
        }
    }
}
