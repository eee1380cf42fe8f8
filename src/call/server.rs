//! The address of a FastCGI server, and the connection to it.

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, addr::SocketAddrArg, connect,
        socket_with, sockopt,
    },
};

use wire::host_port::{HostPort, address_hint};

use crate::system::hosts;

/// The address of a FastCGI server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// A Unix socket.
    Unix(PathBuf),
    /// HOST:PORT.
    Tcp(String),
}

impl Server {
    /// Connects, until `deadline`.
    ///
    /// # Errors
    /// If no server is running there, or its accept queue is full until the deadline.
    pub(super) fn connect(&self, deadline: Option<Instant>) -> Result<OwnedFd, LogMessage> {
        self.try_to_connect(deadline).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run the command as a user who may write to the socket, such as that of the \
                        web server"
                }
                io::ErrorKind::TimedOut => {
                    "the server is running and accepts no connections: look at what it is doing"
                }
                _ => "start the server, or correct the address",
            };
            LogMessage::new(Code::NoServer, format!("`{self}` cannot be connected to: {error}"))
                .hint(hint)
        })
    }

    fn try_to_connect(&self, deadline: Option<Instant>) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(path) => {
                connected(AddressFamily::UNIX, &SocketAddrUnix::new(path.as_path())?, deadline)
            }
            Self::Tcp(name) => {
                let mut failure = io::Error::from(io::ErrorKind::NotFound);
                for address in hosts::addresses(name)? {
                    let family =
                        if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                    match connected(family, &address, deadline) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }
}

fn connected(
    family: AddressFamily,
    address: &impl SocketAddrArg,
    deadline: Option<Instant>,
) -> io::Result<OwnedFd> {
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if let Some(deadline) = deadline {
        // The kernel applies this timeout to `connect`, too. Zero would mean no timeout.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(left))?;
    }
    match connect(&socket, address) {
        Ok(()) => Ok(socket),
        Err(Errno::AGAIN | Errno::INPROGRESS) => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error.into()),
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(address: &str) -> Result<Self, String> {
        if let Some(path) = address.strip_prefix("unix:") {
            return match SocketAddrUnix::new(path) {
                _ if path.is_empty() => Err(address_hint("")),
                Err(error) => Err(format!(
                    "this is not the path of a socket ({error}); give one such as \
                     `unix:/run/app.sock`"
                )),
                Ok(_) => Ok(Self::Unix(path.into())),
            };
        }
        match HostPort::parse(address) {
            Some(_) => Ok(Self::Tcp(address.to_owned())),
            None => Err(address_hint(address)),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(name) => f.write_str(name),
        }
    }
}
