//! Places for workers, and which of them want one.
//!
//! A place has at most one worker that serves. While that is being replaced the next is asked for
//! already, and the one that has to go leaves the place when the next is there. Each of them has a
//! slot of its own: its lines of the scoreboard.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use wire::{jitter::with_jitter, running_clock, scoreboard::Scoreboard};

/// Longest wait before a place is filled again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// All places of a pool.
pub(super) struct Places {
    pub(super) all: Vec<Place>,
    /// Workers that were asked to stop, and when they will be killed.
    pub(super) leaving: Vec<Leaving>,
    /// The generation of the template that each slot was given to.
    slots: Vec<Option<u64>>,
    /// Requests that workers have served which are gone.
    served: u64,
    /// Lines of a slot.
    threads: usize,
    max_age: Option<Duration>,
}

/// Room for one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) worker: Option<Live>,
    /// What a worker was asked for as.
    pub(super) asked: Option<Asked>,
    /// When the next may be asked for.
    pub(super) due: Instant,
    /// How often in a row a worker failed at its beginning.
    pub(super) failures: u32,
}

/// A worker that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) generation: u64,
    pub(super) slot: u32,
}

/// A worker that serves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) pid: Pid,
    pub(super) generation: u64,
    pub(super) slot: u32,
    pub(super) since: Instant,
    /// When it is to be replaced.
    pub(super) until: Option<Instant>,
    /// Why it is to be replaced, once it is.
    pub(super) outworn: Option<Outworn>,
    /// How long the worker before it had been idle, which counts for this one until it has served.
    pub(super) idle_before: Duration,
}

/// Why a worker is replaced that has done nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outworn {
    /// It has lived long.
    Age,
    /// It has so many bytes of memory.
    Memory(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) pid: Pid,
    pub(super) slot: u32,
    pub(super) due: Instant,
    /// It has been killed, and the kernel is not done with that.
    pub(super) killed: bool,
}

impl Places {
    /// So many, with so many slots each, for workers of so many threads, which are replaced after
    /// `max_age` or a little earlier.
    pub(super) fn new(count: u32, slots: u32, threads: u32, max_age: Option<Duration>) -> Self {
        let number = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let place = Place { worker: None, asked: None, due: running_clock::instant(), failures: 0 };
        Self {
            all: vec![place; number(count)],
            leaving: Vec::new(),
            slots: vec![None; number(count) * number(slots)],
            served: 0,
            threads: number(threads),
            max_age,
        }
    }

    /// Workers that serve, each with its place.
    pub(super) fn live(&self) -> impl Iterator<Item = (usize, &Live)> {
        self.all
            .iter()
            .enumerate()
            .filter_map(|(number, place)| Some((number, place.worker.as_ref()?)))
    }

    /// Has no place a worker, and none is to come?
    pub(super) fn are_empty(&self) -> bool {
        self.all.iter().all(|place| place.worker.is_none() && place.asked.is_none())
    }

    /// Is a worker on its way, or put off, so that it is too early to ask for more of them?
    pub(super) fn expect_one(&self, scoreboard: &Scoreboard, now: Instant) -> bool {
        self.all.iter().any(|place| place.asked.is_some() || place.is_put_off(now))
            || self.live().any(|(_, live)| {
                // It has not got as far as its lines yet.
                let line = scoreboard
                    .line(self.lines(live.slot).start)
                    .and_then(wire::scoreboard::ScoreboardLine::read);
                line.is_none_or(|reading| reading.pid != live.pid.as_raw_nonzero().get())
            })
    }

    /// Places that want a worker of the template `generation` now, if there are to be `wanted` of
    /// them.
    pub(super) fn wanting(&self, generation: u64, wanted: usize, now: Instant) -> Vec<usize> {
        let is_asked =
            |place: &Place| place.asked.is_some_and(|asked| asked.generation == generation);
        let held =
            |place: &&Place| place.worker.is_some() || is_asked(place) || place.is_put_off(now);
        let missing = wanted.saturating_sub(self.all.iter().filter(held).count());
        let due =
            self.all.iter().enumerate().filter(|(_, place)| !is_asked(place) && place.due <= now);
        let (taken, mut free): (Vec<_>, Vec<_>) =
            due.partition(|(_, place)| place.worker.is_some());
        let stale = taken.into_iter().filter(|(_, place)| {
            place.worker.is_some_and(|live| live.generation != generation || live.outworn.is_some())
        });
        // Where workers fail they are tried again, so that the pauses there grow.
        free.sort_by_key(|(_, place)| place.failures == 0);
        stale.chain(free.into_iter().take(missing)).map(|(number, _)| number).collect()
    }

    /// A slot for a worker of the template `generation`; none while all are in use, which the drain
    /// of those who leave ends.
    pub(super) fn take_slot(&mut self, generation: u64) -> Option<u32> {
        let slot = self.slots.iter().position(Option::is_none)?;
        self.slots[slot] = Some(generation);
        u32::try_from(slot).ok()
    }

