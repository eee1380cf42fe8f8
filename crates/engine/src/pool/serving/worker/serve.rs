//! How a thread of a worker accepts, serves and closes connections.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use wire::{connection_queue::ConnectionHistory, running_clock};

use crate::{
    pool::serving::{
        connection_queue::STOP_TIMEOUT,
        event_loop::Event,
        listeners::Accepted,
        worker::{ServingThread, Worker},
    },
    process::forks::{self, Descriptor},
    transport::{Connection, Progress, Stage},
};

/// Number of requests between two checks of the file descriptors, if a worker is never idle.
const REQUESTS_BETWEEN_CHECKS: u64 = 256;

/// Maximum time that a stopping worker waits for requests on its connections; also limited by half
/// of `--drain`.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(5);

/// Time between two checks of a stopping worker for connections that can be passed on or closed.
const DRAIN_CHECK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Maximum number of connections of a thread that web servers are about to close.
const MAX_CLOSING: usize = 8;

/// Maximum number of buffers of closed connections that a thread keeps.
const MAX_SPARE_BUFFERS: usize = 8;

impl<C: Connection> Worker<C> {
    fn make_room(&self, py: Python<'_>) {
        if py.detach(|| self.connections.make_room()).is_err() {
            self.give_up("no file descriptor has been free for a second");
        }
    }

    /// Accepts a connection at the listener `position`, and serves its requests that have arrived.
    pub(super) fn accept(&self, thread: &mut ServingThread<'_, '_, C>, position: usize) {
        match self.listeners.accept(position) {
            Accepted::Connection(socket) => {
                self.connections.note_room();
                self.open(thread, socket, None);
            }
            Accepted::Nothing => self.connections.note_room(),
            Accepted::NoDescriptor => {
                self.check_closing(thread, true);
                self.make_room(thread.caller.py());
            }
            Accepted::Unusable(error) => self.give_up(&format!(
                "the application has closed, replaced or shut down the listening socket ({error})"
            )),
        }
    }

    /// Takes over a connection that another worker has put into the queue.
    pub(super) fn adopt(&self, thread: &mut ServingThread<'_, '_, C>) {
        let Some(queue) = &self.queue else {
            return;
        };
        if !queue.has_descriptor() {
            return self.make_room(thread.caller.py());
        }
        match queue.take() {
            Ok(Some((socket, history))) => self.open(thread, socket, Some(history)),
            // The pool stops, and this worker is about to receive SIGTERM.
            Ok(None) => queue.forget(),
            // Usually another worker was faster.
            Err(Errno::AGAIN | Errno::INTR | Errno::MFILE | Errno::NFILE) => {}
            // The application has closed the queue. The kernel would report this event forever.
            Err(_) => self.events.stop(),
        }
    }

    fn open(
        &self,
        thread: &mut ServingThread<'_, '_, C>,
        socket: Descriptor,
        history: Option<ConnectionHistory>,
    ) {
        let connection = C::open(socket, &self.settings, history, thread.buffers.pop());
        self.go_on(thread, self.events.new_token(), connection, false);
    }

    /// Serves a connection until it waits for more bytes or is closed. `is_known` if it has waited
    /// before.
    pub(super) fn go_on(
        &self,
        thread: &mut ServingThread<'_, '_, C>,
        token: u64,
        connection: C,
        is_known: bool,
    ) {
        let is_open = self.advance(thread, &connection);
        let stage = connection.stage();
        if is_open && !is_known && connection.awaits_close() {
            // Usually the web server has read the whole response and closes at once. A check at the
            // next event is faster than a wait with epoll.
            thread.closing.push((token, connection));
            if self.events.is_draining() {
                self.check_closing(thread, true);
            }
        } else if is_open && !self.connections.is_overdue(stage) {
            self.wait_for(token, connection, stage, is_known);
        } else {
            if is_known {
                self.events.forget(connection.socket());
            }
            close(thread, connection);
        }
    }

    fn wait_for(&self, token: u64, connection: C, stage: Stage, is_known: bool) {
        let is_new_keep_alive = !is_known && connection.is_keep_alive();
        self.connections.wait_for(token, connection, stage, is_known);
        if is_new_keep_alive && self.service.workers > 1 {
            self.listeners.stand_back();
        }
    }

