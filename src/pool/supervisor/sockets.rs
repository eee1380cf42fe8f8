//! Sockets through which requests reach a pool: its listening sockets, and the queue of keep-alive
//! connections that workers pass to each other ([`wire::connection_queue`]).

use std::{
    cell::Cell,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use control::pool_status::ListenerStatus;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
    net::{RecvFlags, SocketAddrAny, SocketFlags, acceptfrom_with, recv},
};
use wire::connection_queue::{ConnectionHistory, ConnectionQueue, QueuedConnection};

use crate::{
    pool::{handover::Draft, listeners::Listener},
    system::accept_queue::AcceptQueue,
};

/// Sockets of a pool.
pub(in crate::pool) struct Sockets {
    listeners: Vec<Listener>,
    /// The longest accept queue of each listening socket that was seen.
    peaks: Vec<Cell<u32>>,
    queue: Option<ConnectionQueue>,
}

impl Sockets {
    /// The sockets of a pool.
    pub(in crate::pool) fn new(listeners: Vec<Listener>, queue: Option<ConnectionQueue>) -> Self {
        let peaks = vec![Cell::new(0); listeners.len()];
        Self { listeners, peaks, queue }
    }

    /// The listening sockets.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The status of the listening sockets.
    pub(super) fn status(&self) -> Vec<ListenerStatus> {
        let sockets = self.listeners.iter().zip(&self.peaks);
        let status = sockets.map(|(listener, peak)| {
            let queue = AcceptQueue::of(&listener.socket);
            peak.set(queue.map_or(0, |queue| queue.length).max(peak.get()));
            ListenerStatus {
                address: listener.address.to_string(),
                accept_queue: queue.map(|queue| queue.length),
                peak_accept_queue: peak.get(),
                backlog: queue.map(|queue| queue.backlog),
            }
        });
        status.collect()
    }

    /// Adds the sockets to `draft`, for the next program of an upgrade.
    pub(super) fn hand_over<'a>(&'a self, draft: &mut Draft<'a>) {
        self.listeners.iter().for_each(|listener| draft.add_listener(listener));
        self.queue.iter().for_each(|queue| draft.add_queue(queue));
    }

    /// File descriptors that processes inherit.
    pub(super) fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        sockets.chain(self.queue.iter().flat_map(ConnectionQueue::descriptors))
    }

    /// File descriptors that are readable when a connection waits.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        sockets.chain(self.queue.iter().map(ConnectionQueue::pop_end))
    }

    /// Makes the sockets of a warm pool visible. Returns the errors.
    pub(super) fn publish(&mut self) -> Vec<anyhow::Error> {
        self.listeners.iter_mut().filter_map(|listener| listener.publish().err()).collect()
    }

    /// Removes the files of the sockets.
    pub(super) fn remove_files(&mut self) {
        self.listeners.iter_mut().for_each(Listener::remove_file);
    }

    /// Closes waiting connections, and refuses new ones.
    pub(super) fn refuse_clients(&self) {
        self.listeners.iter().for_each(Listener::refuse_clients);
    }

    /// Makes workers serve the connections they would pass on. Connections in the queue stay there.
    pub(super) fn close_queue(&self) {
        self.queue.iter().for_each(ConnectionQueue::close);
    }

    /// Closes the connections in the queue. Children of the application may live on and keep the
    /// queue's socket open.
    pub(super) fn drop_queued(&self) {
        while self.take_queued().is_some() {}
    }

    /// Takes a connection from the queue.
    pub(super) fn take_queued(&self) -> Option<QueuedConnection> {
        self.queue.as_ref()?.pop().ok()?
    }

    /// Number of connections in the queue.
    pub(super) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, ConnectionQueue::len)
    }

    /// Does a connection wait for a worker?
    pub(super) fn connections_wait(&self, has_worker: bool) -> bool {
        // A worker passes on only connections with a request.
        if !has_worker && self.sort_queue() {
            return true;
        }
        let queue = self.queue.iter().filter(|_| has_worker).map(ConnectionQueue::pop_end);
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let mut watched: Vec<_> = sockets
            .chain(queue)
            .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
            .collect();
        // After an error, the next check reads the queue again.
        matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Closes queued connections without a request, while there is no worker: no worker would
    /// notice their next request. Returns whether connections with a request are left; these stay
    /// queued.
    fn sort_queue(&self) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let mut waiting = Vec::new();
        while let Ok(Some(given)) = queue.pop() {
            if given.history == ConnectionHistory::New || has_input(&given) {
                waiting.push(given);
            }
        }
        // A connection that cannot be queued again is closed, as a worker would close it.
        waiting.retain(|given| queue.push(given.socket.as_fd(), given.history).is_ok());
        !waiting.is_empty()
    }

    /// Accepts a connection of this listening socket, with its peer's address.
    ///
    /// # Errors
    /// `AGAIN` if no connection waits, or the error of the kernel.
    pub(super) fn accept(listener: &Listener) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
        // Workers need the listening socket to be non-blocking, too.
        let _ = ioctl_fionbio(&listener.socket, true);
        acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

/// Has input arrived that nobody has read?
fn has_input(given: &QueuedConnection) -> bool {
    matches!(recv(&given.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((1.., _)))
}