    /// A slot is nobody's any more.
    pub(super) fn free_slot(&mut self, slot: u32, scoreboard: &Scoreboard) {
        if let Some(holder) = usize::try_from(slot).ok().and_then(|slot| self.slots.get_mut(slot)) {
            *holder = None;
            self.served += self
                .lines(slot)
                .filter_map(|line| scoreboard.line(line))
                .map(wire::scoreboard::ScoreboardLine::release)
                .sum::<u64>();
        }
    }

    /// Requests that were served, or are being served, by all workers there have been.
    pub(super) fn served(&self, scoreboard: &Scoreboard) -> u64 {
        let lines = (0..scoreboard.lines()).filter_map(|number| scoreboard.line(number)?.read());
        self.served + lines.map(|reading| reading.served).sum::<u64>()
    }

    /// The lines of a slot.
    pub(super) fn lines(&self, slot: u32) -> std::ops::Range<usize> {
        let first = usize::try_from(slot).unwrap_or(usize::MAX).saturating_mul(self.threads);
        first..first.saturating_add(self.threads)
    }

    /// How long no thread of a worker has had anything to do; nothing if one has, or takes no
    /// connections any more.
    pub(super) fn idle_for(&self, live: &Live, scoreboard: &Scoreboard) -> Option<Duration> {
        let (mut least, mut served) = (Duration::MAX, 0);
        for line in self.lines(live.slot) {
            let reading = scoreboard.line(line)?.read()?;
            if reading.pid != live.pid.as_raw_nonzero().get() || reading.busy || reading.leaving {
                return None;
            }
            if reading.missing {
                continue;
            }
            least = least.min(reading.elapsed());
            served += reading.served;
        }
        Some(if served == 0 { least.saturating_add(live.idle_before) } else { least })
    }

    /// How long ago all threads of a worker have left: nobody is served by it any more.
    pub(super) fn left_for(
        &self,
        pid: Pid,
        slot: u32,
        scoreboard: &Scoreboard,
    ) -> Option<Duration> {
        let pid = pid.as_raw_nonzero().get();
        let each = self.lines(slot).map(|line| scoreboard.line(line)?.left_for(pid));
        each.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// When the first of those that have left will have had `linger` for their end.
    pub(super) fn next_to_linger(
        &self,
        linger: Duration,
        scoreboard: &Scoreboard,
        now: Instant,
    ) -> Option<Instant> {
        let live = self.live().map(|(_, live)| (live.pid, live.slot));
        let leaving = self
            .leaving
            .iter()
            .filter(|leaving| !leaving.killed)
            .map(|leaving| (leaving.pid, leaving.slot));
        let left =
            live.chain(leaving).filter_map(|(pid, slot)| self.left_for(pid, slot, scoreboard));
        left.filter_map(|left| now.checked_add(linger.saturating_sub(left))).min()
    }

    /// A worker that was asked for is there. Gives its place, or nothing if nobody waits for it any
    /// more.
    pub(super) fn settle(
        &mut self,
        asked: Asked,
        pid: Pid,
        scoreboard: &Scoreboard,
    ) -> Option<usize> {
        let number = self.all.iter().position(|place| place.asked == Some(asked))?;
        let idle_before =
            self.all[number].worker.as_ref().and_then(|live| self.idle_for(live, scoreboard));
        let since = running_clock::instant();
        let age = self.max_age.map(|age| {
            Duration::from_millis(with_jitter(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
        });
        self.all[number].asked = None;
        self.all[number].worker = Some(Live {
            pid,
            generation: asked.generation,
            slot: asked.slot,
            since,
            until: age.and_then(|age| since.checked_add(age)),
            outworn: None,
            idle_before: idle_before.unwrap_or_default(),
        });
        Some(number)
    }

    /// A template has ended, and its workers with it.
    pub(super) fn end_generation(&mut self, generation: u64, scoreboard: &Scoreboard) {
        for place in &mut self.all {
            place.worker = place.worker.filter(|live| live.generation != generation);
            place.asked = place.asked.filter(|asked| asked.generation != generation);
        }
        let ended: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, holder)| **holder == Some(generation))
            .map(|(slot, _)| slot)
            .collect();
        self.leaving.retain(|leaving| !ended.contains(&leaving.slot));
        for slot in ended {
            self.free_slot(slot, scoreboard);
        }
    }

    /// When something is to be done that nobody tells of.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let places = self.all.iter().filter(|place| place.asked.is_none()).map(|place| place.due);
        let ages = self
            .live()
            .filter(|(_, live)| live.outworn.is_none())
            .filter_map(|(_, live)| live.until);
        // What is due already waits for something else.
        places.filter(|due| *due > now).chain(ages).min()
    }
}

