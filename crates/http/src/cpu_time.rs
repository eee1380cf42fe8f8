//! Processor time of the workers of a pool, those that have exited included.

use std::{collections::BTreeMap, time::Duration};

use control::pool_status::PoolStatus;

/// Processor time that a monitor has seen. Time that a worker spends between the last look and its
/// exit is not counted.
#[derive(Debug, Default)]
pub(crate) struct CpuTime {
    total_milliseconds: u64,
    /// The time of each worker at the last look, by its process id.
    workers: BTreeMap<i32, u64>,
}

impl CpuTime {
    /// Adds the time that the workers have spent since the last look.
    pub(crate) fn add(&mut self, status: &PoolStatus) {
        let now: BTreeMap<i32, u64> =
            status.workers.iter().map(|worker| (worker.pid, worker.cpu_milliseconds)).collect();
        for (pid, milliseconds) in &now {
            // Another process may have the id of an earlier one.
            let before = self.workers.get(pid).filter(|before| *before <= milliseconds);
            let spent = milliseconds - before.unwrap_or(&0);
            self.total_milliseconds = self.total_milliseconds.saturating_add(spent);
        }
        self.workers = now;
    }

    /// The time of all workers together.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.total_milliseconds)
    }
}
