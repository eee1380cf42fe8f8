//! Limits of a worker's connections: their number, the time in which the parameters of a request
//! must arrive, and the memory of incomplete parameters.
//!
//! Idle connections, and connections that have sent nothing yet, are legitimate. Such connections
//! have no deadline, and are closed only if there are too many connections.

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
        rate_limit::{self, LimitedMessage},
    },
    pool::serving::event_loop::EventLoop,
    transport::{Connection, Stage},
};

/// Maximum size of incomplete parameters of all connections in bytes.
const MAX_HELD_BYTES: usize = 32 << 20;

/// Parameters up to this size in bytes are not counted: even the maximum number of connections
/// stays below [`MAX_HELD_BYTES`].
const SMALL_START_BYTES: usize = 16 << 10;

/// Timeout for the parameters of a request while connections are short.
const SHORT_HEADER_TIMEOUT_MILLISECONDS: u64 = 500;

/// Time before an overdue connection is checked again if unread bytes have arrived.
const RECHECK_MILLISECONDS: u64 = 1000;

/// A value after every time of the clock.
const NEVER: u64 = u64::MAX;

/// The limits of one worker, and the time of the next check.
pub(super) struct ConnectionLimits {
    /// Timeout for the parameters of a request in milliseconds; `None` without a limit.
    header_timeout: Option<u64>,
    max_connections: usize,
    /// The earliest time at which a connection may be overdue, by the clock of
    /// [`wire::running_clock`].
    next_check: AtomicU64,
}

impl ConnectionLimits {
    /// The limits of a worker of `service` that has loaded the application.
    pub(super) fn new(service: &Service) -> Self {
        let header_timeout = Some(service.header_timeout_seconds).filter(|&seconds| seconds > 0);
        // The application needs file descriptors, too.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2);
        let max_connections = u64::from(service.connections).min(descriptors).max(1);
        Self {
            header_timeout: header_timeout.map(|seconds| seconds.saturating_mul(1000)),
            max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
            next_check: AtomicU64::new(NEVER),
        }
    }

    /// Maximum number of connections of a worker.
    pub(super) fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Time until the next check, if a check is necessary.
    pub(super) fn timeout(&self) -> Option<Duration> {
        let check = self.next_check.load(Ordering::Relaxed);
        let left = (check < NEVER).then(|| Duration::from_millis(check.saturating_sub(recently())));
        left.into_iter().chain(rate_limit::left()).min()
    }

    /// Is it time for [`ConnectionLimits::close_overdue`]?
    pub(super) fn is_check_due(&self) -> bool {
        let check = self.next_check.load(Ordering::Relaxed);
        check < NEVER && check <= recently()
    }

    /// Has a connection at this stage exceeded a limit? If so, logs a message, and the caller
    /// closes the connection.
    pub(super) fn is_overdue(&self, stage: Stage) -> bool {
        let is_overdue = matches!(stage, Stage::Begun { since, .. } if self.is_late(since));
        if is_overdue {
            self.log_overdue();
        }
        is_overdue
    }

    /// Enforces the limits after a connection at `stage` was added to `waiting`.
    pub(super) fn enforce<C: Connection>(
        &self,
        waiting: &mut BTreeMap<u64, C>,
        stage: Stage,
        events: &EventLoop,
    ) {
        if let Stage::Begun { since, held } = stage {
            if let Some(timeout) = self.header_timeout {
                self.next_check.fetch_min(since.saturating_add(timeout), Ordering::Relaxed);
            }
            limit_held_bytes(waiting, held, events);
        }
        if waiting.len() <= self.max_connections {
            return;
        }
        if !close_spare(waiting, events) {
            // All connections are too new to be closed.
            let check = recently().saturating_add(SHORT_HEADER_TIMEOUT_MILLISECONDS);
            self.next_check.fetch_min(check, Ordering::Relaxed);
            return;
        }
        let max = self.max_connections;
        LimitedMessage::Connections.write(&Log::without_request("worker"), || {
            let pid = std::process::id();
            LogMessage::new(
                Code::TooManyConnections,
                format!(
                    "worker {pid} has {max} connections, which is the limit, and closes one for \
                     each new connection"
                ),
            )
            .hint(
                "check which clients connect; reduce the idle connections of the web server, or \
                 raise `--worker-connections` and the limit of file descriptors (`ulimit -n`)",
            )
        });
    }

