//! Limits of the connections that a worker holds: how many there are, how long the start of a
//! request may take, and how much memory unfinished starts may have.
//!
//! An idle connection is legitimate, and one that has said nothing yet is, too: they have no
//! deadline, and are closed only where there are too many.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::{Resource, getrlimit};
use wire::{launch::Service, running_clock::recently};

use crate::{
    log::{
        Log,
        rate_limit::{
            Kind, {self},
        },
    },
    pool::serving::{Worker, connections::forget},
    process::forks::Descriptor,
    transport::fastcgi::{ConnectionStage, FastCgiConnection},
};

/// Most bytes that a worker keeps of starts of requests which have not come whole.
const MAX_HELD_BYTES: usize = 32 << 20;

/// Starts of requests that are kept without counting, in bytes: all connections that there may be
/// have no more together than is allowed.
const SMALL: usize = 16 << 10;

/// How long the start of a request takes at most, in milliseconds, where there is room for few.
const SOON: u64 = 500;

/// Wait until connections are looked at again whose time is over, but on which something has come.
const AGAIN: u64 = 1000;

/// No time of the clock.
const NEVER: u64 = u64::MAX;

/// The limits of one worker, and when they are to be looked at.
pub(crate) struct ConnectionLimits {
    /// How long the start of a request may take, in milliseconds; nothing if there is no limit.
    header_timeout: Option<u64>,
    /// How long one wait for the web server may take within a request.
    pub(crate) socket_timeout: Option<Duration>,
    connections: usize,
    /// When a connection may be overdue, by the clock of [`wire::running_clock`].
    look: AtomicU64,
}

impl ConnectionLimits {
    /// Those of a worker of `service` that has loaded the application.
    pub(crate) fn new(service: &Service) -> Self {
        let seconds = |seconds: u64| Some(seconds).filter(|&seconds| seconds > 0);
        // The application needs descriptors, too.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2);
        let connections = u64::from(service.connections).min(descriptors).max(1);
        Self {
            header_timeout: seconds(service.header_timeout_seconds)
                .map(|seconds| seconds.saturating_mul(1000)),
            socket_timeout: seconds(service.socket_timeout_seconds).map(Duration::from_secs),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            look: AtomicU64::new(NEVER),
        }
    }

    /// How long until it is time to look, if anything waits.
    pub(crate) fn left(&self) -> Option<Duration> {
        let look = self.look.load(Ordering::Relaxed);
        let look = (look < NEVER).then(|| Duration::from_millis(look.saturating_sub(recently())));
        look.into_iter().chain(rate_limit::left()).min()
    }

    /// A request was begun then, and waits for more. Called while the connections are locked.
    fn look_at(&self, begun: u64) {
        if let Some(timeout) = self.header_timeout {
            self.look.fetch_min(begun.saturating_add(timeout), Ordering::Relaxed);
        }
    }

    /// Is it time to look for overdue connections?
    fn is_time_to_look(&self) -> bool {
        let look = self.look.load(Ordering::Relaxed);
        look < NEVER && look <= recently()
    }

    /// Has a connection at this stage reached its limit? LimitAction the log says so, and the caller
    /// closes the connection.
    pub(crate) fn is_overdue(&self, stage: ConnectionStage) -> bool {
        let is_overdue =
            matches!(stage, ConnectionStage::Begun { since, .. } if self.is_over(since));
        if is_overdue {
            self.log_overdue();
        }
        is_overdue
    }

    fn is_over(&self, begun: u64) -> bool {
        self.header_timeout.is_some_and(|timeout| recently().saturating_sub(begun) >= timeout)
    }

    #[cold]
    fn log_overdue(&self) {
        Kind::HeaderTimeout.entry(&Log::new("-", "(connection)"), || {
            let seconds = self.header_timeout.unwrap_or(0) / 1000;
            LogMessage::warning(
                Code::HeaderTimedOut,
                format!(
                    "a connection was closed: the start of its request did not come within \
                     {seconds} s"
                ),
            )
            .hint("see what connects there; `--header-timeout` is the limit")
        });
    }

    /// Closes the connections whose requests were begun too long ago.
    fn close_overdue(&self, waiting: &mut BTreeMap<u64, FastCgiConnection>, epoll: &Descriptor) {
        let mut look = NEVER;
        waiting.retain(|_, peer| {
            let ConnectionStage::Begun { since, .. } = peer.stage() else {
                return true;
            };
            if !self.is_over(since) {
                look = look.min(since.saturating_add(self.header_timeout.unwrap_or(NEVER)));
                return true;
            }
            // What has come while this worker was busy is not too late.
            if peer.has_pending() {
                look = look.min(recently().saturating_add(AGAIN));
                return true;
            }
            self.log_overdue();
            forget(epoll, peer);
            false
        });
        self.look.store(look, Ordering::Relaxed);
    }
}

