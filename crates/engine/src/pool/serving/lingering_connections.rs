//! Connections that are drained before they are closed. Such connections wait in the epoll set with
//! the others, so that draining occupies no thread.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use wire::running_clock;

use crate::{pool::serving::event_loop::EventLoop, transport::Connection};

/// Time between two checks for connections that have lingered long enough.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that are being drained, by their tokens.
pub(super) struct LingeringConnections<C> {
    state: Mutex<LingeringState<C>>,
    /// Is there a connection? Changed only while `state` is locked.
    has_some: AtomicBool,
}

struct LingeringState<C> {
    connections: BTreeMap<u64, C>,
    /// The time of the last check.
    checked: Option<Instant>,
}

impl<C: Connection> LingeringConnections<C> {
    /// No connections.
    pub(super) fn new() -> Self {
        let state = LingeringState { connections: BTreeMap::new(), checked: None };
        Self { state: Mutex::new(state), has_some: AtomicBool::new(false) }
    }

    /// Are there no connections? This check is cheap enough for each wait.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_some.load(Ordering::Relaxed)
    }

    /// Adds a connection, and closes another one above `max` connections. Connections that have
    /// lingered long enough are closed here, too, because a busy worker may never run out of
    /// events.
    pub(super) fn insert(&self, token: u64, connection: C, max: usize, events: &EventLoop) {
        let mut state = self.state();
        let is_due = state.checked.is_some_and(|it| running_clock::elapsed(it) >= CHECK_INTERVAL);
        state.checked.get_or_insert_with(running_clock::instant);
        state.connections.insert(token, connection);
        if is_due {
            close_overdue(&mut state, events);
        }
        if state.connections.len() > max {
            close_first(&mut state, events);
        }
        self.note(&state);
    }

    /// Takes out a connection.
    pub(super) fn remove(&self, token: u64) -> Option<C> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state();
        let connection = state.connections.remove(&token);
        self.note(&state);
        connection
    }

    /// Takes out all connections.
    pub(super) fn take_all(&self) -> BTreeMap<u64, C> {
        let mut state = self.state();
        let connections = std::mem::take(&mut state.connections);
        self.note(&state);
        connections
    }

    /// Closes the oldest connection to free a file descriptor. Was there a connection?
    pub(super) fn close_first(&self, events: &EventLoop) -> bool {
        let mut state = self.state();
        let was_closed = close_first(&mut state, events);
        self.note(&state);
        was_closed
    }

    /// Closes connections that have lingered long enough.
    pub(super) fn close_overdue(&self, events: &EventLoop) {
        if !self.is_empty() {
            let mut state = self.state();
            close_overdue(&mut state, events);
            self.note(&state);
        }
    }

    fn note(&self, state: &LingeringState<C>) {
        self.has_some.store(!state.connections.is_empty(), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, LingeringState<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_first<C: Connection>(state: &mut LingeringState<C>, events: &EventLoop) -> bool {
    let first = state.connections.pop_first();
    first.iter().for_each(|(_, connection)| events.forget(connection.socket()));
    first.is_some()
}

fn close_overdue<C: Connection>(state: &mut LingeringState<C>, events: &EventLoop) {
    let now = running_clock::instant();
    state.checked = Some(now);
    state.connections.retain(|_, connection| {
        let is_over = connection.has_lingered(now);
        if is_over {
            events.forget(connection.socket());
        }
        !is_over
    });
}
