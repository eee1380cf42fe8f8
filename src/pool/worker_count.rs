//! The number of workers of a pool that starts, and log messages about limits that hold fewer.

use diagnostics::message::{Code, LogMessage};

use crate::{
    config::worker_budget::{
        EXPECTED_WORKER_BYTES, MIN_WORKER_BYTES, POOL_PROCESSES, Part, PoolUse, WorkerBudget,
        WorkerNeed, processors, within,
    },
    system::limits::{Limit, Limits},
};

/// The limits count this process, which is the supervisor.
const SUPERVISOR: PoolUse = PoolUse { processes: 1, bytes: 0 };

/// The number of workers without `--workers`, and the message if that is not one for each
/// processor.
pub(super) fn default_workers(threads: u32) -> (u32, Option<LogMessage>) {
    let most = processors();
    let need = WorkerNeed { processes: threads.into(), bytes: EXPECTED_WORKER_BYTES };
    match within(&Limits::now(), Part::Half, SUPERVISOR, need) {
        Some(budget) if budget.workers < most => {
            let message = fewer_workers(&budget, &format!("{most} for the processors"));
            (budget.workers, Some(message.hint("set --workers for another number")))
        }
        _ => (most, None),
    }
}

/// The number of spare workers of a warm pool, of which there are `spare` where limits allow that.
pub(super) fn spare_workers(spare: u32) -> u32 {
    let need = WorkerNeed { processes: 1, bytes: EXPECTED_WORKER_BYTES };
    let budget = within(&Limits::now(), Part::Half, SUPERVISOR, need);
    budget.map_or(spare, |budget| spare.min(budget.workers))
}

/// The warning if the limits do not hold `workers` workers, which `option` sets.
pub(super) fn check_limits(option: &str, workers: u32, threads: u32) -> Option<LogMessage> {
    if workers == 1 && threads == 1 {
        // A pool cannot be smaller.
        return None;
    }
    let need = WorkerNeed { processes: threads.into(), bytes: MIN_WORKER_BYTES };
    let budget = within(&Limits::now(), Part::All, SUPERVISOR, need)?;
    let is_exceeded = budget.workers < workers || !holds_one(&budget.limit, need);
    is_exceeded.then(|| {
        let needed = if is_of_memory(&budget.limit) {
            format!("at least {} MB of memory", (u64::from(workers) * need.bytes) >> 20)
        } else {
            let processes = u64::from(workers) * need.processes + POOL_PROCESSES;
            format!("{processes} processes and threads")
        };
        LogMessage::new(
            Code::LimitsTooLow,
            format!("--{option} {workers} needs {needed}, but {}", left(&budget.limit)),
        )
        .hint(format!(
            "lower --{option}, or raise the limit; workers that cannot be forked are tried again \
             (W0704)"
        ))
    })
}

/// Does the limit hold one worker?
fn holds_one(limit: &Limit, need: WorkerNeed) -> bool {
    let (needed, own) = if is_of_memory(limit) {
        (need.bytes, SUPERVISOR.bytes)
    } else {
        (need.processes + POOL_PROCESSES, SUPERVISOR.processes)
    };
    limit.left() + own >= needed
}

/// The message about a pool that has fewer workers than `wanted`.
pub(super) fn fewer_workers(budget: &WorkerBudget, wanted: &str) -> LogMessage {
    LogMessage::new(
        Code::FewerWorkers,
        format!(
            "the pool has up to {} workers instead of {wanted}: a pool uses half of what other \
             processes leave, and {}",
            budget.workers,
            left(&budget.limit)
        ),
    )
}

fn is_of_memory(limit: &Limit) -> bool {
    limit.name.starts_with("memory")
}

/// What is left of a limit, as a clause.
fn left(limit: &Limit) -> String {
    let Limit { name, max, .. } = limit;
    if is_of_memory(limit) {
        format!("{name} leaves {} of {} MB", limit.left() >> 20, max >> 20)
    } else {
        format!("{name} leaves {} of {max} processes and threads", limit.left())
    }
}
