//! Owner of the workers: slots, scaling, and workers that were asked to stop.

pub(super) mod handover;
mod overdue;

use std::{
    process::ExitStatus,
    rc::Rc,
    time::{Duration, Instant},
};

use control::pool_status::WorkerStatus;
use rustix::process::Pid;
use wire::{
    running_clock,
    scoreboard::{Scoreboard, ThreadCounts},
};

use crate::pool::supervisor::{
    action::{Action, ReplaceReason, WorkerEvent},
    blocks::Blocks,
    config::{PoolConfig, ReloadableConfig},
    exit_reasons::ExitReasons,
    growth::GrowthLimit,
    leaving::LeavingWorkers,
    messages,
    scaling::{Crowd, Scale},
    slots::{Slots, Worker, WorkerOrder},
    worker_rules::WorkerRules,
};

/// A worker that exits earlier than this and has served no request failed at its start.
const START_TIME: Duration = Duration::from_secs(1);

/// Pause after an order that could not be sent.
const ORDER_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// How long a worker may take to stop accepting connections, if its scoreboard lines do not say
/// when it does: a worker of the previous program, or one that was asked before it was ready.
const UNSEEN_TIME: Duration = Duration::from_millis(500);

/// All workers of a pool.
pub(super) struct Workers {
    slots: Slots,
    blocks: Blocks,
    scale: Scale,
    growth: GrowthLimit,
    leaving: LeavingWorkers,
    /// No worker is replaced or started any more.
    is_stopping: bool,
    /// A replacement runs before its predecessor stops. Otherwise the number of processes never
    /// exceeds the maximum.
    has_spare_blocks: bool,
    /// Web servers kill the gateways of this pool, and gateways kill its workers.
    is_warm: bool,
    rules: WorkerRules,
    exit_reasons: ExitReasons,
}

impl Workers {
    /// The workers of a pool that is starting.
    pub(super) fn new(config: &PoolConfig, scoreboard: Rc<Scoreboard>) -> Self {
        let service = &config.reloadable.service;
        let max = number(service.workers);
        let blocks = max * number(config.blocks_per_worker);
        Self {
            slots: Slots::new(max, running_clock::instant()),
            blocks: Blocks::new(blocks, number(service.threads), scoreboard),
            scale: Scale::new(number(config.reloadable.min_workers), max, config.reloadable.idle),
            growth: GrowthLimit::new(config.grows_within_limits),
            leaving: LeavingWorkers::default(),
            is_stopping: false,
            has_spare_blocks: config.blocks_per_worker > 1,
            is_warm: service.warm,
            rules: WorkerRules::of(&config.reloadable),
            exit_reasons: ExitReasons::new(service),
        }
    }

    /// Changes the number and the limits of workers. Workers above the maximum are asked to stop.
    pub(super) fn set_config(&mut self, config: &ReloadableConfig) -> Vec<Action> {
        let max = number(config.service.workers);
        self.rules = WorkerRules::of(config);
        self.exit_reasons.set_service(&config.service);
        self.scale.set_limits(number(config.min_workers), max, config.idle);
        self.blocks.grow(max * if self.has_spare_blocks { 2 } else { 1 });
        let removed = self.slots.resize(max, running_clock::instant());
        removed.iter().flat_map(|worker| self.stop(worker.pid, worker.block)).collect()
    }

    /// Updates the state for `event`.
    pub(super) fn on_event(&mut self, event: WorkerEvent) -> Vec<Action> {
        let now = running_clock::instant();
        match event {
            WorkerEvent::Started(order, pid) => self.on_started(order, pid, now),
            WorkerEvent::NotOrdered(order) => {
                self.blocks.free(order.block);
                self.slots.delay(order, now + ORDER_RETRY_PAUSE);
                Vec::new()
            }
            WorkerEvent::ForkFailed(order, error) => {
                self.blocks.free(order.block);
                self.slots.start_failed(order, now);
                vec![Action::Log(messages::fork_failed(error))]
            }
            WorkerEvent::StartFailed(order) => {
                self.blocks.free(order.block);
                self.slots.start_failed(order, now);
                vec![Action::NoteLoadFailure]
            }
            WorkerEvent::Exited(pid, status) => self.on_exited(pid, status, now),
            WorkerEvent::TimedOut(pid) => {
                self.exit_reasons.note_timeout(pid);
                Vec::new()
            }
            WorkerEvent::TemplateExited { generation } => {
                let workers = self.slots.workers();
                let lost = workers.filter(|(_, worker)| worker.generation == generation);
                let actions = lost.map(|_| Action::replacement(ReplaceReason::Crash)).collect();
                self.slots.end_generation(generation);
                self.leaving.remove_blocks(&self.blocks.free_generation(generation));
                actions
            }
            WorkerEvent::PoolStops => {
                self.is_stopping = true;
                let workers = self.slots.vacate_all();
                workers.iter().flat_map(|worker| self.stop(worker.pid, worker.block)).collect()
            }
        }
    }

