//! How many workers a pool has: more when none is idle and connections wait, fewer when they have
//! nothing to do, and none at all, nor a template, if it may rest.
//!
//! The supervisor is not asked about connections. While a thread of a worker is idle it sleeps, and
//! the worker that takes the last of them rings. Then it looks a moment later whether that is still
//! so, and at the listening sockets itself.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::{connection_queue::ConnectionQueue, running_clock};

use crate::pool::supervisor::{
    Supervisor,
    phase::Phase,
    slots::{Outworn, Places},
};

/// How long no thread has to be idle before connections are looked for: most of the time one is
/// idle again by then, and a busy pool does not wake the supervisor for every request.
const SETTLE: Duration = Duration::from_millis(10);

/// Growing again within this time, the pool grows by twice as many as before.
const RUSH: Duration = Duration::from_secs(1);

/// Most workers that are asked for at once.
const MOST_AT_ONCE: usize = 32;

/// How large a pool is and may be, in workers.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) least: usize,
    pub(super) most: usize,
    /// How long a worker that is not needed stays.
    idle: Duration,
    /// How many there are to be.
    pub(super) wanted: usize,
    /// The listening sockets are waited for.
    pub(super) listens: bool,
    /// When to look again.
    pub(super) look: Option<Instant>,
    /// Since when no thread has been idle.
    crowded_since: Option<Instant>,
    /// When it grew last, and by how many.
    grown: Option<(Instant, usize)>,
    /// Since when there has been no worker.
    empty_since: Option<Instant>,
}

impl Size {
    /// A pool of `least` to `most` workers.
    pub(super) fn new(least: usize, most: usize, idle: Duration) -> Self {
        Self {
            least,
            most,
            idle,
            wanted: least,
            listens: false,
            look: None,
            crowded_since: None,
            grown: None,
            empty_since: None,
        }
    }

    /// The number of workers never changes.
    fn is_fixed(&self) -> bool {
        self.least == self.most
    }

    /// No more workers than there must be.
    pub(super) fn shrink_to_least(&mut self) {
        self.wanted = self.least;
    }

    /// More of them are wanted: twice as many as the last time, if that was a moment ago.
    fn grow(&mut self, now: Instant) {
        let more = match self.grown {
            Some((when, count)) if now.saturating_duration_since(when) < RUSH => {
                (count * 2).min(MOST_AT_ONCE)
            }
            _ => 1,
        };
        self.grown = Some((now, more));
        self.crowded_since = Some(now);
        self.wanted = (self.wanted + more).min(self.most);
    }

    /// When idle workers, or the template, have had nothing to do for long enough.
    fn idle_due(&self, longest: Option<Duration>, now: Instant) -> Option<Instant> {
        let worker = (self.wanted > self.least)
            .then(|| now + self.idle.saturating_sub(longest.unwrap_or_default()));
        let template = self.empty_since.and_then(|since| since.checked_add(self.idle));
        worker.into_iter().chain(template).min()
    }
}