    /// Closes the connections whose requests began too long ago, and connections above the limit.
    pub(super) fn close_overdue<C: Connection>(
        &self,
        waiting: &mut BTreeMap<u64, C>,
        events: &EventLoop,
    ) {
        let mut next_check = NEVER;
        waiting.retain(|_, connection| {
            let Stage::Begun { since, .. } = connection.stage() else {
                return true;
            };
            if !self.is_late(since) {
                let due = since.saturating_add(self.header_timeout.unwrap_or(NEVER));
                next_check = next_check.min(due);
                return true;
            }
            // Bytes that arrived while this worker was busy count as in time.
            if connection.has_pending() {
                next_check = next_check.min(recently().saturating_add(RECHECK_MILLISECONDS));
                return true;
            }
            self.log_overdue();
            events.forget(connection.socket());
            false
        });
        self.next_check.store(next_check, Ordering::Relaxed);
        for _ in self.max_connections..waiting.len() {
            self.enforce(waiting, Stage::Idle, events);
        }
    }

    fn is_late(&self, begun: u64) -> bool {
        self.header_timeout.is_some_and(|timeout| recently().saturating_sub(begun) >= timeout)
    }

    #[cold]
    fn log_overdue(&self) {
        LimitedMessage::HeaderTimeout.write(&Log::without_request("connection"), || {
            let seconds = self.header_timeout.unwrap_or(0) / 1000;
            LogMessage::new(
                Code::HeaderTimedOut,
                format!(
                    "a connection was closed: the start of its request did not arrive within \
                     {seconds} s"
                ),
            )
            .hint("check which client connects; `--header-timeout` is the limit")
        });
    }
}

/// Closes the connection with the largest incomplete parameters if the sum of all is above the
/// limit. `held` is the size for the last added connection.
fn limit_held_bytes<C: Connection>(
    waiting: &mut BTreeMap<u64, C>,
    held: usize,
    events: &EventLoop,
) {
    if held <= SMALL_START_BYTES {
        return;
    }
    let of = |connection: &C| match connection.stage() {
        Stage::Begun { held, .. } => held,
        _ => 0,
    };
    let all: usize = waiting.values().map(of).sum();
    if all <= MAX_HELD_BYTES {
        return;
    }
    let largest = waiting.iter().max_by_key(|(_, connection)| of(connection));
    let largest = largest.map(|(token, _)| *token);
    if let Some(connection) = largest.and_then(|largest| waiting.remove(&largest)) {
        events.forget(connection.socket());
    }
    LimitedMessage::ParamsMemory.write(&Log::without_request("worker"), || {
        let (pid, size) = (std::process::id(), MAX_HELD_BYTES >> 20);
        LogMessage::new(
            Code::TooManyConnections,
            format!(
                "worker {pid} holds {size} MiB of parameters of unfinished requests, which is the \
                 limit, and closes the connection with the most"
            ),
        )
        .hint("check which clients connect; web servers send all parameters in one go")
    });
}

/// Closes one connection to free a file descriptor, in this order: a connection that has sent
/// nothing; one with an incomplete request; the oldest one between two requests, where web servers
/// expect a close at any time. Was a connection closed?
pub(super) fn close_spare<C: Connection>(
    waiting: &mut BTreeMap<u64, C>,
    events: &EventLoop,
) -> bool {
    let now = recently();
    let mut spare: Vec<(u8, u64, u64)> = waiting
        .iter()
        .filter_map(|(&token, connection)| match connection.stage() {
            Stage::Silent { fresh: false } => Some((0, token, token)),
            Stage::Begun { since, .. }
                if now.saturating_sub(since) >= SHORT_HEADER_TIMEOUT_MILLISECONDS =>
            {
                Some((1, since, token))
            }
            Stage::Idle => Some((2, token, token)),
            Stage::Silent { fresh: true } | Stage::Begun { .. } | Stage::Lingering => None,
        })
        .collect();
    spare.sort_unstable();
    let is_unread =
        |token: &u64| waiting.get(token).is_some_and(|connection| !connection.has_pending());
    let first = spare.into_iter().map(|(_, _, token)| token).find(is_unread);
    let Some(connection) = first.and_then(|token| waiting.remove(&token)) else {
        return false;
    };
    events.forget(connection.socket());
    true
}