    fn on_started(&mut self, order: WorkerOrder, pid: Pid, now: Instant) -> Vec<Action> {
        let replaced = self.slots.replaced_by(order);
        let idle_before = replaced.and_then(|worker| self.blocks.idle_for(&worker));
        let worker = Worker {
            pid,
            generation: order.generation,
            block: order.block,
            started: now,
            expires: self.rules.expiry(now),
            limit_reached: None,
            idle_before: idle_before.unwrap_or_default(),
        };
        if self.is_stopping || !self.slots.fill(order, worker) {
            return self.stop(pid, order.block);
        }
        // The old worker stops when the new one is running, so that the pool never shrinks.
        let mut actions = vec![Action::NoteLoadSuccess];
        if let Some(old) = replaced {
            actions.extend(self.replace(&old, now));
        }
        actions
    }

    fn on_exited(&mut self, pid: Pid, status: ExitStatus, now: Instant) -> Vec<Action> {
        let timed_out = self.exit_reasons.take_timed_out(pid);
        if let Some(leaving) = self.leaving.remove(pid) {
            self.blocks.free(leaving.block);
            let has_crashed = !status.success() && !leaving.is_killed && !timed_out;
            return has_crashed.then(|| Action::crash(status)).into_iter().collect();
        }
        let found = self.slots.workers().find(|(_, worker)| worker.pid == pid);
        let Some((slot, worker)) = found.map(|(slot, worker)| (slot, *worker)) else {
            return Vec::new();
        };
        let (requests, has_served) = (self.blocks.requests_of(pid), self.blocks.has_served(pid));
        let mut actions = Vec::new();
        if has_served {
            actions.push(Action::NoteRequest);
        }
        self.blocks.free(worker.block);
        let age = now.saturating_duration_since(worker.started);
        // A worker that has served a request did not fail at its start. Otherwise a client that
        // crashes workers could leave the others without a pool.
        let failed_at_start = age < START_TIME && !has_served;
        self.slots.on_exit(slot, failed_at_start, now);
        // An idle worker has exited by --max-requests or another process's SIGTERM. A worker that
        // exits during a request, or before the first, was ended by the application.
        let is_orderly = status.success() && requests.is_empty() && !failed_at_start;
        let reason = self.exit_reasons.of(status, is_orderly, timed_out);
        match reason {
            Some(ReplaceReason::Crash) => actions.push(Action::crash(status)),
            None if !is_orderly => self.blocks.count_aborted(),
            _ => {}
        }
        actions.extend(reason.map(Action::replacement));
        if !is_orderly {
            if failed_at_start {
                self.scale.on_failed_start();
            }
            let message = messages::worker_died(pid, status, age, &requests, self.is_warm);
            actions.push(Action::Log(message));
        }
        actions
    }

    /// Orders workers of `generation` for slots that need one.
    pub(super) fn fill_slots(&mut self, generation: u64) -> Vec<Action> {
        let now = running_clock::instant();
        let mut actions = Vec::new();
        for slot in self.slots.in_need(generation, self.scale.wanted(), now) {
            let Some(block) = self.blocks.take(generation) else {
                // The slot waits for a worker that exits.
                actions.extend(self.make_room(generation, now));
                break;
            };
            let order = WorkerOrder { generation, block };
            self.slots.order(slot, order);
            actions.push(Action::Fork(order));
        }
        actions
    }

    /// Stops a stale worker if the pool may not exceed its maximum: an idle one, or a busy one
    /// after its request.
    fn make_room(&mut self, generation: u64, now: Instant) -> Vec<Action> {
        // A leaving worker that is idle exits soon, and frees a slot.
        let is_leaving_idle =
            self.leaving.iter().any(|leaving| !self.blocks.is_busy(leaving.block));
        if self.has_spare_blocks || is_leaving_idle {
            return Vec::new();
        }
        let stale = self.slots.workers().filter(|(_, worker)| worker.is_stale(generation));
        let chosen = stale.min_by_key(|(_, worker)| self.blocks.idle_for(worker).is_none());
        let chosen = chosen.map(|(slot, _)| slot).and_then(|slot| self.slots.vacate(slot));
        chosen.map(|worker| self.replace(&worker, now)).unwrap_or_default()
    }

    fn replace(&mut self, worker: &Worker, now: Instant) -> Vec<Action> {
        let age = now.saturating_duration_since(worker.started);
        let message =
            worker.limit_reached.map(|limit| messages::worker_replaced(worker.pid, limit, age));
        let mut actions: Vec<Action> = message.map(Action::Log).into_iter().collect();
        actions.push(Action::replacement(ReplaceReason::of_limit(worker.limit_reached)));
        actions.extend(self.stop(worker.pid, worker.block));
        actions
    }

    /// Asks a worker to stop, and gives it `--drain` for its requests.
    fn stop(&mut self, pid: Pid, block: u32) -> Vec<Action> {
        self.leaving.add(pid, block, running_clock::instant() + self.rules.drain);
        Action::stop(pid)
    }

    /// Discards the result of the last check of the scale.
    pub(super) fn begin_check(&mut self) {
        self.scale.begin_check();
        self.blocks.cancel_bell();
    }

