//! Connections: accepted, served as long as requests come, waited for, closed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::Errno,
    net::{SocketFlags, accept_with, acceptfrom_with, sockopt},
};
use wire::{running_clock, scoreboard::now};

use crate::{
    log::{Log, rate_limit::Kind},
    pool::serving::{A_MOMENT, FIRST_LISTENER, ListeningSocket, ServingThread, Worker},
    process::forks::{
        Descriptor, {self},
    },
    transport::fastcgi::{ConnectionStage, FastCgiConnection, Progress},
};

/// How long a worker that ends waits for what its connections are in the middle of, at most, and
/// for no more than half the time that it has.
const LINGER: Duration = Duration::from_secs(5);

/// How long it waits before it looks again which of them can be given away or closed.
const DRAIN_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Wait until descriptors may be free again.
const PAUSE: Duration = Duration::from_millis(20);

/// Milliseconds without a free descriptor, while there is no connection to close, after which a
/// worker makes way for another.
const CRAMPED: u64 = 1000;
/// Requests of a worker without a pause between two looks whether the application has closed what
/// is needed for others.
const BETWEEN_INVENTORIES: u64 = 256;

/// Buffers of connections that a thread keeps.
const SPARE: usize = 8;

/// Watches the listener at `position`; of all workers that do, one is woken for a connection.
pub(crate) fn watch_listener(
    epoll: &Descriptor,
    position: usize,
    listener: &Descriptor,
) -> rustix::io::Result<()> {
    let data = epoll::EventData::new_u64(FIRST_LISTENER + position as u64);
    epoll::add(epoll, listener, data, epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)
}

/// ConnectionLimits for no more events of a connection that is about to be closed, if it was waited for. To
/// close it is not enough: a child that the application has forked may have it open still, or a
/// worker that it was given to, and the kernel would go on telling of it.
pub(crate) fn forget(epoll: &Descriptor, peer: &FastCgiConnection) {
    let _ = epoll::delete(epoll, peer.socket());
}

