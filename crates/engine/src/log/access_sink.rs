//! An open access log: a file, or a pipe to a program.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use diagnostics::error_log::await_reader;
use rustix::io::{Errno, write};

use crate::process::forks::Descriptor;

/// How long a line waits for the reader of a pipe that is full.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// The least time between two reports that lines are lost.
const TROUBLE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The open access log of this process.
pub(super) struct AccessLogSink {
    file: Descriptor,
    /// The last line was written in part, because the disk was full.
    torn: bool,
    /// The time of the last report that lines are lost.
    reported: Option<Instant>,
    /// How many lines were lost since the last report of their number.
    lost: u64,
    /// The reader has been blocked for so long that lines no longer wait.
    is_stuck: bool,
}

/// A problem of an access log that has to be reported.
pub(super) enum AccessLogTrouble {
    /// Lines are being lost because of this error.
    Losing(Errno),
    /// This number of lines was lost; the log is written again.
    Lost(u64),
}

impl AccessLogSink {
    /// A sink that writes to `file`.
    pub(super) fn new(file: Descriptor) -> Self {
        Self { file, torn: false, reported: None, lost: 0, is_stuck: false }
    }

    /// Writes to `file` from now on.
    pub(super) fn replace_file(&mut self, file: Descriptor) {
        self.file = file;
    }

    /// Writes a line. The line is lost if the disk is full or the reader does not read in time.
    pub(super) fn write(&mut self, line: &[u8]) -> Option<AccessLogTrouble> {
        // A full disk tears a line; the next line has to begin at a line start.
        let mended;
        let line = if self.torn {
            mended = [b"\n", line].concat();
            &mended
        } else {
            line
        };
        let due = if self.is_stuck { None } else { Some(Instant::now() + READER_TIMEOUT) };
        let written = loop {
            match write(&self.file, line) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if due.is_some_and(|due| Instant::now() < due) => {
                    await_reader(self.file.as_fd(), READER_TIMEOUT);
                }
                written => break written,
            }
        };
        self.is_stuck = written == Err(Errno::AGAIN);
        match written {
            Ok(count) if count == line.len() => {
                self.torn = false;
                let lost = std::mem::take(&mut self.lost);
                (lost > 0).then_some(AccessLogTrouble::Lost(lost))
            }
            written => {
                self.torn |= matches!(written, Ok(1..));
                self.lost += 1;
                if self.reported.is_some_and(|reported| reported.elapsed() < TROUBLE_LOG_INTERVAL) {
                    return None;
                }
                self.reported = Some(Instant::now());
                Some(AccessLogTrouble::Losing(written.map_or_else(|error| error, |_| Errno::NOSPC)))
            }
        }
    }
}
