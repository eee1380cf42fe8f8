//! Lifetime of a pool. A warm pool stops by itself: when it is idle, too old, or useless.

use std::{
    fs, io,
    io::Write as _,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::fs::{FlockOperation, flock};
use wire::running_clock;

use crate::{
    config::warm_pool::ONE_PROCESS,
    pool::supervisor::{action::Action, config::OnDemand, lifecycle::Event},
};

/// Workers in a row that fail at their start before a warm pool gives up.
const MAX_FAILED_STARTS: u32 = 3;

/// Lifetime of a pool.
#[derive(Debug)]
pub(super) struct Lifetime {
    /// `None` if the pool never stops by itself.
    on_demand: Option<OnDemand>,
    started: Instant,
    last_request: Instant,
}

impl Lifetime {
    /// The lifetime of a pool that starts now.
    pub(super) fn new(on_demand: Option<OnDemand>) -> Self {
        let now = running_clock::instant();
        Self { on_demand, started: now, last_request: now }
    }

    /// Counts the age of a pool from `age` ago.
    pub(super) fn started_before(&mut self, age: Duration) {
        self.started = self.started.checked_sub(age).unwrap_or(self.started);
    }

    /// Age of the pool.
    pub(super) fn age(&self) -> Duration {
        running_clock::elapsed(self.started)
    }

    /// Records that a request was served a moment ago.
    pub(super) fn note_request(&mut self) {
        self.last_request = running_clock::instant();
    }

    /// Stops the pool if it has reached its maximum age or its idle timeout. `last_request` is the
    /// time since the current workers served a request.
    pub(super) fn check(&mut self, last_request: impl FnOnce() -> Option<Duration>) -> Vec<Action> {
        if !is_over(self.next_due()) {
            return Vec::new();
        }
        if is_over(self.age_due()) {
            let message = LogMessage::new(
                Code::WarmPoolOld,
                format!(
                    "stopping the warm pool: --warm-age reached ({} s); the next request starts \
                     another",
                    self.age().as_secs()
                ),
            );
            return vec![Action::Log(message), Action::Raise(Event::Stop)];
        }
        let last = last_request().and_then(|ago| running_clock::instant().checked_sub(ago));
        self.last_request = last.map_or(self.last_request, |last| self.last_request.max(last));
        let is_idle = is_over(self.idle_due());
        is_idle.then_some(Action::Raise(Event::Stop)).into_iter().collect()
    }

    /// Gives up a warm pool whose workers fail at their start one after the other: requests would
    /// wait for it. Gateways do not start another for some time.
    pub(super) fn check_starts(&self, failures: u32) -> Vec<Action> {
        if self.on_demand.is_none() || failures < MAX_FAILED_STARTS {
            return Vec::new();
        }
        let message = LogMessage::new(
            Code::PoolEnds,
            format!(
                "stopping the warm pool: {failures} processes in a row exited before they took a \
                 request, or could not be forked"
            ),
        );
        vec![Action::Log(message), Action::Raise(Event::CannotServe)]
    }

    /// Marks the lock file: gateways run the application by cold CGI until the code changes or a
    /// day has passed.
    pub(super) fn forbid_warm(&self) {
        // If the write fails, gateways only try again sooner.
        let _ = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map(|lock| fs::File::from(lock).write_all(ONE_PROCESS));
    }

    /// Releases the lock file of a warm pool that stops, so that another pool can start while this
    /// one finishes its requests.
    pub(super) fn release_lock(&self) {
        let Some(on_demand) = &self.on_demand else { return };
        // The file is removed while locked: a gateway that opens the file now finds another one at
        // its path.
        let _ = fs::remove_file(&on_demand.lock);
        // If this fails, the next pool starts when this one has exited.
        let _ = flock(io::stdin(), FlockOperation::Unlock);
    }

    /// Does the pool stop by itself?
    pub(super) fn is_limited(&self) -> bool {
        self.on_demand.is_some()
    }

    /// Time at which the pool stops if no request comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.idle_due().into_iter().chain(self.age_due()).min()
    }

    fn idle_due(&self) -> Option<Instant> {
        self.last_request.checked_add(self.on_demand.as_ref()?.idle)
    }

    fn age_due(&self) -> Option<Instant> {
        self.started.checked_add(self.on_demand.as_ref()?.max_age?)
    }
}

fn is_over(due: Option<Instant>) -> bool {
    due.is_some_and(|due| running_clock::instant() >= due)
}
