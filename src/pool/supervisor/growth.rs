//! The growth of a pool without a maximum of its own: up to half of what the limits of processes
//! and memory leave.

use std::time::{Duration, Instant};

use diagnostics::message::LogMessage;
use rustix::process::Pid;

use crate::{
    config::worker_budget::{
        EXPECTED_WORKER_BYTES, MAX_DEFAULT_WARM_WORKERS, MIN_WORKER_BYTES, POOL_PROCESSES, Part,
        PoolUse, WARM_REQUEST_PROCESSES, WorkerNeed, within,
    },
    pool::{supervisor::scaling::Scale, worker_count},
    system::{limits::Limits, processes::ProcessMemory},
};

/// The shortest time between two checks, which read the status of every process.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The maximum number of workers that the limits allow.
pub(super) struct GrowthLimit {
    is_active: bool,
    /// Time of the last check.
    last: Option<Instant>,
    is_logged: bool,
}

impl GrowthLimit {
    /// The limit of a pool, if its maximum is to depend on what the limits leave.
    pub(super) fn new(is_active: bool) -> Self {
        Self { is_active, last: None, is_logged: false }
    }

    /// Sets the maximum of `scale` for a pool that has `workers` now, if it `is_growing`. The
    /// message is for the log, if there is no room for another worker.
    pub(super) fn check(
        &mut self,
        is_growing: bool,
        workers: impl Iterator<Item = Pid>,
        scale: &mut Scale,
        now: Instant,
    ) -> Option<LogMessage> {
        let is_recent = |last: Instant| now.saturating_duration_since(last) < CHECK_INTERVAL;
        if !self.is_active || !is_growing || self.last.is_some_and(is_recent) {
            return None;
        }
        self.last = Some(now);
        let workers: Vec<i32> = workers.map(|pid| pid.as_raw_nonzero().get()).collect();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let limits = Limits::now();
        let mut used = PoolUse { processes: POOL_PROCESSES + number(workers.len()), bytes: 0 };
        let mut need =
            WorkerNeed { processes: WARM_REQUEST_PROCESSES, bytes: EXPECTED_WORKER_BYTES };
        // Measuring takes time.
        if limits.memory.is_some() {
            let memory = workers.iter().filter_map(|&pid| ProcessMemory::of(pid));
            let private: Vec<u64> = memory.map(|memory| memory.private).collect();
            used.bytes = private.iter().sum();
            if let Some(average) = used.bytes.checked_div(number(private.len())) {
                need.bytes = average.max(MIN_WORKER_BYTES);
            }
        }
        let budget = within(&limits, Part::Half, used, need);
        let most = budget.as_ref().map_or(u32::MAX, |budget| budget.workers);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        scale.allow(most);
        let budget = budget.filter(|_| most <= workers.len() && !self.is_logged)?;
        self.is_logged = true;
        let message = worker_count::fewer_workers(&budget, &MAX_DEFAULT_WARM_WORKERS.to_string());
        Some(message.hint(
            "further requests wait for a worker, and fall back to cold CGI after --queue; set \
             --max-processes for another number",
        ))
    }
}