impl Place {
    /// Its worker failed at the beginning: the next waits.
    pub(super) fn put_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.due = running_clock::instant() + wait_after(self.failures);
    }

    /// Is it empty until a wait is over?
    fn is_put_off(&self, now: Instant) -> bool {
        self.worker.is_none() && self.failures > 0 && self.due > now
    }
}

/// Twice as long after each failure in a row.
pub(super) fn wait_after(failures: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(places: &mut Places, generation: u64, pid: i32, board: &Scoreboard) -> usize {
        let wanting = places.wanting(generation, places.all.len(), running_clock::instant());
        let slot = places.take_slot(generation).unwrap();
        let asked = Asked { generation, slot };
        places.all[wanting[0]].asked = Some(asked);
        places.settle(asked, Pid::from_raw(pid).unwrap(), board).unwrap()
    }

    #[test]
    fn as_many_places_want_a_worker_as_are_wanted() {
        let (board, _descriptor) = Scoreboard::create(8).unwrap();
        let mut places = Places::new(4, 2, 1, None);
        let now = running_clock::instant();
        assert_eq!(places.wanting(1, 0, now), [0; 0]);
        assert_eq!(places.wanting(1, 2, now), [0, 1]);
        assert_eq!(settled(&mut places, 1, 100, &board), 0);
        assert_eq!(places.wanting(1, 2, now), [1]);
        // New code: the worker that is there is replaced, and the missing one comes.
        assert_eq!(places.wanting(2, 2, now), [0, 1]);
        places.all[0].worker.as_mut().unwrap().outworn = Some(Outworn::Age);
        assert_eq!(places.wanting(1, 1, now), [0]);
    }

    #[test]
    fn where_workers_fail_they_are_tried_again_and_nowhere_else() {
        let mut places = Places::new(4, 2, 1, None);
        places.all[2].put_off();
        let (now, later) = (running_clock::instant(), running_clock::instant() + LONGEST_WAIT);
        assert_eq!(places.wanting(1, 1, now), [0; 0]);
        assert_eq!(places.wanting(1, 1, later), [2]);
        assert_eq!(places.wanting(1, 2, later), [2, 0]);
        assert!(wait_after(1) < wait_after(2) && wait_after(u32::MAX) == LONGEST_WAIT);
    }

    #[test]
    fn slots_are_given_once_and_come_back_with_the_end_of_their_template() {
        let (board, _descriptor) = Scoreboard::create(4).unwrap();
        let mut places = Places::new(2, 2, 1, None);
        let taken: Vec<_> =
            [1, 1, 2, 2].map(|generation| places.take_slot(generation).unwrap()).to_vec();
        assert_eq!((taken, places.take_slot(3)), (vec![0, 1, 2, 3], None));
        places.end_generation(1, &board);
        assert_eq!(
            (places.take_slot(3), places.take_slot(3), places.take_slot(3)),
            (Some(0), Some(1), None)
        );
        places.free_slot(3, &board);
        assert_eq!(places.take_slot(3), Some(3));
    }

    #[test]
    fn a_worker_is_idle_when_all_its_threads_are() {
        let (board, _descriptor) = Scoreboard::create(4).unwrap();
        let mut places = Places::new(1, 2, 2, None);
        settled(&mut places, 1, 100, &board);
        let live = places.all[0].worker.unwrap();
        assert!(
            places.expect_one(&board, running_clock::instant())
                && places.idle_for(&live, &board).is_none()
        );
        (0..2).for_each(|line| board.line(line).unwrap().claim(100, 0));
        assert!(
            !places.expect_one(&board, running_clock::instant())
                && places.idle_for(&live, &board).is_some()
        );
        board.line(1).unwrap().begin("request");
        assert!(places.idle_for(&live, &board).is_none());
        board.line(1).unwrap().mark_missing();
        assert!(places.idle_for(&live, &board).is_some(), "there is no such thread");
        board.line(1).unwrap().leave();
        assert!(places.idle_for(&live, &board).is_none());
    }

    #[test]
    fn a_worker_that_was_replaced_while_it_was_idle_leaves_that_to_the_next() {
        let (board, _descriptor) = Scoreboard::create(2).unwrap();
        let mut places = Places::new(1, 2, 1, None);
        settled(&mut places, 1, 100, &board);
        board.line(0).unwrap().claim(100, 0);
        places.all[0].worker.as_mut().unwrap().idle_before = Duration::from_secs(100);
        settled(&mut places, 2, 200, &board);
        board.line(1).unwrap().claim(200, 0);
        let live = places.all[0].worker.unwrap();
        assert!(places.idle_for(&live, &board).unwrap() >= Duration::from_secs(100));
        board.line(1).unwrap().begin("request");
        board.line(1).unwrap().end();
        assert!(places.idle_for(&live, &board).unwrap() < Duration::from_secs(100));
    }
}
