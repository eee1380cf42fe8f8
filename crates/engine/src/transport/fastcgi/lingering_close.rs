//! The end of a connection that this side closes first: nothing more is sent, and what the web
//! server still sends is read and dropped until it closes its end.
//!
//! A socket that is closed with something unread, or to which something comes after that, is reset,
//! and a reset takes back what the web server has not read of the response.

use std::time::{Duration, Instant};

use rustix::{
    io::Errno,
    net::{RecvFlags, Shutdown, recv, shutdown},
};
use wire::running_clock;

use crate::transport::{
    fastcgi::{FastCgiConnection, Progress, incoming::Incoming},
    spool::Spool,
};

/// How long the web server may send nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// How long it may go on sending.
const LONGEST: Duration = Duration::from_secs(30);

/// How many bytes it may send.
const MOST: u64 = 1 << 30;

/// Reads in a row, after which other connections have their turn.
const READS: usize = 32;

/// How far a connection has come that is only drained.
pub(super) struct LingeringClose {
    begun: Instant,
    heard: Instant,
    dropped: u64,
    is_whole: bool,
}

impl LingeringClose {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.heard) >= SILENCE
            || now.duration_since(self.begun) >= LONGEST
            || self.dropped >= MOST
    }
}

impl FastCgiConnection {
    /// Is the connection only drained, and has been for long enough?
    pub(crate) fn has_lingered(&self, now: Instant) -> bool {
        self.shared.incoming().lingering.as_ref().is_some_and(|lingering| lingering.is_over(now))
    }

    /// Is the connection only drained, behind a response that is whole?
    pub(crate) fn is_leaving(&self) -> bool {
        self.shared.incoming().lingering.as_ref().is_some_and(|lingering| lingering.is_whole)
    }

    /// Has the web server closed its end of a connection that is only drained?
    pub(crate) fn has_left(&self) -> bool {
        matches!(self.drop_the_rest(&mut self.shared.incoming()), Some(Progress::Close))
    }

    /// Sends nothing more, and drains the connection from now on. `is_whole` if nothing is missing
    /// of the last request and its response.
    pub(super) fn linger(&self, incoming: &mut Incoming, is_whole: bool) -> Progress {
        if shutdown(&self.shared.socket, Shutdown::Write).is_err() {
            return Progress::Close;
        }
        let now = running_clock::instant();
        incoming.lingering = Some(LingeringClose { begun: now, heard: now, dropped: 0, is_whole });
        incoming.unread = 0..0;
        incoming.content = 0..0;
        incoming.spool = Spool::default();
        Progress::Wait
    }

    /// Drops what is there, if the connection is only drained. Never waits.
    pub(super) fn drop_the_rest(&self, incoming: &mut Incoming) -> Option<Progress> {
        let lingering = incoming.lingering.as_mut()?;
        let mut heard = false;
        for _ in 0..READS {
            match recv(&self.shared.socket, &mut incoming.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Some(Progress::Close),
                Ok((_, count)) => {
                    (lingering.dropped, heard) = (lingering.dropped + count as u64, true)
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Some(Progress::Close),
            }
        }
        let now = running_clock::instant();
        if heard {
            lingering.heard = now;
        }
        Some(if lingering.is_over(now) { Progress::Close } else { Progress::Wait })
    }
}
