//! Receives settings and listening sockets from the gateway, which has put one end of a socket pair
//! on standard input and then executed this program.

use std::{io, os::fd::OwnedFd};

use wire::{
    descriptors,
    launch::LogSettings,
    message::{DecodeError, decode},
    monitor::MonitorLaunch,
    serve::ServeLaunch,
};

/// Maximum length of the message in bytes.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What the gateway has passed.
pub(crate) enum Received {
    /// A monitor, and its listening sockets in the order of its settings.
    Monitor(MonitorLaunch, Vec<OwnedFd>),
    /// A development server, and its listening socket.
    Serve(ServeLaunch, OwnedFd),
}

impl Received {
    /// How the log is written.
    pub(crate) fn log(&self) -> &LogSettings {
        match self {
            Self::Monitor(launch, _) => &launch.log,
            Self::Serve(launch, _) => &launch.log,
        }
    }

    /// Receives the message on standard input.
    ///
    /// # Errors
    /// If there is none, or it is of another build.
    pub(crate) fn from_gateway() -> io::Result<Self> {
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        let received = descriptors::receive(io::stdin(), &mut buffer)
            .map_err(|_| io::Error::other("wsgate has not started this program"))?;
        let (message, mut sockets) = (&buffer[..received.length], received.descriptors);
        match decode::<MonitorLaunch>(message) {
            Ok(launch) if launch.listeners.len() == sockets.len() => {
                Ok(Self::Monitor(launch, sockets))
            }
            Ok(_) => Err(incomplete()),
            Err(DecodeError::OtherKind(_)) => {
                let launch = decode(message).map_err(|error| unknown(&error))?;
                Ok(Self::Serve(launch, sockets.pop().ok_or_else(incomplete)?))
            }
            Err(error) => Err(unknown(&error)),
        }
    }
}

fn incomplete() -> io::Error {
    io::Error::other("the message of wsgate is incomplete")
}

fn unknown(error: &DecodeError) -> io::Error {
    match error {
        DecodeError::OtherBuild(build) => io::Error::other(format!(
            "wsgate is of build `{build}`, and wsgate-http of build `{}`",
            wire::build()
        )),
        _ => io::Error::other("wsgate has not started this program"),
    }
}
