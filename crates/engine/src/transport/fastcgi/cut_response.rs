//! The end of a response that is not whole, in the form that the web server understands as such.
//!
//! What each web server makes of each end was tried; `docs/broken-responses.md` has the outcome.

use std::time::Duration;

use fastcgi_server::{Output, Stream, bodies::ProtocolStatus};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::transport::fastcgi::{FastCgiConnection, incoming::send_at_once};

/// Eight bytes that are no record: there is no version 0. A web server that meets them gives the
/// connection up, where the mere end of it counts as the end of a response for some.
const NO_RECORD: [u8; 8] = [0; 8];

/// How long the web server may leave no room for the end.
const ROOM: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// lighttpd reads a response and its end in one go if both are here, and takes it for a whole one.
const PAUSE: Duration = Duration::from_millis(50);

/// How a web server is told that a response is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutStyle {
    /// By what is no record.
    Broken,
    /// The same, once it has read what came before.
    BrokenLater,
    /// By an end in good order: mod_fcgid puts Apache's own error page behind what has come when a
    /// connection ends in any other way.
    Ended,
}

impl CutStyle {
    /// For a web server that calls itself `software`. `by_fcgid` if mod_fcgid has started this
    /// process.
    pub(crate) fn of(software: &[u8], by_fcgid: bool) -> Self {
        if by_fcgid {
            Self::Ended
        } else if software.starts_with(b"lighttpd") {
            Self::BrokenLater
        } else {
            Self::Broken
        }
    }
}

impl FastCgiConnection {
    /// Ends the response of the request that was served last, which is not whole. Does nothing if
    /// no record can be begun.
    pub(crate) fn cut(&self, cut: CutStyle) {
        let socket = &self.shared.socket;
        let Some(current) =
            self.shared.incoming().current.filter(|current| current.is_between_records)
        else {
            return;
        };
        let mut end = NO_RECORD.to_vec();
        if cut == CutStyle::Ended {
            let output = Output::new(current.id);
            end = output.end_of(Stream::Stdout).to_vec();
            end.extend(output.end_request(1, ProtocolStatus::RequestComplete));
        } else if cut == CutStyle::BrokenLater {
            std::thread::sleep(PAUSE);
        }
        if matches!(poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&ROOM)), Ok(1..)) {
            // What does not fit is lost, and the connection ends without it.
            let _ = send_at_once(socket, &end);
        }
    }
}
