//! The end of an incomplete response, in a form that the web server recognizes as incomplete.
//!
//! `docs/broken-responses.md` has the tested behavior of each web server.

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

/// Eight bytes that are not a record, because version 0 does not exist. A web server closes the
/// connection when these bytes arrive. The end of the connection alone would end a response
/// normally for some web servers.
const NO_RECORD: [u8; 8] = [0; 8];

/// How long to wait for room in the socket for the end.
const ROOM_TIMEOUT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// lighttpd takes a response as complete if it reads the last bytes and the end together.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// The way to mark a response as incomplete for a web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutStyle {
    /// By bytes that are not a record.
    Broken,
    /// By the same bytes, after the web server has read all previous bytes.
    BrokenLater,
    /// By a regular end: mod_fcgid appends Apache's error page to a response with any other end.
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

    /// Ends the response to the request `id`.
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
            // Bytes that do not fit in the socket are lost, and the connection ends without them.
            let _ = send_at_once(socket, &end);
        }
    }
}
