//! The listening sockets of a worker.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::{
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SocketFlags, accept_with, acceptfrom_with, getsockname, sockopt},
};
use wire::{clock::now, launch::Launch};

use crate::{
    log::{Log, rate_limit::LimitedMessage},
    pool::serving::event_loop::EventLoop,
    process::forks::{self, Descriptor},
};

/// For how many milliseconds, or one less, a worker that has just kept a connection open leaves new
/// connections to others.
const STAND_BACK_MILLISECONDS: u64 = 2;

/// A listening socket.
struct Listener {
    socket: Descriptor,
    /// Is this a TCP socket? Its connections get `TCP_NODELAY`.
    is_tcp: bool,
}

/// The listening sockets of a worker, and the addresses that may connect.
pub(super) struct Listeners {
    events: Arc<EventLoop>,
    listeners: Vec<Listener>,
    allowed: Option<Addresses>,
    /// The worker does not listen until then, in milliseconds of the monotonic clock; 0 if it does.
    stands_back_until: AtomicU64,
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
        events: &Arc<EventLoop>,
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
        Ok(Self {
            events: events.clone(),
            listeners: listeners.collect(),
            allowed: allowed_addresses(launch),
            stands_back_until: AtomicU64::new(0),
        })
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

    /// Leaves the next connections to other workers for a moment, now that this one holds one more.
    /// The kernel wakes workers in the order in which they began to listen, and a running worker is
    /// faster than one that is woken: this one would get all keep-alive connections, and a
    /// connection stays where it is.
    pub(super) fn stand_back(&self) {
        self.stands_back_until.store(now() + STAND_BACK_MILLISECONDS, Ordering::Release);
        // Another thread may be doing the same.
        self.descriptors().for_each(|socket| self.events.forget(socket));
    }

    /// How long to wait at most before [`Listeners::listen_if_due`].
    pub(super) fn timeout(&self) -> Option<Duration> {
        let stands_back = self.stands_back_until.load(Ordering::Acquire) > 0;
        stands_back.then_some(Duration::from_millis(STAND_BACK_MILLISECONDS))
    }

    /// Listens again, behind the other workers, if it is time or `at_once`.
    ///
    /// # Errors
    /// If memory is short. A worker that does not listen is of no use.
    pub(super) fn listen_if_due(&self, at_once: bool) -> Result<(), Errno> {
        let until = self.stands_back_until.load(Ordering::Acquire);
        if until == 0 || (!at_once && now() < until) {
            return Ok(());
        }
        self.stands_back_until.store(0, Ordering::Release);
        for (position, listener) in self.listeners.iter().enumerate() {
            match self.events.watch_listener(position, &listener.socket) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
                &LogMessage::new(Code::BadSetting, sentence).hint(
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
    LimitedMessage::RefusedAddress.write(&Log::without_request("connection"), || {
        let list = Addresses::VARIABLE;
        LogMessage::new(
            Code::RefusedAddress,
            format!("a connection from {client} was closed: {list} does not list it"),
        )
        .hint("add the address if a web server connects from there")
    });
}