impl Worker {
    pub(crate) fn accept(&self, seat: &mut ServingThread<'_, '_>, listener: &ListeningSocket) {
        // No wait of ours is the kernel's: each has an end.
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
            Err(Errno::MFILE | Errno::NFILE) => {
                self.look_after_leaving(seat, true);
                return seat.application.py().detach(|| self.make_room());
            }
            // The kernel goes on telling of the connections, since other processes have the socket.
            Err(error @ (Errno::BADF | Errno::NOTSOCK | Errno::INVAL)) => {
                let closed =
                    "the application has closed, replaced or shut down the listening socket";
                return self.give_up(&format!("{closed} ({error})"));
            }
            // Taken by another worker, or gone again: either is nothing to us.
            Err(_) => return,
        };
        self.cramped_since.store(0, Ordering::Relaxed);
        let address = address
            .and_then(|address| SocketAddr::try_from(address).ok())
            .map(|address| address.ip());
        if self.allowed.as_ref().is_some_and(|allowed| !allowed.allow(address)) {
            return log_refused(address);
        }
        if listener.is_tcp {
            // Replies leave in one piece; nothing is gained by waiting for more. A socket that
            // cannot do that still works.
            let _ = sockopt::set_tcp_nodelay(&socket, true);
        }
        let data = self.next.fetch_add(1, Ordering::Relaxed);
        let buffers = seat.buffers.pop();
        let peer = FastCgiConnection::new(socket, self.limits, buffers)
            .with_socket_timeout(self.waits.socket_timeout);
        self.drive(seat, data, peer, false);
    }

    /// Goes on with a connection until it waits for more, or is closed.
    pub(crate) fn drive(
        &self,
        seat: &mut ServingThread<'_, '_>,
        data: u64,
        peer: FastCgiConnection,
        known: bool,
    ) {
        let goes_on = self.advance(seat, &peer);
        let stage = peer.stage();
        if goes_on && !known && peer.is_leaving() {
            self.let_leave(seat, data, peer);
        } else if goes_on && !self.waits.is_overdue(stage) {
            self.wait_for(data, (peer, stage), known);
        } else {
            if known {
                forget(&self.epoll, &peer);
            }
            self.close(seat, peer);
        }
    }

    /// Closes a connection that is not waited for, and keeps its buffers.
    pub(crate) fn close(&self, seat: &mut ServingThread<'_, '_>, peer: FastCgiConnection) {
        if let Some(buffers) = peer.close()
            && seat.buffers.len() < SPARE
        {
            seat.buffers.push(buffers);
        }
    }

    /// Serves the requests of a connection that have come. Tells whether more may come.
    fn advance(&self, seat: &mut ServingThread<'_, '_>, peer: &FastCgiConnection) -> bool {
        loop {
            match peer.advance() {
                Progress::Request(request) => {
                    self.serve(seat, peer, request);
                    let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
                    self.has_served.store(true, Ordering::Relaxed);
                    // Where there is never nothing to do, now and then.
                    if forks::has_lost() || served.is_multiple_of(BETWEEN_INVENTORIES) {
                        self.take_inventory();
                    }
                    self.go_on(seat.thread, self.worker_limits.after(served));
                    match peer.after_request() {
                        Progress::Close => return false,
                        // Between requests, where the web server expects it (FastCGI 1.0, 3.5), if
                        // no other worker can have it.
                        _ if self.is_draining() && peer.is_free() && !self.gives_away() => {
                            return false;
                        }
                        // Whatever comes next on it waits its turn, so that one busy connection
                        // keeps no other from being served.
                        _ if !peer.has_unread() => return true,
                        _ => {}
                    }
                }
                Progress::Wait => return true,
                Progress::Close => return false,
            }
        }
    }

    /// ConnectionLimits for more on a connection.
    pub(crate) fn wait_for(
        &self,
        data: u64,
        (peer, stage): (FastCgiConnection, ConnectionStage),
        known: bool,
    ) {
        // With one thread nobody else can get the next event of this connection, so that it need
        // not be asked for again.
        let alone = self.service.threads <= 1;
        let flags = if alone {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::IN | epoll::EventFlags::ONESHOT
        };
        let is_kept = peer.is_kept();
        let mut waiting = self.waiting();
        let socket = peer.socket();
        let watched = match (known, alone) {
            (false, _) => epoll::add(&self.epoll, socket, epoll::EventData::new_u64(data), flags),
            (true, false) => {
                epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(data), flags)
            }
            (true, true) => Ok(()),
        };
        // What cannot be watched is closed; only a lack of memory does that.
        match (watched, stage) {
            (Ok(()), ConnectionStage::Lingering) => {
                self.lingering.insert(&self.epoll, data, peer);
                self.limit_lingering();
            }
            (Ok(()), _) => {
                waiting.insert(data, peer);
                self.keep_limits(&mut waiting, stage);
            }
            (Err(_), _) => {}
        }
        drop(waiting);
        if is_kept && !known && self.service.workers > 1 {
            self.stand_back();
        }
    }

    /// Leaves the next connections to other workers for a moment, now that this one holds one more.
    /// The kernel wakes workers in the order in which they began to listen, and the one that runs
    /// already is faster than the one that is woken: it would get all that are kept, and a
    /// connection stays where it is.
    fn stand_back(&self) {
        self.stands_back.store(now() + A_MOMENT, Ordering::Release);
        for listener in &self.listeners {
            // Another thread may be doing the same.
            let _ = epoll::delete(&self.epoll, &listener.socket);
        }
    }

    /// Listens again, behind the others.
    pub(crate) fn listen_again(&self) {
        self.stands_back.store(0, Ordering::Release);
        for (position, listener) in self.listeners.iter().enumerate() {
            match watch_listener(&self.epoll, position, &listener.socket) {
                Ok(()) | Err(Errno::EXIST) => {}
                // Memory is short, and a worker that does not listen is none.
                Err(_) => self.end(),
            }
        }
    }

    /// Out of descriptors: closes a connection that is only drained, or another that can be spared.
    pub(crate) fn make_room(&self) {
        if self.lingering.close_first(&self.epoll) {
            return;
        }
        let mut waiting = self.waiting();
        if !self.close_one(&mut waiting) {
            drop(waiting);
            // The descriptors are the application's, or those of requests. The backlog waits, and
            // this thread does not spin.
            std::thread::sleep(PAUSE);
            let (since, now) = (self.cramped_since.load(Ordering::Relaxed), now());
            if since == 0 {
                self.cramped_since.store(now, Ordering::Relaxed);
            } else if now.saturating_sub(since) > CRAMPED {
                self.give_up("no file descriptor has been left for a second");
            }
        }
    }

    /// Ends the worker, which nobody can connect to any more, so that another takes its place.
    pub(crate) fn give_up(&self, why: &str) {
        if !self.is_draining() && !self.failed.swap(true, Ordering::Relaxed) {
            let sentence =
                format!("worker {} cannot accept connections and exits: {why}", std::process::id());
            let entry = LogMessage::error(Code::CannotAccept, sentence).hint(
                "look for `os.closerange`, `os.dup2` and RLIMIT_NOFILE, and for files that are not \
                 closed",
            );
            Log::new("-", "(worker)").entry(&entry);
        }
        self.end();
    }

    /// Serves out the connections that are in the middle of a request, and gives away or closes
    /// those between two.
    pub(crate) fn drain(&self, seat: &mut ServingThread<'_, '_>) {
        self.end();
        self.watched.leave(seat.thread);
        let py = seat.application.py();
        // The kernel wakes one thread of one worker for a connection. If that was this one, nobody
        // else will be. A process that cannot wait for what comes on it leaves it to the next one.
        if !self.failed.load(Ordering::Relaxed) {
            for listener in &self.listeners {
                self.accept(seat, listener);
            }
            self.adopt_all(seat);
        }
        self.look_after_leaving(seat, true);
        let (begin, gives_until) = (running_clock::instant(), Self::gives_until());
        let most = LINGER.min(Duration::from_secs(self.service.drain_seconds.max(1)) / 2);
        let mut left: Vec<(u64, FastCgiConnection)> = self.take_connections();
        while !left.is_empty() && running_clock::elapsed(begin) < most {
            py.detach(|| self.give_all(&mut left, gives_until));
            left.retain(|(_, peer)| !peer.is_free());
            let is_ready = py.detach(|| {
                let sockets = left.iter().map(|(_, peer)| peer.socket());
                let mut watched: Vec<_> =
                    sockets.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
                let look = |_| poll(&mut watched, Some(&DRAIN_LOOK)).unwrap_or(0);
                let found = running_clock::wait(Duration::try_from(DRAIN_LOOK).ok(), look);
                watched
                    .iter()
                    .map(|socket| found > 0 && !socket.revents().is_empty())
                    .collect::<Vec<_>>()
            });
            for ((data, peer), is_ready) in std::mem::take(&mut left).into_iter().zip(is_ready) {
                if is_ready {
                    self.drive(seat, data, peer, true);
                } else {
                    left.push((data, peer));
                }
            }
            left.append(&mut self.take_connections());
        }
    }

    /// All connections that wait for something.
    fn take_connections(&self) -> Vec<(u64, FastCgiConnection)> {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().chain(self.lingering.take_all()).collect()
    }
}

/// A peer at `address` may not connect.
#[cold]
fn log_refused(address: Option<IpAddr>) {
    let who = address.map_or_else(|| "a Unix socket".to_owned(), |address| format!("`{address}`"));
    Kind::RefusedAddress.entry(&Log::new("-", "(connection)"), || {
        LogMessage::warning(
            Code::RefusedAddress,
            format!("a connection from {who} was closed: {} does not list it", Addresses::VARIABLE),
        )
        .hint("add the address if a web server connects from there")
    });
}
