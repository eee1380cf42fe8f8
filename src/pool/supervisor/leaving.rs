//! Workers that were asked to stop, each with the time at which it is killed.

use std::time::Instant;

use rustix::process::Pid;
use wire::running_clock;

use crate::pool::supervisor::slots::MAX_RETRY_PAUSE;

/// All workers that were asked to stop and have not exited.
#[derive(Default)]
pub(super) struct LeavingWorkers {
    all: Vec<LeavingWorker>,
}

/// Worker that was asked to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeavingWorker {
    pub(super) pid: Pid,
    /// The worker's block of scoreboard lines.
    pub(super) block: u32,
    /// Time at which it was asked.
    pub(super) asked: Instant,
    /// Time at which the worker is killed.
    pub(super) due: Instant,
    /// The worker was killed, and its template has not reported the exit yet.
    pub(super) is_killed: bool,
}

impl LeavingWorkers {
    /// Adds a worker, which is killed at `due`.
    pub(super) fn add(&mut self, pid: Pid, block: u32, due: Instant) {
        let asked = running_clock::instant();
        self.all.push(LeavingWorker { pid, block, asked, due, is_killed: false });
    }

    /// Removes a worker that has exited. Returns the worker, if it was asked to stop.
    pub(super) fn remove(&mut self, pid: Pid) -> Option<LeavingWorker> {
        let position = self.all.iter().position(|leaving| leaving.pid == pid)?;
        Some(self.all.swap_remove(position))
    }

    /// Removes the workers of these blocks.
    pub(super) fn remove_blocks(&mut self, blocks: &[u32]) {
        self.all.retain(|leaving| !blocks.contains(&leaving.block));
    }

    /// All workers that were asked to stop.
    pub(super) fn iter(&self) -> impl Iterator<Item = &LeavingWorker> {
        self.all.iter()
    }

    /// Are there no such workers?
    pub(super) fn are_none(&self) -> bool {
        self.all.is_empty()
    }

    /// Was the worker with this pid asked to stop?
    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.all.iter().any(|leaving| leaving.pid == pid)
    }

    /// Makes the workers with these pids overdue.
    pub(super) fn expire(&mut self, pids: &[Pid], now: Instant) {
        for leaving in self.all.iter_mut().filter(|leaving| pids.contains(&leaving.pid)) {
            leaving.due = now;
        }
    }

    /// Workers that must be killed now. If the exit of a worker is not reported, the worker is
    /// returned again later.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<Pid> {
        let overdue = self.all.iter_mut().filter(|leaving| leaving.due <= now);
        overdue
            .map(|leaving| {
                (leaving.due, leaving.is_killed) = (now + MAX_RETRY_PAUSE, true);
                leaving.pid
            })
            .collect()
    }

    /// Time at which the next worker is killed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.all.iter().map(|leaving| leaving.due).min()
    }
}

/// Has the process exited? Its template, which is to report that, may be stopped.
pub(super) fn has_exited(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_overdue_worker_is_killed_and_killed_again_later() {
        let now = Instant::now();
        let pid = |number| Pid::from_raw(number).unwrap();
        let mut leaving = LeavingWorkers::default();
        leaving.add(pid(1), 0, now + Duration::from_secs(30));
        leaving.add(pid(2), 1, now + Duration::from_secs(60));
        assert_eq!(leaving.next_due(), Some(now + Duration::from_secs(30)));
        assert_eq!(leaving.take_overdue(now), []);
        leaving.expire(&[pid(2)], now);
        assert_eq!(leaving.take_overdue(now), [pid(2)]);
        assert_eq!(leaving.take_overdue(now), []);
        assert_eq!(leaving.take_overdue(now + MAX_RETRY_PAUSE), [pid(2)]);
        assert_eq!(leaving.remove(pid(2)).map(|removed| removed.block), Some(1));
        assert!(leaving.remove(pid(2)).is_none());
        leaving.remove_blocks(&[0]);
        assert!(leaving.are_none());
    }
}
