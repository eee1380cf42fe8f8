//! Slots for workers, and the slots that need a worker. This module uses no clock and no process.
//!
//! A slot has at most one worker that serves. Its replacement is ordered while that worker still
//! serves; the old worker leaves the slot when the new one is running.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// First and longest pause after failures in a row.
const MIN_RETRY_PAUSE: Duration = Duration::from_millis(50);
pub(super) const MAX_RETRY_PAUSE: Duration = Duration::from_secs(10);

/// All slots of a pool.
pub(super) struct Slots {
    slots: Vec<Slot>,
}

/// Slot for one worker.
#[derive(Clone, Copy, Debug)]
struct Slot {
    worker: Option<Worker>,
    /// The worker that was ordered.
    order: Option<WorkerOrder>,
    /// Earliest time of the next order.
    due: Instant,
    /// Workers in a row that failed at their start.
    failures: u32,
}

/// Worker that was ordered from a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkerOrder {
    /// Generation of the template.
    pub(super) generation: u64,
    /// The worker's block of scoreboard lines.
    pub(super) block: u32,
}

/// Worker that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    /// Generation of its template.
    pub(super) generation: u64,
    /// The worker's block of scoreboard lines.
    pub(super) block: u32,
    pub(super) started: Instant,
    /// Time at which the worker is to be replaced.
    pub(super) expires: Option<Instant>,
    /// Why the worker must be replaced, if it must.
    pub(super) limit_reached: Option<LimitReached>,
    /// How long its predecessor had been idle, which counts for this worker until it has served.
    pub(super) idle_before: Duration,
}

/// The limit that a worker has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// `--max-age`.
    Age,
    /// `--max-rss`: the worker's memory in bytes.
    Memory(u64),
}

impl Slots {
    /// Creates `count` empty slots.
    pub(super) fn new(count: usize, now: Instant) -> Self {
        Self { slots: vec![Slot::new(now); count] }
    }

    /// Changes the number of slots to `count`. Returns the workers of slots that are removed.
    pub(super) fn resize(&mut self, count: usize, now: Instant) -> Vec<Worker> {
        let removed = self.slots.split_off(count.min(self.slots.len()));
        self.slots.resize(count, Slot::new(now));
        removed.into_iter().filter_map(|slot| slot.worker).collect()
    }

