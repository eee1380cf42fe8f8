//! Owner of the statistics: events since the start of the pool, for its status.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::{SystemTime, UNIX_EPOCH},
};

use control::pool_status::{Counters, LastReload, PoolStatus};
use diagnostics::process_exit::signal_name;

use crate::pool::supervisor::action::{CountedEvent, ReplaceReason};

/// Events since the start of the pool.
pub(super) struct Statistics {
    /// Start of the pool in seconds since 1970.
    started: u64,
    /// The last status of the previous program of this process.
    earlier: PoolStatus,
    counters: Counters,
    last_reload: Option<LastReload>,
}

impl Statistics {
    /// The statistics of a pool that starts now.
    pub(super) fn new() -> Self {
        Self {
            started: unix_time(),
            earlier: PoolStatus::default(),
            counters: Counters::default(),
            last_reload: None,
        }
    }

    /// Start of the pool in seconds since 1970.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Continues the statistics of the previous program of this process.
    pub(super) fn take_over(&mut self, earlier: PoolStatus) {
        self.started = earlier.started;
        self.counters = earlier.counters.clone();
        self.last_reload.clone_from(&earlier.last_reload);
        self.earlier = earlier;
    }

    /// Adds the totals of the previous program to `status`.
    pub(super) fn add_earlier(&self, status: &mut PoolStatus) {
        status.add_earlier(&self.earlier);
    }

    /// Records that a reload has ended now; with a reason, it has failed.
    pub(super) fn note_reload(&mut self, reason: Option<String>) {
        self.last_reload =
            Some(LastReload { time: unix_time(), succeeded: reason.is_none(), reason });
    }

    /// Counts an event.
    pub(super) fn count(&mut self, event: CountedEvent) {
        let counters = &mut self.counters;
        let replaced = &mut counters.replaced;
        let counter = match event {
            CountedEvent::Slow => &mut counters.slow,
            CountedEvent::TimedOut => &mut counters.timed_out,
            CountedEvent::Refused => &mut counters.refused,
            CountedEvent::Crashed(status) => counters.crashed.entry(cause(status)).or_default(),
            CountedEvent::Replaced(ReplaceReason::MaxRequests) => &mut replaced.max_requests,
            CountedEvent::Replaced(ReplaceReason::MaxAge) => &mut replaced.max_age,
            CountedEvent::Replaced(ReplaceReason::MaxRss) => &mut replaced.max_rss,
            CountedEvent::Replaced(ReplaceReason::Reload) => &mut replaced.reload,
            CountedEvent::Replaced(ReplaceReason::Timeout) => &mut replaced.timeout,
            CountedEvent::Replaced(ReplaceReason::Crash) => &mut replaced.crash,
            CountedEvent::Replaced(ReplaceReason::Idle) => &mut replaced.idle,
            CountedEvent::Replaced(ReplaceReason::Exit) => &mut replaced.exit,
        };
        *counter += 1;
    }

    /// The counters.
    pub(super) fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The last reload that has ended.
    pub(super) fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.clone()
    }
}

/// Seconds since 1970.
fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The signal that killed a process, or `exit`.
fn cause(status: ExitStatus) -> String {
    status.signal().map_or_else(|| "exit".to_owned(), signal_name)
}
