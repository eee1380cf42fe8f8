//! The web server's ends of a request.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::{
    io::fcntl_dupfd_cloexec,
    stdio::{dup2_stdin, dup2_stdout},
};

/// First descriptor that is none of the standard three, which are open whenever `main` runs.
const FIRST_FREE: i32 = 3;

/// What the request comes in by and the response goes out by.
pub(crate) struct Channels {
    /// The request body.
    pub(crate) body: OwnedFd,
    /// The response.
    pub(crate) response: OwnedFd,
}

impl Channels {
    /// Takes over standard input and output, the web server's ends of a CGI request (RFC 3875 4.2,
    /// 6): it takes the response for over when the last holder closes it, so the standard
    /// descriptors must not hold it, too.
    ///
    /// # Errors
    /// If no descriptor is left to hold them.
    pub(crate) fn standard() -> io::Result<Self> {
        let channels = Self {
            body: fcntl_dupfd_cloexec(io::stdin(), FIRST_FREE)?,
            response: fcntl_dupfd_cloexec(io::stdout(), FIRST_FREE)?,
        };
        dup2_stdin(File::open("/dev/null")?)?;
        dup2_stdout(io::stderr())?;
        Ok(channels)
    }
}
