//! Workers that did not exit in time.

use std::time::Instant;

use rustix::process::{Pid, Signal};
use wire::running_clock;

use crate::pool::supervisor::{action::Action, leaving::has_exited, messages, workers::Workers};

impl Workers {
    /// Kills workers that did not exit in time.
    pub(in crate::pool::supervisor) fn kill_overdue(&mut self) -> Vec<Action> {
        let now = running_clock::instant();
        let staying = self.expire_staying(now);
        let logged = staying.into_iter().filter(|pid| !has_exited(*pid));
        let mut actions: Vec<Action> =
            logged.map(|pid| Action::Log(messages::worker_stays(pid))).collect();
        let first_kills = self
            .leaving
            .iter()
            .filter(|leaving| leaving.due <= now && !leaving.is_killed && !has_exited(leaving.pid));
        actions.extend(first_kills.filter_map(|leaving| {
            let requests = self.blocks.requests_of(leaving.pid);
            messages::requests_killed(leaving.pid, &requests).map(Action::Log)
        }));
        let overdue = self.leaving.take_overdue(now);
        actions.extend(overdue.into_iter().map(|pid| Action::Signal(pid, Signal::KILL)));
        actions
    }

    /// Makes the workers overdue that have stopped serving for `linger` and did not exit, so that
    /// they do not occupy a slot. Returns their pids.
    fn expire_staying(&mut self, now: Instant) -> Vec<Pid> {
        let has_lingered = |pid, block| {
            self.blocks.left_for(pid, block).is_some_and(|time| time >= self.rules.linger)
        };
        let done =
            self.slots.workers().filter(|(_, worker)| has_lingered(worker.pid, worker.block));
        let done: Vec<usize> = done.map(|(slot, _)| slot).collect();
        let leaving = self.leaving.iter().filter(|leaving| !leaving.is_killed);
        let leaving = leaving.filter(|leaving| has_lingered(leaving.pid, leaving.block));
        let mut staying: Vec<Pid> = leaving.map(|leaving| leaving.pid).collect();
        for worker in done.into_iter().filter_map(|slot| self.slots.vacate(slot)) {
            staying.push(worker.pid);
            self.leaving.add(worker.pid, worker.block, now);
        }
        self.leaving.expire(&staying, now);
        staying
    }

    /// Time at which workers may have to be killed.
    pub(in crate::pool::supervisor) fn next_kill(&self, now: Instant) -> Option<Instant> {
        let serving = self.slots.workers().map(|(_, worker)| (worker.pid, worker.block));
        let leaving = self.leaving.iter().filter(|leaving| !leaving.is_killed);
        let leaving = leaving.map(|leaving| (leaving.pid, leaving.block));
        let left =
            serving.chain(leaving).filter_map(|(pid, block)| self.blocks.left_for(pid, block));
        let lingering =
            left.filter_map(|time| now.checked_add(self.rules.linger.saturating_sub(time)));
        lingering.chain(self.leaving.next_due()).min()
    }
}
