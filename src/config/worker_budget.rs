//! The number of workers that the limits of processes and memory hold. Every default number of
//! workers comes from here.

use std::thread;

use crate::system::limits::{Limit, Limits};

/// Most workers of a warm pool without `--max-processes`.
pub(crate) const MAX_DEFAULT_WARM_WORKERS: u32 = 64;

/// Processes of a pool besides its workers: the supervisor and the template process.
pub(crate) const POOL_PROCESSES: u64 = 2;

/// Processes of a request that a warm pool serves: the worker and the gateway of the web server.
pub(crate) const WARM_REQUEST_PROCESSES: u64 = 2;

/// Memory that a worker is expected to need before its memory can be measured.
pub(crate) const EXPECTED_WORKER_BYTES: u64 = 32 << 20;

/// Memory that a worker needs at least, and that no measurement goes below.
pub(crate) const MIN_WORKER_BYTES: u64 = 4 << 20;

/// What one more worker needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerNeed {
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Bytes of memory.
    pub(crate) bytes: u64,
}

/// What the workers of a pool, and the pool itself, use already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolUse {
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Bytes of memory.
    pub(crate) bytes: u64,
}

/// The number of workers that a limit holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkerBudget {
    pub(crate) workers: u32,
    /// The limit that allows no more.
    pub(crate) limit: Limit,
}

/// The part of what is left that a pool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Half of it, for defaults: other processes of this user need the rest.
    Half,
    /// All of it, for numbers that the administrator sets.
    All,
}

/// The number of workers that `part` of the limits holds, at least 1. `None` without a limit.
pub(crate) fn within(
    limits: &Limits,
    part: Part,
    used: PoolUse,
    need: WorkerNeed,
) -> Option<WorkerBudget> {
    let divisor = if part == Part::Half { 2 } else { 1 };
    let workers = |limit: &Limit, used: u64, fixed: u64, each: u64| WorkerBudget {
        workers: u32::try_from(
            (limit.left().saturating_add(used) / divisor).saturating_sub(fixed) / each.max(1),
        )
        .unwrap_or(u32::MAX)
        .max(1),
        limit: limit.clone(),
    };
    let processes = limits
        .processes
        .iter()
        .map(|limit| workers(limit, used.processes, POOL_PROCESSES, need.processes));
    let memory = limits.memory.iter().map(|limit| workers(limit, used.bytes, 0, need.bytes));
    processes.chain(memory).min_by_key(|budget| budget.workers)
}

/// The number of processors that this process may use, as far as its control group allows.
pub(crate) fn processors() -> u32 {
    thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: WorkerNeed = WorkerNeed { processes: 2, bytes: 32 << 20 };

    fn limits(left: u64, bytes_left: u64) -> Limits {
        let processes = Limit { name: "RLIMIT_NPROC", max: left + 7, used: 7 };
        let memory = Limit { name: "memory.max", max: bytes_left + 9, used: 9 };
        Limits { processes: Some(processes), memory: Some(memory), address_space: None }
    }

    #[test]
    fn a_default_takes_half_of_what_is_left_and_an_option_all_of_it() {
        for (left, megabytes, part, expected, name) in [
            (100, 10_000, Part::Half, 24, "RLIMIT_NPROC"),
            (100, 10_000, Part::All, 49, "RLIMIT_NPROC"),
            (100, 512, Part::Half, 8, "memory.max"),
            (0, 512, Part::Half, 1, "RLIMIT_NPROC"),
            (100, 1, Part::All, 1, "memory.max"),
        ] {
            let limits = limits(left, megabytes << 20);
            let budget = within(&limits, part, PoolUse::default(), NEED).unwrap();
            assert_eq!((budget.workers, budget.limit.name), (expected, name), "{left} {megabytes}");
        }
        let none = Limits::default();
        assert_eq!(within(&none, Part::Half, PoolUse::default(), NEED), None);
    }

    #[test]
    fn the_processes_of_the_pool_itself_do_not_shrink_its_budget() {
        let before = within(&limits(100, 1 << 40), Part::Half, PoolUse::default(), NEED);
        let used = PoolUse { processes: 40, bytes: 0 };
        let after = within(&limits(60, 1 << 40), Part::Half, used, NEED);
        assert_eq!(before.map(|it| it.workers), after.map(|it| it.workers));
    }
}