    /// Workers that serve, each with the number of its slot.
    pub(super) fn workers(&self) -> impl Iterator<Item = (usize, &Worker)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(number, slot)| Some((number, slot.worker.as_ref()?)))
    }

    /// Workers that serve and whose replacement has not been ordered.
    pub(super) fn unreplaced(&self) -> impl Iterator<Item = (usize, &Worker)> {
        self.workers().filter(|(number, _)| self.slots[*number].order.is_none())
    }

    /// Does no slot have a worker or an order?
    pub(super) fn are_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.worker.is_none() && slot.order.is_none())
    }

    /// Has a worker been ordered that is not running yet?
    pub(super) fn has_order(&self) -> bool {
        self.slots.iter().any(|slot| slot.order.is_some())
    }

    /// Does an empty slot wait after a failure?
    pub(super) fn is_delayed(&self, now: Instant) -> bool {
        self.slots.iter().any(|slot| slot.is_delayed(now))
    }

    /// Workers that failed at their start, in the slot with the most of them.
    pub(super) fn max_failures(&self) -> u32 {
        self.slots.iter().map(|slot| slot.failures).max().unwrap_or(0)
    }

    /// Workers that failed at their start, in all slots.
    pub(super) fn total_failures(&self) -> u32 {
        self.slots.iter().map(|slot| slot.failures).sum()
    }

    /// Numbers of the slots that need a worker of `generation` now, if `wanted` slots are to have a
    /// worker.
    pub(super) fn in_need(&self, generation: u64, wanted: usize, now: Instant) -> Vec<usize> {
        let is_ordered = |slot: &Slot| slot.order.is_some_and(|it| it.generation == generation);
        let is_held =
            |slot: &&Slot| slot.worker.is_some() || is_ordered(slot) || slot.is_delayed(now);
        let missing = wanted.saturating_sub(self.slots.iter().filter(is_held).count());
        let due =
            self.slots.iter().enumerate().filter(|(_, slot)| !is_ordered(slot) && slot.due <= now);
        let (taken, mut free): (Vec<_>, Vec<_>) = due.partition(|(_, slot)| slot.worker.is_some());
        let stale = taken
            .into_iter()
            .filter(|(_, slot)| slot.worker.is_some_and(|worker| worker.is_stale(generation)));
        // A slot whose workers fail is tried first, so that its pauses grow.
        free.sort_by_key(|(_, slot)| slot.failures == 0);
        stale.chain(free.into_iter().take(missing)).map(|(number, _)| number).collect()
    }

    /// Records that a worker was ordered for a slot.
    pub(super) fn order(&mut self, number: usize, order: WorkerOrder) {
        self.slots[number].order = Some(order);
    }

    /// Cancels an order that could not be sent. The slot is tried again at `due`.
    pub(super) fn delay(&mut self, order: WorkerOrder, due: Instant) {
        if let Some(slot) = self.slot_of(order) {
            (slot.order, slot.due) = (None, due);
        }
    }

    /// Records that an ordered worker failed to start.
    pub(super) fn start_failed(&mut self, order: WorkerOrder, now: Instant) {
        if let Some(slot) = self.slot_of(order) {
            slot.order = None;
            slot.count_failure(now);
        }
    }

    /// The worker that the worker of this order replaces.
    pub(super) fn replaced_by(&self, order: WorkerOrder) -> Option<Worker> {
        self.slots.iter().find(|slot| slot.order == Some(order))?.worker
    }

    /// Puts a worker of the previous program into an empty slot. Returns `false` if there is none.
    pub(super) fn take_over(&mut self, worker: Worker) -> bool {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.worker.is_none()) else {
            return false;
        };
        slot.worker = Some(worker);
        true
    }

    /// Puts a worker into the slot it was ordered for. Returns `false` if the order was cancelled.
    pub(super) fn fill(&mut self, order: WorkerOrder, worker: Worker) -> bool {
        let Some(slot) = self.slot_of(order) else { return false };
        (slot.order, slot.worker) = (None, Some(worker));
        true
    }

    /// Removes the worker of a slot.
    pub(super) fn vacate(&mut self, number: usize) -> Option<Worker> {
        self.slots[number].worker.take()
    }

    /// Removes all workers.
    pub(super) fn vacate_all(&mut self) -> Vec<Worker> {
        self.slots.iter_mut().filter_map(|slot| slot.worker.take()).collect()
    }

    /// Removes a worker that exited. `failed_at_start` counts as a failure of the slot.
    pub(super) fn on_exit(&mut self, number: usize, failed_at_start: bool, now: Instant) {
        let slot = &mut self.slots[number];
        slot.worker = None;
        if failed_at_start {
            slot.count_failure(now);
        } else {
            slot.failures = 0;
        }
    }

    /// Records the limit that a worker has reached, if `limit` finds one.
    pub(super) fn check_limits(&mut self, limit: impl Fn(&Worker) -> Option<LimitReached>) {
        let workers = self.slots.iter_mut().filter_map(|slot| slot.worker.as_mut());
        for worker in workers.filter(|worker| worker.limit_reached.is_none()) {
            worker.limit_reached = limit(worker);
        }
    }

    /// Removes the workers and orders of a template that has exited.
    pub(super) fn end_generation(&mut self, generation: u64) {
        for slot in &mut self.slots {
            slot.worker = slot.worker.filter(|worker| worker.generation != generation);
            slot.order = slot.order.filter(|order| order.generation != generation);
        }
    }

    /// Time at which a slot may need a worker although no event happens.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let slots = self.slots.iter().filter(|slot| slot.order.is_none()).map(|slot| slot.due);
        let ages = self
            .workers()
            .filter(|(_, worker)| worker.limit_reached.is_none())
            .filter_map(|(_, worker)| worker.expires);
        // A slot that is due already waits for something else.
        slots.filter(|due| *due > now).chain(ages).min()
    }

    fn slot_of(&mut self, order: WorkerOrder) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.order == Some(order))
    }
}

impl Slot {
    /// An empty slot, which may get a worker from `due` on.
    fn new(due: Instant) -> Self {
        Self { worker: None, order: None, due, failures: 0 }
    }

    fn count_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.due = now + retry_pause(self.failures);
    }

    fn is_delayed(&self, now: Instant) -> bool {
        self.worker.is_none() && self.failures > 0 && self.due > now
    }
}

impl Worker {
    /// Does the worker have to be replaced, if `generation` is the current one?
    pub(super) fn is_stale(&self, generation: u64) -> bool {
        self.generation != generation || self.limit_reached.is_some()
    }
}

