//! Accepts connections in the supervisor: those that it refuses, and those that wait for a worker.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use fastcgi_server::addresses::Addresses;
use rustix::{io::Errno, net::sockopt};
use wire::running_clock;

use crate::{
    config::settings::Settings,
    pool::{allowed_addresses, listeners::Listener, supervisor::sockets::Sockets},
};

/// Maximum number of connections that are accepted in one turn of the supervisor's loop.
const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Pause before the next accept after file descriptors ran out, or a socket became unusable.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Accepts connections of peers that may connect.
pub(super) struct Acceptor {
    /// Peers that may connect, unless all may.
    allowed: Option<Addresses>,
    /// End of the pause in which nothing is accepted.
    pause_end: Option<Instant>,
}

impl Acceptor {
    /// An acceptor for the pool with these settings.
    pub(super) fn new(settings: &Settings) -> Self {
        let list = allowed_addresses::list(settings);
        // An invalid list allows no peer; workers log that.
        let allowed = list.and_then(|list| {
            let parsed = Addresses::parse(&list.to_string_lossy());
            parsed.or_else(|_| Addresses::parse("0.0.0.0")).ok()
        });
        Self { allowed, pause_end: None }
    }

    /// Is nothing accepted at present?
    pub(super) fn is_pausing(&self) -> bool {
        self.pause_end.is_some_and(|end| running_clock::instant() < end)
    }

    /// End of the last pause.
    pub(super) fn pause_end(&self) -> Option<Instant> {
        self.pause_end
    }

    /// Accepts waiting connections of `listeners`, and passes each to `add`, until that returns
    /// `false`.
    pub(super) fn accept(&mut self, listeners: &[Listener], mut add: impl FnMut(OwnedFd) -> bool) {
        for listener in listeners {
            for _ in 0..MAX_ACCEPTS_PER_TURN {
                let (socket, address) = match Sockets::accept(listener) {
                    Ok(accepted) => accepted,
                    // INVAL: the application may have shut the socket down, which poll(2) reports
                    // all the time.
                    Err(
                        Errno::MFILE
                        | Errno::NFILE
                        | Errno::NOBUFS
                        | Errno::NOMEM
                        | Errno::INVAL
                        | Errno::BADF
                        | Errno::NOTSOCK,
                    ) => {
                        self.pause_end = Some(running_clock::instant() + ACCEPT_PAUSE);
                        break;
                    }
                    // No connection waits, or the client has disconnected.
                    Err(_) => break,
                };
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                if address.is_some() {
                    // As a worker does. A failure is ignored, because the socket still works.
                    let _ = sockopt::set_tcp_nodelay(&socket, true);
                }
                let address = address.map(|address| address.ip());
                if self.allowed.as_ref().is_none_or(|allowed| allowed.allow(address))
                    && !add(socket)
                {
                    return;
                }
            }
        }
    }
}
