//! The number of workers of a dynamic pool: more when no thread is idle and connections wait, fewer
//! when workers are idle, and none if the pool may rest. This module uses no clock and no process.

use std::time::{Duration, Instant};

/// How long no thread must have been idle before the accept queues are checked. A busy pool mostly
/// has an idle thread again by then.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// A pool that grows again within this time grows by twice as many workers as before.
const RUSH_TIME: Duration = Duration::from_secs(1);

/// Pause before the next attempt to grow beyond what the limits of processes and memory allow.
const LIMITED_TIME: Duration = Duration::from_secs(1);

/// Maximum number of workers that are added at once.
const MAX_STEP: usize = 32;

/// The wanted number of workers of a pool.
#[derive(Debug)]
pub(super) struct Scale {
    min: usize,
    max: usize,
    /// The number of workers that the limits of processes and memory allow.
    allowed: usize,
    /// How long a surplus worker is kept.
    idle: Duration,
    wanted: usize,
    /// The listening sockets are polled for connections.
    is_listening: bool,
    /// Time of the next check.
    next_check: Option<Instant>,
    /// Since when no thread has been idle.
    crowded_since: Option<Instant>,
    /// When workers were added last, and how many.
    last_step: Option<(Instant, usize)>,
    /// Since when there has been no worker.
    empty_since: Option<Instant>,
}

/// The action when no thread is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    /// Check again later: a thread may become idle soon.
    Settling,
    /// Check whether connections wait.
    Lasting,
}

impl Scale {
    /// The scale of a pool with `min` to `max` workers.
    pub(super) fn new(min: usize, max: usize, idle: Duration) -> Self {
        Self {
            min,
            max,
            allowed: max,
            idle,
            wanted: min,
            is_listening: false,
            next_check: None,
            crowded_since: None,
            last_step: None,
            empty_since: None,
        }
    }

    /// Changes the limits to `min` to `max` workers.
    pub(super) fn set_limits(&mut self, min: usize, max: usize, idle: Duration) {
        let allowed = if self.allowed == self.max { max } else { self.allowed.max(min) };
        (self.min, self.max, self.allowed, self.idle) = (min, max, allowed, idle);
        self.wanted = self.wanted.clamp(min, max);
    }

    /// Minimum number of workers.
    pub(super) fn min(&self) -> usize {
        self.min
    }

    /// Maximum number of workers.
    pub(super) fn max(&self) -> usize {
        self.max.min(self.allowed)
    }

    /// Sets the number of workers that the limits of processes and memory allow.
    pub(super) fn allow(&mut self, workers: usize) {
        self.allowed = workers.max(self.min);
    }

    /// The wanted number of workers.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Does the number of workers never change?
    pub(super) fn is_fixed(&self) -> bool {
        self.min == self.max
    }

    /// Must the listening sockets be polled for connections?
    pub(super) fn is_listening(&self) -> bool {
        self.is_listening
    }

    /// Time of the next check.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// Begins a check.
    pub(super) fn begin_check(&mut self) {
        (self.is_listening, self.next_check) = (false, None);
    }

    /// Ends a check in which the longest idle worker had been idle for `longest`.
    pub(super) fn end_check(&mut self, longest: Option<Duration>, now: Instant) {
        let worker = (self.wanted > self.min)
            .then(|| now + self.idle.saturating_sub(longest.unwrap_or_default()));
        let template = self.empty_since.and_then(|since| since.checked_add(self.idle));
        self.next_check = self.next_check.into_iter().chain(worker).chain(template).min();
    }

    /// Wants no more workers than the minimum.
    pub(super) fn shrink_to_min(&mut self) {
        self.wanted = self.min;
    }

    /// Wants one worker less after a failed start: if no connection waits, there is no need to try
    /// again.
    pub(super) fn on_failed_start(&mut self) {
        self.wanted = self.wanted.saturating_sub(1).max(self.min);
    }

    /// Decides whether a worker that has been idle for `idle` is to stop, and wants one less then.
    pub(super) fn stops_idle_worker(&mut self, idle: Duration) -> bool {
        let stops = self.wanted > self.min && idle >= self.idle;
        self.wanted -= usize::from(stops);
        stops
    }

    /// Decides whether the pool releases its template. `is_empty`: it has no worker and orders
    /// none.
    pub(super) fn rests(&mut self, is_empty: bool, now: Instant) -> bool {
        if !is_empty || self.wanted > 0 {
            self.empty_since = None;
            return false;
        }
        let since = *self.empty_since.get_or_insert(now);
        let rests = now.saturating_duration_since(since) >= self.idle;
        if rests {
            self.empty_since = None;
        }
        rests
    }

    /// May more workers be added to `present` ones?
    pub(super) fn may_grow(&self, present: usize) -> bool {
        self.wanted < self.max && present >= self.wanted
    }

    /// Records that a thread is idle.
    pub(super) fn on_idle_thread(&mut self) {
        self.crowded_since = None;
    }

    /// Records that no thread is idle.
    pub(super) fn on_crowd(&mut self, has_worker: bool, now: Instant) -> Crowd {
        let settled = *self.crowded_since.get_or_insert(now) + SETTLE_TIME;
        if now < settled && has_worker {
            self.next_check = Some(settled);
            Crowd::Settling
        } else {
            Crowd::Lasting
        }
    }