    /// Serves the requests of a connection that have arrived. May more requests arrive?
    fn advance(&self, thread: &mut ServingThread<'_, '_, C>, connection: &C) -> bool {
        loop {
            let request = match connection.advance() {
                Progress::Request(request) => request,
                Progress::Wait => return true,
                Progress::Close => return false,
            };
            let caller = &mut thread.caller;
            let served = self.requests.serve(caller, connection, &request, &self.settings);
            if self.events.is_draining() {
                self.status.mark_stopping(caller.thread());
            }
            // A worker that is never idle runs this check after a number of requests.
            if forks::has_lost() || served.is_multiple_of(REQUESTS_BETWEEN_CHECKS) {
                self.check_descriptors();
            }
            self.apply(caller.thread(), self.limits.after(served));
            match connection.after_request(request) {
                Progress::Close => return false,
                // If no other worker can take over the connection, it is closed between two
                // requests, where web servers expect that (FastCGI 1.0, 3.5).
                _ if self.events.is_draining()
                    && connection.can_close()
                    && !self.queue.as_ref().is_some_and(|queue| queue.is_open()) =>
                {
                    return false;
                }
                // The next request waits for its turn, so that one busy connection does not block
                // the others.
                _ if !connection.has_unread() => return true,
                _ => {}
            }
        }
    }

    /// Closes connections that the web server has closed. If there are many, or the thread
    /// `is_idle`, the others wait for events.
    pub(super) fn check_closing(&self, thread: &mut ServingThread<'_, '_, C>, is_idle: bool) {
        // Other threads can drain these connections while this thread serves a request.
        let max = if self.service.threads > 1 { 1 } else { MAX_CLOSING };
        if thread.closing.is_empty() || (thread.closing.len() < max && !is_idle) {
            return;
        }
        for (token, connection) in std::mem::take(&mut thread.closing) {
            if connection.is_drained() {
                close(thread, connection);
            } else {
                self.wait_for(token, connection, Stage::Lingering, false);
            }
        }
    }

    /// Finishes the requests of all connections, and passes on or closes connections between two
    /// requests. The kernel `may_have_woken` this thread for a connection since its last request.
    pub(super) fn drain(&self, thread: &mut ServingThread<'_, '_, C>, may_have_woken: bool) {
        self.events.stop();
        let py = thread.caller.py();
        // The kernel wakes only one thread of one worker for a connection. If this thread was
        // woken, it must accept the connection, and so it must if no other worker may be left. A
        // thread that was busy leaves connections to the next process: after a reload, that has the
        // new code. So does a process that cannot wait for connections.
        let fetched = std::mem::take(&mut thread.fetched);
        let is_last = self.queue.as_ref().is_none_or(|queue| !queue.is_open());
        let must_accept = may_have_woken || is_last;
        if !self.has_failed() {
            for position in 0..self.listeners.len() {
                if must_accept || fetched.contains(&Event::Listener(position)) {
                    self.accept(thread, position);
                }
            }
            self.adopt_all(thread);
        }
        self.check_closing(thread, true);
        let (begun, deadline) = (running_clock::instant(), Instant::now() + STOP_TIMEOUT);
        let limit = MAX_DRAIN_TIME.min(Duration::from_secs(self.service.drain_seconds.max(1)) / 2);
        let mut left = self.connections.take_all();
        py.detach(|| self.queue.iter().for_each(|queue| queue.give_all(&mut left, deadline)));
        // A reload ends when no thread with the old code takes requests.
        self.status.mark_stopping(thread.caller.thread());
        while !left.is_empty() && running_clock::elapsed(begun) < limit {
            py.detach(|| self.queue.iter().for_each(|queue| queue.give_all(&mut left, deadline)));
            left.retain(|(_, connection)| !connection.can_close());
            let are_ready = py.detach(|| wait_for_any(&left));
            for ((token, connection), is_ready) in
                std::mem::take(&mut left).into_iter().zip(are_ready)
            {
                if is_ready {
                    self.go_on(thread, token, connection, true);
                } else {
                    left.push((token, connection));
                }
            }
            left.append(&mut self.connections.take_all());
        }
    }

    /// Takes over all connections of the queue when the pool stops, because no other worker may be
    /// left.
    fn adopt_all(&self, thread: &mut ServingThread<'_, '_, C>) {
        let Some(queue) = self.queue.as_ref().filter(|queue| !queue.is_open()) else {
            return;
        };
        while let Ok(Some((socket, history))) = queue.take() {
            self.open(thread, socket, Some(history));
        }
    }
}

/// Closes a connection that is not in the epoll set, and keeps its buffers.
fn close<C: Connection>(thread: &mut ServingThread<'_, '_, C>, connection: C) {
    if let Some(buffers) = connection.close()
        && thread.buffers.len() < MAX_SPARE_BUFFERS
    {
        thread.buffers.push(buffers);
    }
}

/// Waits a moment for the connections. Returns those on which bytes have arrived.
fn wait_for_any<C: Connection>(connections: &[(u64, C)]) -> Vec<bool> {
    let sockets = connections.iter().map(|(_, connection)| connection.socket());
    let mut watched: Vec<_> =
        sockets.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
    let look = |_| poll(&mut watched, Some(&DRAIN_CHECK_INTERVAL)).unwrap_or(0);
    let found = running_clock::wait(Duration::try_from(DRAIN_CHECK_INTERVAL).ok(), look);
    watched.iter().map(|socket| found > 0 && !socket.revents().is_empty()).collect()
}
