//! The waiting connections of a worker.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use wire::{clock::now, launch::Service};

use crate::{
    pool::serving::{
        connection_limits::{ConnectionLimits, close_spare},
        event_loop::EventLoop,
        lingering_connections::{self, LingeringConnections},
    },
    transport::{Connection, Stage},
};

/// Pause of a thread while no file descriptor is free.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(20);

/// How long the file descriptors may be used up, without a connection to close, before the worker
/// is replaced.
const MAX_CRAMPED_MILLISECONDS: u64 = 1000;

/// The connections that wait for requests, by their tokens, and the lingering ones.
pub(super) struct Connections<C: Connection> {
    events: Arc<EventLoop>,
    waiting: Mutex<BTreeMap<u64, C>>,
    lingering: LingeringConnections<C>,
    limits: ConnectionLimits,
    /// Since when no file descriptor has been free, in milliseconds of the monotonic clock; 0 if
    /// one is free.
    cramped_since: AtomicU64,
}

impl<C: Connection> Connections<C> {
    /// No connections of a worker of `service`.
    pub(super) fn new(events: &Arc<EventLoop>, service: &Service) -> Self {
        Self {
            events: events.clone(),
            waiting: Mutex::default(),
            lingering: LingeringConnections::new(),
            limits: ConnectionLimits::new(service),
            cramped_since: AtomicU64::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, C>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the worker may wait before [`Connections::close_overdue`]. The flag excludes time
    /// during which the process was stopped.
    pub(super) fn timeout(&self) -> (Option<Duration>, bool) {
        let limit = self.limits.timeout();
        let lingers = !self.lingering.is_empty();
        let check = lingers.then_some(lingering_connections::CHECK_INTERVAL);
        (limit.into_iter().chain(check).min(), limit.is_some() || lingers)
    }

    /// Takes out a connection on which bytes have arrived.
    pub(super) fn take(&self, token: u64) -> Option<C> {
        let connection = self.waiting().remove(&token);
        connection.or_else(|| self.lingering.remove(token))
    }

    /// Takes out all connections.
    pub(super) fn take_all(&self) -> Vec<(u64, C)> {
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().chain(self.lingering.take_all()).collect()
    }

    /// Has a connection at this stage exceeded a limit? If so, the caller closes the connection.
    pub(super) fn is_overdue(&self, stage: Stage) -> bool {
        self.limits.is_overdue(stage)
    }

    /// Adds a connection to the waiting ones. `is_known` if it has waited before.
    pub(super) fn wait_for(&self, token: u64, connection: C, stage: Stage, is_known: bool) {
        let mut waiting = self.waiting();
        let watched = self.events.watch_connection(token, connection.socket(), is_known);
        // Watching a socket fails only without memory. The connection is closed then.
        if watched.is_err() {
            return;
        }
        if stage == Stage::Lingering {
            let max = self.limits.max_connections().div_ceil(2);
            self.lingering.insert(token, connection, max, &self.events);
        } else {
            waiting.insert(token, connection);
            self.limits.enforce(&mut waiting, stage, &self.events);
        }
    }

    /// Closes connections whose requests do not arrive in time, if it is time to check them.
    pub(super) fn close_overdue(&self) {
        if self.limits.is_check_due() {
            self.limits.close_overdue(&mut self.waiting(), &self.events);
        }
    }

    /// Closes connections that have lingered long enough.
    pub(super) fn close_lingering(&self) {
        self.lingering.close_overdue(&self.events);
    }

    /// Closes an idle connection, because no file descriptor is free. Fails if no file descriptor
    /// has been free for too long.
    pub(super) fn make_room(&self) -> Result<(), ()> {
        if self.lingering.close_first(&self.events)
            || close_spare(&mut self.waiting(), &self.events)
        {
            self.note_room();
            return Ok(());
        }
        // The application or its requests hold the file descriptors. The pause prevents a busy loop
        // while connections wait in the accept queue.
        std::thread::sleep(DESCRIPTOR_PAUSE);
        let (since, now) = (self.cramped_since.load(Ordering::Relaxed), now());
        if since == 0 {
            self.cramped_since.store(now, Ordering::Relaxed);
        } else if now.saturating_sub(since) > MAX_CRAMPED_MILLISECONDS {
            return Err(());
        }
        Ok(())
    }

    /// Records that a file descriptor was free.
    pub(super) fn note_room(&self) {
        self.cramped_since.store(0, Ordering::Relaxed);
    }

    /// Number of connections that wait for a request, without that of `served`.
    pub(super) fn count_without(&self, served: Option<u64>) -> usize {
        let waiting = self.waiting();
        waiting.len() - usize::from(served.is_some_and(|token| waiting.contains_key(&token)))
    }

    /// The connections that can go to another worker.
    pub(super) fn movable(&self) -> Vec<(u64, C::WatchedSocket)> {
        let waiting = self.waiting();
        let movable = waiting.iter().filter(|(_, connection)| connection.can_move());
        movable.map(|(token, connection)| (*token, connection.watched_socket())).collect()
    }

    /// Takes out a connection that `give` passes to another worker, or that the web server has
    /// closed. `give` returns whether it has passed the connection. Returns `true` if the
    /// connection was removed, or if `is_needed` is false.
    pub(super) fn give_away(
        &self,
        token: u64,
        is_needed: impl FnOnce() -> bool,
        give: impl FnOnce(&C) -> bool,
    ) -> bool {
        let mut waiting = self.waiting();
        if !is_needed() {
            return true;
        }
        let Some(connection) = waiting.get(&token) else {
            return true;
        };
        if !connection.is_closed_by_peer() && !give(connection) {
            return false;
        }
        self.events.forget(connection.socket());
        // A thread that has fetched an event of the connection does not find the connection.
        let connection = waiting.remove(&token);
        drop(waiting);
        drop(connection);
        true
    }
}
