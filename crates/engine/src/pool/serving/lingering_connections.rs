//! Connections that are only drained before they are closed. They wait for events beside the
//! others, so that draining them keeps no thread from serving requests.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    pool::serving::{Descriptor, ServingThread, Worker, connections::forget},
    transport::fastcgi::{ConnectionStage, FastCgiConnection},
};
use wire::running_clock;

/// Wait until those that have lingered long enough are looked for again.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// How long a web server has to close a connection after the last response before that is waited
/// for.
pub(crate) const TO_LEAVE: Duration = Duration::from_millis(20);

/// Most connections of a thread that web servers are about to close.
const LEAVING: usize = 8;

impl Worker {
    /// Takes a connection that is to be drained. Nearly always the web server has read a whole
    /// response and closes at once. To wait for that by epoll takes longer than to look later, when
    /// something else has come.
    pub(crate) fn let_leave(
        &self,
        seat: &mut ServingThread<'_, '_>,
        data: u64,
        peer: FastCgiConnection,
    ) {
        seat.leaving.push((data, peer));
        if self.is_draining() {
            self.look_after_leaving(seat, true);
        }
    }

    /// Closes those that web servers have closed, and waits for the others, if there are many or
    /// nothing else is to do.
    pub(crate) fn look_after_leaving(&self, seat: &mut ServingThread<'_, '_>, is_idle: bool) {
        // Other threads could drain what this one keeps while it serves a request.
        let most = if self.service.threads > 1 { 1 } else { LEAVING };
        if seat.leaving.is_empty() || (seat.leaving.len() < most && !is_idle) {
            return;
        }
        for (data, peer) in std::mem::take(&mut seat.leaving) {
            if peer.has_left() {
                self.close(seat, peer);
            } else {
                self.wait_for(data, (peer, ConnectionStage::Lingering), false);
            }
        }
    }
}

/// Connections that are only drained, by their epoll data.
#[derive(Default)]
pub(crate) struct LingeringConnections {
    state: Mutex<LingeringState>,
    /// There are some. Changed while `state` is locked.
    any: AtomicBool,
}

#[derive(Default)]
struct LingeringState {
    peers: BTreeMap<u64, FastCgiConnection>,
    /// When those that have lingered long enough were looked for last.
    looked: Option<Instant>,
}

impl LingeringConnections {
    /// Are there none? To be asked before each wait for events.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.state().peers.len()
    }

    /// Adds a connection. Since a busy worker is never out of events, those that have lingered long
    /// enough are looked for here, too.
    pub(crate) fn insert(&self, epoll: &Descriptor, data: u64, peer: FastCgiConnection) {
        let mut state = self.state();
        let is_due = state.looked.is_some_and(|looked| running_clock::elapsed(looked) >= LOOK);
        state.looked.get_or_insert_with(running_clock::instant);
        state.peers.insert(data, peer);
        self.any.store(true, Ordering::Relaxed);
        if is_due {
            self.close_overdue(&mut state, epoll);
        }
    }

    /// Takes a connection out, to go on with it.
    pub(crate) fn remove(&self, data: u64) -> Option<FastCgiConnection> {
        if self.is_empty() {
            return None;
        }
        let mut state = self.state();
        let peer = state.peers.remove(&data);
        self.any.store(!state.peers.is_empty(), Ordering::Relaxed);
        peer
    }

    /// Takes all connections out.
    pub(crate) fn take_all(&self) -> BTreeMap<u64, FastCgiConnection> {
        let mut state = self.state();
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.peers)
    }

    /// Closes the connection that is here longest, for its descriptor. Tells whether there was one.
    pub(crate) fn close_first(&self, epoll: &Descriptor) -> bool {
        let mut state = self.state();
        let first = state.peers.pop_first();
        self.any.store(!state.peers.is_empty(), Ordering::Relaxed);
        first.iter().for_each(|(_, peer)| forget(epoll, peer));
        first.is_some()
    }

    /// Closes connections that have lingered long enough.
    pub(crate) fn sweep(&self, epoll: &Descriptor) {
        if !self.is_empty() {
            self.close_overdue(&mut self.state(), epoll);
        }
    }

    fn close_overdue(&self, state: &mut LingeringState, epoll: &Descriptor) {
        let now = running_clock::instant();
        state.looked = Some(now);
        state.peers.retain(|_, peer| {
            let is_over = peer.has_lingered(now);
            if is_over {
                forget(epoll, peer);
            }
            !is_over
        });
        self.any.store(!state.peers.is_empty(), Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, LingeringState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