    /// Decides the number of workers, and stops surplus workers. `may_rest` says whether the
    /// template could be released, `connections_wait` whether accept queues are not empty; its
    /// argument says whether there is a worker.
    pub(super) fn check_scale(
        &mut self,
        may_rest: bool,
        connections_wait: impl FnOnce(bool) -> bool,
    ) -> Vec<Action> {
        let now = running_clock::instant();
        self.slots.check_limits(|worker| {
            self.rules.limit_reached(worker, || self.blocks.memory(worker.block), now)
        });
        self.blocks.set_capacity(self.scale.max());
        if self.scale.is_fixed() {
            return Vec::new();
        }
        let (mut actions, longest) = self.stop_idle();
        if self.scale.rests(may_rest && self.slots.are_empty(), now) {
            actions.push(Action::Rest);
        }
        if self.scale.may_grow(self.count()) && !self.is_start_pending(now) {
            actions.extend(self.check_crowd(connections_wait, now));
        }
        self.scale.end_check(longest, now);
        actions
    }

    /// Stops workers that have been idle for long, the longest first. Returns how long the longest
    /// idle worker that stays has been idle, too.
    fn stop_idle(&mut self) -> (Vec<Action>, Option<Duration>) {
        let idle = self.slots.unreplaced();
        let idle = idle.filter_map(|(slot, worker)| Some((self.blocks.idle_for(worker)?, slot)));
        let mut idle: Vec<(Duration, usize)> = idle.collect();
        idle.sort_unstable();
        let mut actions = Vec::new();
        while let Some((longest, slot)) = idle.pop() {
            if !self.scale.stops_idle_worker(longest) {
                return (actions, Some(longest));
            }
            if let Some(worker) = self.slots.vacate(slot) {
                actions.push(Action::replacement(ReplaceReason::Idle));
                actions.extend(self.stop(worker.pid, worker.block));
            }
        }
        (actions, None)
    }

    /// Is a worker starting, or is a slot waiting after a failure? Then no more are ordered.
    fn is_start_pending(&self, now: Instant) -> bool {
        self.slots.has_order()
            || self.slots.is_delayed(now)
            || self.slots.workers().any(|(_, worker)| !self.blocks.has_begun(worker))
    }

    fn check_crowd(&mut self, waits: impl FnOnce(bool) -> bool, now: Instant) -> Option<Action> {
        if self.blocks.has_idle_or_asks_for_bell() {
            self.scale.on_idle_thread();
            return None;
        }
        let has_worker = self.has_worker();
        if self.scale.on_crowd(has_worker, now) == Crowd::Settling {
            return None;
        }
        let is_waiting = waits(has_worker);
        let workers = self.slots.workers().map(|(_, worker)| worker.pid);
        let message = self.growth.check(is_waiting, workers, &mut self.scale, now);
        self.scale.on_lasting_crowd(is_waiting, now);
        message.map(Action::Log)
    }

    /// Wants no more workers than the minimum.
    pub(super) fn shrink_to_min(&mut self) {
        self.scale.shrink_to_min();
    }

    /// Time at which a worker may be needed although no event happens.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.slots.next_due(now).into_iter().chain(self.scale.next_check()).min()
    }

    /// The scale.
    pub(super) fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Is there a worker that serves?
    pub(super) fn has_worker(&self) -> bool {
        self.slots.workers().next().is_some()
    }

    /// Number of workers that serve.
    pub(super) fn count(&self) -> usize {
        self.slots.workers().count()
    }

    /// Has a worker been ordered that is not running yet?
    pub(super) fn has_order(&self) -> bool {
        self.slots.has_order()
    }

    /// Failures in a row of the slot with the most of them.
    pub(super) fn max_failures(&self) -> u32 {
        self.slots.max_failures()
    }

    /// Failures in a row of all slots together, if no worker serves or finishes its requests.
    pub(super) fn useless_starts(&self) -> u32 {
        let is_running = self.has_worker() || !self.leaving.are_none();
        if is_running { 0 } else { self.slots.total_failures() }
    }

    /// Is `pid` one of the workers? Otherwise the number may belong to another process.
    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.slots.workers().any(|(_, worker)| worker.pid == pid) || self.leaving.contains(pid)
    }

    /// May a worker of another generation take a request that arrives now?
    pub(super) fn has_older(&self, generation: u64) -> bool {
        let now = running_clock::instant();
        self.slots.workers().any(|(_, worker)| worker.generation != generation)
            || self.leaving.iter().any(|leaving| {
                self.blocks.holder(leaving.block) != Some(generation)
                    && self
                        .blocks
                        .may_accept(leaving.pid, leaving.block)
                        .unwrap_or(now < leaving.asked + UNSEEN_TIME)
            })
    }

    /// How long ago a request was served; zero if one is being served.
    pub(super) fn last_request(&self) -> Option<Duration> {
        self.blocks.last_request()
    }

    /// Requests and responses since the start of the pool.
    pub(super) fn counts(&self) -> ThreadCounts {
        self.blocks.counts()
    }

    /// Status of all threads.
    pub(super) fn status(&self) -> Vec<WorkerStatus> {
        self.blocks.status(|pid| self.contains(pid), |pid| self.leaving.contains(pid))
    }
}

fn number(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
