//! The end of a response that is not complete, in the form that the web server understands as such.
//!
//! What each web server makes of each end was tried: `docs/broken-responses.md`.

use std::time::Duration;

use fastcgi_server::{Output, RequestId, Stream, bodies::ProtocolStatus};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    process::forks::Descriptor,
    transport::{
        Request as _,
        fastcgi::{request::FastCgiRequest, settings::FastCgiSettings, socket::send_at_once},
    },
};

/// Eight bytes that are no record: there is no version 0. A web server that receives them gives up
/// the connection, while the mere end of a connection counts as the end of a response for some.
const NO_RECORD: [u8; 8] = [0; 8];

/// How long the web server may leave no room for the end.
const ROOM_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// lighttpd takes a response for a complete one if it reads its end in the same go.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// How a web server learns that a response is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutStyle {
    /// By bytes that are no record.
    Broken,
    /// By the same bytes, once the web server has read what came before.
    BrokenLater,
    /// By a regular end: mod_fcgid appends Apache's own error page to a response whose connection
    /// ends in any other way.
    Ended,
}

impl CutStyle {
    /// The style for the web server that has sent `request`.
    pub(super) fn for_server(request: &FastCgiRequest, settings: &FastCgiSettings) -> Self {
        if settings.is_started_by_mod_fcgid() {
            Self::Ended
        } else if request.get(b"SERVER_SOFTWARE").is_some_and(|it| it.starts_with(b"lighttpd")) {
            Self::BrokenLater
        } else {
            Self::Broken
        }
    }

    /// Ends the response to the request `id`, of which a record may follow.
    pub(super) fn end(self, socket: &Descriptor, id: RequestId) {
        let end = match self {
            Self::Broken => NO_RECORD.to_vec(),
            Self::BrokenLater => {
                std::thread::sleep(READ_PAUSE);
                NO_RECORD.to_vec()
            }
            Self::Ended => {
                let output = Output::new(id);
                let mut end = output.end_of(Stream::Stdout).to_vec();
                end.extend(output.end_request(1, ProtocolStatus::RequestComplete));
                end
            }
        };
        if matches!(poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&ROOM_TIMEOUT)), Ok(1..))
        {
            // What does not fit is lost, and the connection ends without it.
            let _ = send_at_once(socket, &end);
        }
    }
}
