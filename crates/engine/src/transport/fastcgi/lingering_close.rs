//! The end of a connection that this side closes first. Nothing more is sent, and received bytes
//! are dropped until the web server closes its end.
//!
//! The kernel resets a connection that is closed with unread bytes, or that receives bytes after
//! the close. A reset discards the part of the response that the web server has not read.

use std::time::{Duration, Instant};

use rustix::{
    io::Errno,
    net::{RecvFlags, Shutdown, recv, shutdown},
};
use wire::running_clock;

use crate::process::forks::Descriptor;

/// How long the web server may send nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the web server may continue to send.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// How many bytes the web server may send.
const MAX_DROPPED_BYTES: u64 = 1 << 30;

/// Maximum number of reads before other connections are served.
const MAX_READS_IN_A_ROW: usize = 32;

/// Bytes that are dropped at a time.
const BUFFER_SIZE: usize = 16 * 1024;

/// The progress of a connection that is being drained.
pub(super) struct LingeringClose {
    begun: Instant,
    heard: Instant,
    dropped: u64,
    is_whole: bool,
}

impl LingeringClose {
    /// Ends sending on `socket`; `None` if that is impossible. `is_whole` if the last request and
    /// its response are complete.
    pub(super) fn begin(socket: &Descriptor, is_whole: bool) -> Option<Self> {
        shutdown(socket, Shutdown::Write).ok()?;
        let now = running_clock::instant();
        Some(Self { begun: now, heard: now, dropped: 0, is_whole })
    }

    /// Are the last request and its response complete?
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Has one of the limits been reached?
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= SILENCE_TIMEOUT
            || now.duration_since(self.begun) >= LINGER_TIMEOUT
            || self.dropped >= MAX_DROPPED_BYTES
    }

    /// Drops received bytes, without waiting. Must the connection be closed now?
    pub(super) fn drain(&mut self, socket: &Descriptor) -> bool {
        let mut buffer = [0; BUFFER_SIZE];
        let mut has_heard = false;
        for _ in 0..MAX_READS_IN_A_ROW {
            match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return true,
                Ok((_, count)) => (self.dropped, has_heard) = (self.dropped + count as u64, true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return true,
            }
        }
        let now = running_clock::instant();
        if has_heard {
            self.heard = now;
        }
        self.is_over(now)
    }
}