impl Worker {
    /// Keeps the limits after a connection at `stage` was added.
    pub(crate) fn keep_limits(
        &self,
        waiting: &mut BTreeMap<u64, FastCgiConnection>,
        stage: ConnectionStage,
    ) {
        if let ConnectionStage::Begun { since, held } = stage {
            self.waits.look_at(since);
            self.limit_held_bytes(waiting, held);
        }
        if waiting.len() <= self.waits.connections {
            return;
        }
        if !self.close_one(waiting) {
            // All are too new to be closed.
            self.waits.look.fetch_min(recently().saturating_add(SOON), Ordering::Relaxed);
            return;
        }
        let most = self.waits.connections;
        Kind::Connections.entry(&Log::new("-", "(worker)"), || {
            LogMessage::warning(
                Code::TooManyConnections,
                format!(
                    "worker {} has {most} connections, which is the limit, and closes one for each \
                     that is new",
                    std::process::id()
                ),
            )
            .hint(
                "see what connects there; keep fewer idle connections in the web server, or raise \
                 `--worker-connections` and the limit of file descriptors (`ulimit -n`)",
            )
        });
    }

    /// Closes overdue connections and those that are too many, if it is time to look for them.
    pub(crate) fn close_overdue(&self) {
        if !self.waits.is_time_to_look() {
            return;
        }
        let mut waiting = self.waiting();
        self.waits.close_overdue(&mut waiting, &self.epoll);
        for _ in self.waits.connections..waiting.len() {
            self.keep_limits(&mut waiting, ConnectionStage::Idle);
        }
    }

    /// Keeps the limit after a connection was added that is only drained.
    pub(crate) fn limit_lingering(&self) {
        if self.lingering.count() > self.waits.connections.div_ceil(2) {
            self.lingering.close_first(&self.epoll);
        }
    }

    /// Closes the connection with the most bytes of an unfinished request, if all have too many.
    /// `held` is what the one has that has come last.
    fn limit_held_bytes(&self, waiting: &mut BTreeMap<u64, FastCgiConnection>, held: usize) {
        if held <= SMALL {
            return;
        }
        let of = |peer: &FastCgiConnection| {
            if let ConnectionStage::Begun { held, .. } = peer.stage() { held } else { 0 }
        };
        let all: usize = waiting.values().map(of).sum();
        if all <= MAX_HELD_BYTES {
            return;
        }
        let largest = waiting.iter().max_by_key(|(_, peer)| of(peer)).map(|(data, _)| *data);
        if let Some(peer) = largest.and_then(|largest| waiting.remove(&largest)) {
            forget(&self.epoll, &peer);
        }
        Kind::ParamsMemory.entry(&Log::new("-", "(worker)"), || {
            LogMessage::warning(
                Code::TooManyConnections,
                format!(
                    "worker {} keeps {} MiB of requests whose start has not come whole, and closes \
                     the largest",
                    std::process::id(),
                    MAX_HELD_BYTES >> 20
                ),
            )
            .hint("see what connects there; web servers send the start of a request in one go")
        });
    }

    /// Closes a connection that can be spared: one that says nothing; one whose request was begun
    /// and does not come; the oldest between two requests, which web servers have to expect at any
    /// time. Tells whether there was one.
    pub(crate) fn close_one(&self, waiting: &mut BTreeMap<u64, FastCgiConnection>) -> bool {
        let now = recently();
        let mut spare: Vec<(u8, u64, u64)> = waiting
            .iter()
            .filter_map(|(&data, peer)| match peer.stage() {
                ConnectionStage::Silent { fresh: false } => Some((0, data, data)),
                ConnectionStage::Begun { since, .. } if now.saturating_sub(since) >= SOON => {
                    Some((1, since, data))
                }
                ConnectionStage::Idle => Some((2, data, data)),
                ConnectionStage::Silent { fresh: true }
                | ConnectionStage::Begun { .. }
                | ConnectionStage::Lingering => None,
            })
            .collect();
        spare.sort_unstable();
        let spared = spare.into_iter().map(|(_, _, data)| data);
        let unread = |data: &u64| waiting.get(data).is_some_and(|peer| !peer.has_pending());
        let Some(peer) = spared.into_iter().find(unread).and_then(|data| waiting.remove(&data))
        else {
            return false;
        };
        forget(&self.epoll, &peer);
        true
    }
}
