//! The listening sockets of a worker.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SocketFlags, accept_with, acceptfrom_with, getsockname, sockopt},
};
use wire::launch::Launch;

use crate::{
    log::{Log, rate_limit::LimitedMessage},
    pool::serving::event_loop::EventLoop,
    process::forks::{self, Descriptor},
};

/// A listening socket.
struct Listener {
    socket: Descriptor,
    /// Is this a TCP socket? Its connections get `TCP_NODELAY`.
    is_tcp: bool,
}

/// The listening sockets of a worker, and the addresses that may connect.
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    allowed: Option<Addresses>,
}

/// The result of accepting a connection.
pub(super) enum Accepted {
    /// The connection is open.
    Connection(Descriptor),
    /// Another worker has accepted the connection, the web server has closed it, or its address is
    /// not allowed.
    Nothing,
    /// No file descriptor is free.
    NoDescriptor,
    /// The application has closed, replaced or shut down the listening socket.
    Unusable(Errno),
}

impl Listeners {
    /// Starts watching `sockets`.
    ///
    /// # Errors
    /// If a socket cannot be watched.
    pub(super) fn new(
        events: &EventLoop,
        sockets: Vec<Descriptor>,
        launch: &Launch,
    ) -> io::Result<Self> {
        for (position, socket) in sockets.iter().enumerate() {
            // The accept must not block: another worker may accept the connection first.
            ioctl_fionbio(socket, true)?;
            events.watch_listener(position, socket)?;
        }
        let listeners = sockets.into_iter().map(|socket| {
            let is_tcp = getsockname(&socket)
                .is_ok_and(|address| address.address_family() != AddressFamily::UNIX);
            Listener { socket, is_tcp }
        });
        Ok(Self { listeners: listeners.collect(), allowed: allowed_addresses(launch) })
    }

    /// The file descriptors of the sockets.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(|listener| listener.socket.as_fd())
    }

    /// Number of listening sockets.
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Accepts a connection at the listener `position`, without waiting.
    pub(super) fn accept(&self, position: usize) -> Accepted {
        let Some(listener) = self.listeners.get(position) else {
            return Accepted::Nothing;
        };
        // Connections are non-blocking, because each wait has a timeout.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = forks::without_forks(|| {
            let (socket, address) = match self.allowed {
                None => (accept_with(&listener.socket, flags)?, None),
                Some(_) => acceptfrom_with(&listener.socket, flags)?,
            };
            Ok::<_, Errno>((Descriptor::from(socket), address))
        });
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(Errno::MFILE | Errno::NFILE) => return Accepted::NoDescriptor,
            // The kernel continues to report connections, because other processes have the socket
            // open.
            Err(error @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL)) => {
                return Accepted::Unusable(error);
            }
            Err(_) => return Accepted::Nothing,
        };
        let address = address
            .and_then(|address| SocketAddr::try_from(address).ok())
            .map(|address| address.ip());
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.allow(address)) {
            log_refused(address);
            return Accepted::Nothing;
        }
        if listener.is_tcp {
            // Responses are sent in one piece, so that Nagle's algorithm gains nothing. A failure
            // is ignored, because the socket still works.
            let _ = sockopt::set_tcp_nodelay(&socket, true);
        }
        Accepted::Connection(socket)
    }
}

/// The addresses that may connect (FastCGI 1.0, 2.3). An invalid list is logged, and allows no
/// address.
fn allowed_addresses(launch: &Launch) -> Option<Addresses> {
    let list = std::env::var_os(Addresses::VARIABLE)?;
    match Addresses::parse(&list.to_string_lossy()) {
        Ok(addresses) => Some(addresses),
        Err(error) => {
            let sentence =
                format!("FCGI_WEB_SERVER_ADDRS contains `{}`, which is not an address", error.item);
            Log::new(&launch.request.id, &launch.request.line).write(
                &LogMessage::error(Code::BadSetting, sentence).hint(
                    "set it to a list of IP addresses separated by commas; until then no client \
                     can connect",
                ),
            );
            Addresses::parse("0.0.0.0").ok()
        }
    }
}

#[cold]
fn log_refused(address: Option<IpAddr>) {
    let client =
        address.map_or_else(|| "a Unix socket".to_owned(), |address| format!("`{address}`"));
    LimitedMessage::RefusedAddress.write(&Log::new("-", "(connection)"), || {
        let list = Addresses::VARIABLE;
        LogMessage::warning(
            Code::RefusedAddress,
            format!("a connection from {client} was closed: {list} does not list it"),
        )
        .hint("add the address if a web server connects from there")
    });
}
