//! Receives settings and listening sockets from the gateway, which has put one end of a socket pair
//! on standard input and then executed this program.

use std::{io, os::fd::OwnedFd};

use wire::{
    descriptors,
    message::{DecodeError, decode},
    monitor::MonitorLaunch,
};

/// Maximum length of the message in bytes.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// What the gateway has passed.
pub(crate) struct Received {
    /// The settings.
    pub(crate) launch: MonitorLaunch,
    /// The listening sockets, in the order of the settings.
    pub(crate) sockets: Vec<OwnedFd>,
}

impl Received {
    /// Receives the message on standard input.
    ///
    /// # Errors
    /// If there is none, or it is of another build.
    pub(crate) fn from_gateway() -> io::Result<Self> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let received = descriptors::receive(io::stdin(), &mut buffer)
            .map_err(|_| io::Error::other("wsgate has not started this program"))?;
        let launch: MonitorLaunch =
            decode(&buffer[..received.length]).map_err(|error| match error {
                DecodeError::OtherBuild(build) => io::Error::other(format!(
                    "wsgate is of build `{build}`, and wsgate-http of build `{}`",
                    wire::build()
                )),
                _ => io::Error::other("wsgate has not started this program"),
            })?;
        if launch.listeners.len() != received.descriptors.len() {
            return Err(io::Error::other("the message of wsgate is incomplete"));
        }
        Ok(Self { launch, sockets: received.descriptors })
    }
}