    /// Wants more workers, or polls the listening sockets if no connection waits.
    pub(super) fn on_lasting_crowd(&mut self, connections_wait: bool, now: Instant) {
        if connections_wait {
            self.grow(now);
        } else {
            self.is_listening = true;
        }
    }

    fn grow(&mut self, now: Instant) {
        if self.wanted >= self.allowed {
            self.next_check = Some(now + LIMITED_TIME);
            return;
        }
        let step = match self.last_step {
            Some((when, count)) if now.saturating_duration_since(when) < RUSH_TIME => {
                (count * 2).min(MAX_STEP)
            }
            _ => 1,
        };
        self.last_step = Some((now, step));
        self.crowded_since = Some(now);
        self.wanted = (self.wanted + step).min(self.max());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn a_pool_that_grows_again_and_again_grows_faster_and_never_too_large() {
        let mut scale = Scale::new(0, 20, IDLE);
        let now = Instant::now();
        let mut steps = Vec::new();
        for _ in 0..6 {
            scale.on_lasting_crowd(true, now);
            steps.push(scale.wanted());
        }
        assert_eq!(steps, [1, 3, 7, 15, 20, 20]);
        scale.shrink_to_min();
        scale.on_lasting_crowd(true, now + 2 * RUSH_TIME);
        assert_eq!(scale.wanted(), 1);
    }

    #[test]
    fn other_limits_hold_at_once() {
        let mut scale = Scale::new(0, 20, IDLE);
        let now = Instant::now();
        for _ in 0..4 {
            scale.on_lasting_crowd(true, now);
        }
        assert_eq!(scale.wanted(), 15);
        for (min, max, wanted) in [(0, 4, 4), (2, 8, 4), (6, 8, 6), (3, 3, 3)] {
            scale.set_limits(min, max, IDLE);
            assert_eq!((scale.min(), scale.max(), scale.wanted()), (min, max, wanted));
        }
        assert!(scale.is_fixed());
    }

    #[test]
    fn a_pool_grows_up_to_what_limits_allow_and_tries_again_later() {
        let mut scale = Scale::new(1, 20, IDLE);
        let now = Instant::now();
        scale.allow(3);
        for expected in [2, 3, 3] {
            scale.on_lasting_crowd(true, now);
            assert_eq!((scale.wanted(), scale.max()), (expected, 3));
        }
        assert!(scale.may_grow(3) && scale.next_check() == Some(now + LIMITED_TIME));
        scale.allow(usize::MAX);
        scale.on_lasting_crowd(true, now + LIMITED_TIME);
        assert!(scale.wanted() > 3 && scale.max() == 20);
        scale.allow(0);
        assert_eq!(scale.max(), 1, "the minimum stays");
    }

    #[test]
    fn the_next_check_is_when_the_longest_idle_worker_may_stop() {
        let now = Instant::now();
        let next_check = |scale: &mut Scale, longest| {
            scale.begin_check();
            scale.end_check(longest, now);
            scale.next_check()
        };
        let mut scale = Scale::new(1, 4, IDLE);
        let longest = Some(Duration::from_secs(20));
        assert_eq!(next_check(&mut scale, longest), None, "no worker may stop");
        scale.on_lasting_crowd(true, now);
        assert_eq!(next_check(&mut scale, longest), Some(now + Duration::from_secs(40)));
        assert_eq!(next_check(&mut scale, None), Some(now + IDLE));
        let mut resting = Scale::new(0, 4, IDLE);
        assert!(!resting.rests(true, now));
        assert_eq!(next_check(&mut resting, None), Some(now + IDLE));
    }

    #[test]
    fn idle_workers_stop_down_to_the_minimum() {
        let now = Instant::now();
        let mut scale = Scale::new(1, 4, IDLE);
        scale.on_lasting_crowd(true, now);
        scale.on_lasting_crowd(true, now);
        assert_eq!(scale.wanted(), 4);
        assert!(!scale.stops_idle_worker(IDLE - Duration::from_secs(1)));
        let stops: Vec<_> = (0..4).map(|_| scale.stops_idle_worker(IDLE)).collect();
        assert_eq!((stops, scale.wanted()), (vec![true, true, true, false], 1));
        scale.on_failed_start();
        assert_eq!(scale.wanted(), 1);
    }

    #[test]
    fn a_crowd_has_to_last_before_connections_are_looked_for() {
        let now = Instant::now();
        let mut scale = Scale::new(1, 2, IDLE);
        assert_eq!(scale.on_crowd(true, now), Crowd::Settling);
        assert_eq!(scale.next_check(), Some(now + SETTLE_TIME));
        assert_eq!(scale.on_crowd(true, now + SETTLE_TIME), Crowd::Lasting);
        scale.on_idle_thread();
        assert_eq!(scale.on_crowd(true, now + SETTLE_TIME), Crowd::Settling);
        assert_eq!(
            scale.on_crowd(false, now + SETTLE_TIME),
            Crowd::Lasting,
            "no thread to wait for"
        );
        scale.on_lasting_crowd(false, now);
        assert!(scale.is_listening() && scale.wanted() == 1);
    }

    #[test]
    fn a_pool_rests_after_the_idle_time_without_a_worker() {
        let now = Instant::now();
        let mut scale = Scale::new(0, 2, IDLE);
        assert!(!scale.rests(true, now));
        assert!(!scale.rests(false, now + IDLE), "a worker was there");
        assert!(!scale.rests(true, now + IDLE));
        assert!(scale.rests(true, now + 2 * IDLE));
    }
}
