//! Limits of the workers of a pool, and the time that they have to stop.

use std::time::{Duration, Instant};

use wire::jitter::with_jitter;

use crate::pool::supervisor::{
    config::ReloadableConfig,
    slots::{LimitReached, Worker},
};

/// Limits of workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerRules {
    /// How long a worker that was asked to stop may take for its requests.
    pub(super) drain: Duration,
    /// How long a worker may take to exit after its last request.
    pub(super) linger: Duration,
    /// Age at which a worker is replaced.
    max_age: Option<Duration>,
    /// Bytes of memory above which a worker is replaced.
    max_memory: Option<u64>,
}

impl WorkerRules {
    /// The limits that `config` sets.
    pub(super) fn of(config: &ReloadableConfig) -> Self {
        let service = &config.service;
        Self {
            drain: config.drain,
            linger: config.linger,
            max_age: Some(service.max_age).filter(|&seconds| seconds > 0).map(Duration::from_secs),
            max_memory: Some(service.max_rss).filter(|&bytes| bytes > 0),
        }
    }

    /// Time at which a worker that starts `now` is replaced.
    pub(super) fn expiry(&self, now: Instant) -> Option<Instant> {
        let milliseconds = u64::try_from(self.max_age?.as_millis()).unwrap_or(u64::MAX);
        now.checked_add(Duration::from_millis(with_jitter(milliseconds)))
    }

    /// The limit that `worker` has reached, if it has so much `memory`.
    pub(super) fn limit_reached(
        &self,
        worker: &Worker,
        memory: impl FnOnce() -> Option<u64>,
        now: Instant,
    ) -> Option<LimitReached> {
        if worker.expires.is_some_and(|expires| expires <= now) {
            return Some(LimitReached::Age);
        }
        let limit = self.max_memory?;
        memory().filter(|&bytes| bytes > limit).map(LimitReached::Memory)
    }
}