impl Supervisor<'_> {
    /// Decides how many workers there are to be, and lets those go that are not needed.
    pub(super) fn fit(&mut self) {
        self.size.listens = false;
        self.size.look = None;
        // What it rang for is looked at below. It cannot be read if it has not rung.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.scoreboard.want_wakeup(false);
        if !self.phase.may_fork() {
            return;
        }
        self.note_outworn();
        if !self.size.is_fixed() {
            let now = running_clock::instant();
            let longest = self.dismiss_idle();
            self.rest(now);
            self.grow(now);
            self.size.look =
                self.size.look.into_iter().chain(self.size.idle_due(longest, now)).min();
        }
    }

    /// Marks workers that are to be replaced though nothing is wrong with them.
    fn note_outworn(&mut self) {
        let now = running_clock::instant();
        for number in 0..self.places.all.len() {
            let Some(live) = self.places.all[number].worker.filter(|live| live.outworn.is_none())
            else {
                continue;
            };
            let outworn = if live.until.is_some_and(|until| until <= now) {
                Some(Outworn::Age)
            } else {
                self.outgrown(&self.places, live.slot).map(Outworn::Memory)
            };
            self.places.all[number].worker = Some(super::slots::Live { outworn, ..live });
        }
    }

    /// The memory that the worker with this slot says it has, if that is too much.
    fn outgrown(&self, places: &Places, slot: u32) -> Option<u64> {
        let most = Some(self.terms.service.max_rss).filter(|&most| most > 0)?;
        let lines = places.lines(slot).filter_map(|line| self.scoreboard.line(line)?.read());
        lines.map(|reading| reading.resident).max().filter(|&resident| resident > most)
    }

    /// Dismisses workers that have been idle for long, the longest first. Gives how long those that
    /// stay have been, at most.
    fn dismiss_idle(&mut self) -> Option<Duration> {
        let mut idle: Vec<(Duration, usize)> = self
            .places
            .live()
            .filter(|(number, _)| self.places.all[*number].asked.is_none())
            .filter_map(|(number, live)| {
                Some((self.places.idle_for(live, &self.scoreboard)?, number))
            })
            .collect();
        idle.sort_unstable();
        while let Some((longest, number)) = idle.pop() {
            if self.size.wanted <= self.size.least || longest < self.size.idle {
                return Some(longest);
            }
            self.size.wanted -= 1;
            self.dismiss(number);
        }
        None
    }

    /// Lets the template go, too, when no worker has been needed for long.
    fn rest(&mut self, now: Instant) {
        let is_empty = self.size.wanted == 0 && self.places.are_empty();
        if !is_empty || self.templates.current.is_none() || self.phase != Phase::Serving {
            self.size.empty_since = None;
            return;
        }
        let since = *self.size.empty_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.size.idle {
            self.size.empty_since = None;
            self.templates.retire_current();
            self.log(&LogMessage::notice(
                Code::PoolIdle,
                "the pool has had no work, and lets its last process of Python go; the next \
                 connection starts one",
            ));
        }
    }

    /// Asks for more workers if none is idle and connections wait, and sees to it that it will be
    /// known when that is so.
    fn grow(&mut self, now: Instant) {
        let are_missing = self.places.live().count() < self.size.wanted;
        if self.size.wanted >= self.size.most
            || are_missing
            || self.places.expect_one(&self.scoreboard, now)
        {
            return;
        }
        // In this order: either an idle thread is seen here, or whoever takes the last one rings.
        self.scoreboard.want_wakeup(true);
        if self.scoreboard.has_idle() {
            self.size.crowded_since = None;
            return;
        }
        self.scoreboard.want_wakeup(false);
        let settled = *self.size.crowded_since.get_or_insert(now) + SETTLE;
        if now < settled && self.places.live().next().is_some() {
            self.size.look = Some(settled);
        } else if self.connections_wait() {
            self.size.grow(now);
        } else {
            self.size.listens = true;
        }
    }

    /// Are there connections that nobody has taken?
    fn connections_wait(&self) -> bool {
        // Workers that there are have given away only what is to be served.
        let is_given = match self.places.live().next() {
            Some(_) => self.handover.as_ref(),
            None if self.sort_given() => return true,
            None => None,
        };
        let mut watched: Vec<_> = self
            .listeners
            .iter()
            .map(|listener| listener.socket.as_fd())
            .chain(is_given.map(ConnectionQueue::pop_end))
            .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
            .collect();
        // If it cannot be known now, it will be the next time.
        matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_grows_again_and_again_grows_faster_and_never_too_large() {
        let mut size = Size::new(0, 20, Duration::from_secs(60));
        let now = running_clock::instant();
        let mut steps = Vec::new();
        for _ in 0..6 {
            size.grow(now);
            steps.push(size.wanted);
        }
        assert_eq!(steps, [1, 3, 7, 15, 20, 20]);
        size.shrink_to_least();
        size.grow(now + 2 * RUSH);
        assert_eq!(size.wanted, 1);
    }

    #[test]
    fn the_next_look_is_when_the_longest_idle_worker_may_go() {
        let mut size = Size::new(1, 4, Duration::from_secs(60));
        let now = running_clock::instant();
        assert_eq!(
            size.idle_due(Some(Duration::from_secs(20)), now),
            None,
            "there are no more than there must be"
        );
        size.wanted = 2;
        assert_eq!(
            size.idle_due(Some(Duration::from_secs(20)), now),
            Some(now + Duration::from_secs(40))
        );
        assert_eq!(size.idle_due(None, now), Some(now + Duration::from_secs(60)));
        size.empty_since = Some(now);
        size.wanted = 0;
        assert_eq!(size.idle_due(None, now), Some(now + Duration::from_secs(60)));
    }
}