/// Pause after this number of failures in a row: each pause is twice as long as the previous one.
pub(super) fn retry_pause(failures: u32) -> Duration {
    MIN_RETRY_PAUSE.saturating_mul(1 << failures.min(16)).min(MAX_RETRY_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(pid: i32, order: WorkerOrder, now: Instant) -> Worker {
        Worker {
            pid: Pid::from_raw(pid).unwrap(),
            generation: order.generation,
            block: order.block,
            started: now,
            expires: None,
            limit_reached: None,
            idle_before: Duration::ZERO,
        }
    }

    fn order(generation: u64, block: u32) -> WorkerOrder {
        WorkerOrder { generation, block }
    }

    #[test]
    fn as_many_slots_need_a_worker_as_are_wanted() {
        let now = Instant::now();
        let mut slots = Slots::new(4, now);
        assert_eq!(slots.in_need(1, 0, now), [0; 0]);
        assert_eq!(slots.in_need(1, 2, now), [0, 1]);
        slots.order(0, order(1, 0));
        assert!(slots.fill(order(1, 0), worker(100, order(1, 0), now)));
        assert_eq!(slots.in_need(1, 2, now), [1]);
        // New code: the running worker is replaced, and the missing one is started.
        assert_eq!(slots.in_need(2, 2, now), [0, 1]);
        slots.check_limits(|_| Some(LimitReached::Age));
        assert_eq!(slots.in_need(1, 1, now), [0]);
    }

    #[test]
    fn a_slot_whose_workers_fail_is_tried_first_and_after_a_pause() {
        let now = Instant::now();
        let mut slots = Slots::new(4, now);
        slots.order(2, order(1, 0));
        slots.start_failed(order(1, 0), now);
        assert_eq!((slots.max_failures(), slots.is_delayed(now)), (1, true));
        assert_eq!(slots.in_need(1, 1, now), [0; 0]);
        let later = now + MAX_RETRY_PAUSE;
        assert_eq!(slots.in_need(1, 1, later), [2]);
        assert_eq!(slots.in_need(1, 2, later), [2, 0]);
        assert!(retry_pause(1) < retry_pause(2) && retry_pause(u32::MAX) == MAX_RETRY_PAUSE);
    }

    #[test]
    fn an_ordered_worker_replaces_the_one_in_its_slot() {
        let now = Instant::now();
        let mut slots = Slots::new(1, now);
        let (old, new) = (order(1, 0), order(2, 1));
        slots.order(0, old);
        assert!(slots.fill(old, worker(100, old, now)));
        slots.order(0, new);
        assert_eq!(slots.in_need(2, 1, now), [0; 0], "it was ordered already");
        assert_eq!(slots.unreplaced().count(), 0);
        assert_eq!(slots.replaced_by(new), Some(worker(100, old, now)));
        assert!(slots.fill(new, worker(200, new, now)));
        assert!(!slots.fill(new, worker(300, new, now)), "nobody has ordered that");
        assert_eq!(slots.vacate(0), Some(worker(200, new, now)));
        assert!(slots.are_empty());
    }

    #[test]
    fn the_end_of_a_template_ends_its_workers_and_orders_only() {
        let now = Instant::now();
        let mut slots = Slots::new(3, now);
        for (number, order) in [order(1, 0), order(2, 1)].into_iter().enumerate() {
            slots.order(number, order);
            assert!(slots.fill(order, worker(100 + order.block.cast_signed(), order, now)));
        }
        slots.order(2, order(1, 2));
        slots.end_generation(1);
        assert_eq!(slots.workers().map(|(number, _)| number).collect::<Vec<_>>(), [1]);
        assert!(!slots.has_order());
    }

    #[test]
    fn slots_are_added_empty_and_removed_with_their_workers() {
        let now = Instant::now();
        let mut slots = Slots::new(1, now);
        let resized: Vec<Worker> = slots.resize(3, now);
        assert_eq!((resized.len(), slots.in_need(1, 3, now)), (0, vec![0, 1, 2]));
        for (number, order) in [order(1, 0), order(1, 1)].into_iter().enumerate() {
            slots.order(number, order);
            assert!(slots.fill(order, worker(100 + order.block.cast_signed(), order, now)));
        }
        slots.order(2, order(1, 2));
        assert_eq!(slots.resize(1, now), [worker(101, order(1, 1), now)]);
        let late = worker(102, order(1, 2), now);
        assert!(!slots.fill(order(1, 2), late), "its slot was removed");
        assert_eq!((slots.workers().count(), slots.has_order()), (1, false));
    }

    #[test]
    fn a_success_forgets_the_failures_of_its_slot() {
        let now = Instant::now();
        let mut slots = Slots::new(1, now);
        slots.on_exit(0, true, now);
        slots.on_exit(0, true, now);
        assert_eq!(slots.total_failures(), 2);
        assert_eq!(slots.next_due(now), Some(now + retry_pause(2)));
        slots.on_exit(0, false, now);
        assert_eq!(slots.total_failures(), 0);
    }
}
