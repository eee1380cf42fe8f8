//! The file descriptors of a request: its body and its response.

use std::{fs::File, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::fcntl_dupfd_cloexec,
    stdio::{dup2_stdin, dup2_stdout},
};

/// The first file descriptor after the three standard ones, which are always open in `main`.
const FIRST_FREE_FD: i32 = 3;

/// How long a web server may take between stopping the gateway and closing its end of the response.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// The file descriptors of one request.
pub(crate) struct Channels {
    /// The request body.
    pub(crate) body: OwnedFd,
    /// The response.
    pub(crate) response: OwnedFd,
}

impl Channels {
    /// Takes over standard input and output, the body and response of a CGI request (RFC 3875 4.2,
    /// 6). The web server sees the end of the response when the last holder closes it, so the
    /// standard file descriptors must not hold the response, too.
    ///
    /// # Errors
    /// If no file descriptor is free.
    pub(crate) fn standard() -> io::Result<Self> {
        let channels = Self {
            body: fcntl_dupfd_cloexec(io::stdin(), FIRST_FREE_FD)?,
            response: fcntl_dupfd_cloexec(io::stdout(), FIRST_FREE_FD)?,
        };
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(io::stderr())?;
        Ok(channels)
    }
}

/// Has the web server closed its end of `response`, now or a moment later? Web servers stop a CGI
/// program when the client closes the connection, which is no reason for a log message.
pub(crate) fn is_client_disconnected(response: &OwnedFd) -> bool {
    // Without events, poll reports errors and closed ends only.
    let mut watched = [PollFd::new(response, PollFlags::empty())];
    let timeout = Timespec::try_from(CLOSE_TIMEOUT).ok();
    matches!(poll(&mut watched, timeout.as_ref()), Ok(1..))
}
