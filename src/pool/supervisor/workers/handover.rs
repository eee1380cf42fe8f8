//! How workers are handed over to the next program of an upgrade.

use std::time::Duration;

use rustix::process::Pid;
use wire::running_clock;

use crate::pool::{
    handover::HandedWorker,
    supervisor::{
        action::Action,
        slots::Worker,
        workers::{START_TIME, Workers},
    },
};

/// All workers, for the next program.
pub(in crate::pool::supervisor) fn hand_over(workers: &Workers) -> Vec<HandedWorker> {
    let now = running_clock::instant();
    let number = |pid: Pid| pid.as_raw_nonzero().get();
    let serving = workers.slots.workers().map(|(_, worker)| HandedWorker {
        pid: number(worker.pid),
        generation: worker.generation,
        leaving: None,
    });
    let leaving = workers.leaving.iter().filter_map(|leaving| {
        let left = leaving.due.saturating_duration_since(now).as_millis();
        Some(HandedWorker {
            pid: number(leaving.pid),
            generation: workers.blocks.holder(leaving.block)?,
            leaving: Some(u64::try_from(left).unwrap_or(u64::MAX)),
        })
    });
    serving.chain(leaving).collect()
}

/// Takes over the workers of the previous program. Each occupies a slot until a new worker replaces
/// it, and scoreboard lines, which it does not write: its own may have another layout.
pub(in crate::pool::supervisor) fn take_over(
    workers: &mut Workers,
    handed: &[HandedWorker],
) -> Vec<Action> {
    let now = running_clock::instant();
    let mut actions = Vec::new();
    for handed in handed {
        let Some(pid) = Pid::from_raw(handed.pid) else { continue };
        // A pool of fewer workers has no room for all. A worker without lines is not in the list of
        // those who leave, and exits with its template at the latest.
        let Some(block) = workers.blocks.take(handed.generation) else {
            actions.extend(Action::stop(pid));
            continue;
        };
        if let Some(left) = handed.leaving {
            workers.leaving.add(pid, block, now + Duration::from_millis(left));
            continue;
        }
        let worker = Worker {
            pid,
            generation: handed.generation,
            block,
            // Its start has not failed.
            started: now.checked_sub(START_TIME).unwrap_or(now),
            expires: None,
            limit_reached: None,
            idle_before: Duration::ZERO,
        };
        if !workers.slots.take_over(worker) {
            actions.extend(workers.stop(pid, block));
        }
    }
    actions
}
