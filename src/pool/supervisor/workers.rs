//! Workers come, end, and are asked to stop.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::{Pid, Signal, kill_process};
use wire::running_clock;

use crate::{
    pool::supervisor::{
        Supervisor,
        display::How,
        slots::{Asked, LONGEST_WAIT, Leaving, Live, Outworn},
    },
    system::signals,
};

/// A worker that lived shorter than this and has served nothing failed at its beginning.
const INFANCY: Duration = Duration::from_secs(1);

/// Wait until a template that takes no more orders is asked again.
const A_MOMENT: Duration = Duration::from_millis(50);

impl Supervisor<'_> {
    /// Asks for workers where they are missing, or are to be replaced; has a template loaded for
    /// them if there is none.
    pub(super) fn fill_places(&mut self) {
        if !self.phase.may_fork() {
            return;
        }
        let now = running_clock::instant();
        if self.lacks_template() && now >= self.templates.due {
            self.load(self.templates.preload);
        }
        let Some(template) = &mut self.templates.current else {
            return;
        };
        for number in self.places.wanting(template.generation, self.size.wanted, now) {
            // Without one they wait for a worker that ends.
            let Some(slot) = self.places.take_slot(template.generation) else {
                return self.make_room();
            };
            if template.fork(slot) {
                self.places.all[number].asked =
                    Some(Asked { generation: template.generation, slot });
            } else {
                self.places.free_slot(slot, &self.scoreboard);
                self.places.all[number].due = now + A_MOMENT;
            }
        }
    }

    /// Where no process more may come than there are, those that are to be replaced go first: idle
    /// ones one after the other, and those that serve when they have served.
    fn make_room(&mut self) {
        let is_busy = |slot| {
            let mut lines =
                self.places.lines(slot).filter_map(|line| self.scoreboard.line(line)?.read());
            lines.any(|reading| reading.busy)
        };
        // One that is about to be gone makes room enough.
        if self.terms.slots > 1 || self.places.leaving.iter().any(|leaving| !is_busy(leaving.slot))
        {
            return;
        }
        let generation = self.templates.current.as_ref().map(|template| template.generation);
        let is_stale = |live: &Live| Some(live.generation) != generation || live.outworn.is_some();
        let stale = self.places.live().filter(|(_, live)| is_stale(live));
        let chosen =
            stale.min_by_key(|(_, live)| self.places.idle_for(live, &self.scoreboard).is_none());
        if let Some((number, live)) = chosen.map(|(number, live)| (number, *live)) {
            self.say_why(&live);
            self.dismiss(number);
        }
    }

    /// Is a template wanted that is not there, nor being loaded?
    pub(super) fn lacks_template(&self) -> bool {
        self.size.wanted > 0 && self.templates.current.is_none() && self.templates.next.is_none()
    }

    /// A worker was forked.
    pub(super) fn born(&mut self, asked: Asked, pid: Pid) {
        let old = self
            .places
            .all
            .iter()
            .find(|place| place.asked == Some(asked))
            .and_then(|place| place.worker);
        if !self.phase.may_fork() || self.places.settle(asked, pid, &self.scoreboard).is_none() {
            return self.let_go(pid, asked.slot);
        }
        self.refusing.note_success();
        // The old one ends when the new one is there, so that the pool is never smaller.
        if let Some(old) = old {
            self.say_why(&old);
            self.let_go(old.pid, old.slot);
        }
    }

    /// A worker could not be forked.
    pub(super) fn unborn(&mut self, asked: Asked) {
        self.put_off(asked);
        self.log(&LogMessage::error(Code::ForkFailed, "no worker could be forked").hint(
            "this user has as many processes as it may have, or memory is short; the pool tries \
             again",
        ));
    }

    /// A worker did not come to be, and the log says why: its place waits as after any failed
    /// beginning.
    pub(super) fn put_off(&mut self, asked: Asked) {
        self.places.free_slot(asked.slot, &self.scoreboard);
        if let Some(place) = self.places.all.iter_mut().find(|place| place.asked == Some(asked)) {
            place.asked = None;
            place.put_off();
        }
    }

    /// A worker has ended.
    pub(super) fn gone(&mut self, pid: i32, status: ExitStatus) {
        let Some(pid) = Pid::from_raw(pid) else {
            return;
        };
        if let Some(position) = self.places.leaving.iter().position(|leaving| leaving.pid == pid) {
            let leaving = self.places.leaving.swap_remove(position);
            return self.places.free_slot(leaving.slot, &self.scoreboard);
        }
        let Some((number, live)) =
            self.places.live().find(|(_, live)| live.pid == pid).map(|(n, live)| (n, *live))
        else {
            return;
        };
        let (requests, has_served) = (self.last_requests(pid), self.has_served(pid));
        if has_served {
            self.activity.note();
        }
        self.places.free_slot(live.slot, &self.scoreboard);
        let lived = running_clock::elapsed(live.since);
        let place = &mut self.places.all[number];
        place.worker = None;
        if status.success() && requests.is_empty() && (has_served || lived >= INFANCY) {
            // It has served as many requests as it may, or was asked to stop. Amid a request, or
            // before the first, it is the application that ends its process.
            place.failures = 0;
            return;
        }
        // One that has served at all is no failure of its beginning: whoever kills workers, or asks
        // for what crashes them, is not to leave others without a pool.
        if lived < INFANCY && !has_served {
            place.put_off();
            // Where nobody waits for it, nothing is tried again.
            self.size.wanted = self.size.wanted.saturating_sub(1).max(self.size.least);
        } else {
            place.failures = 0;
        }
        let sentence =
            format!("worker {number} {} after {:.1} s", How(status), lived.as_secs_f32());
        // Its gateway says so itself, unless that was ended by the web server.
        let may_be_abandoned =
            self.activity.is_limited() && status.signal() == Some(Signal::KILL.as_raw());
        let entry = if may_be_abandoned {
            LogMessage::warning(Code::WorkerDied, sentence).hint(
                "the web server has ended the request since its client left, unless an error of \
                 that request says otherwise: then look in the system's log",
            )
        } else {
            LogMessage::error(Code::WorkerDied, sentence).hint(
                status.signal().and_then(signals::cause).unwrap_or(
                    "its place is filled again; look for its last words just above, and in the \
                     system's log",
                ),
            )
        };
        self.log(&entry.detail(requests));
    }

    /// Tells the worker in a place to end; the place is free then.
    pub(super) fn dismiss(&mut self, place: usize) {
        if let Some(live) = self.places.all[place].worker.take() {
            self.let_go(live.pid, live.slot);
        }
    }

    /// Tells a worker to end, and gives it some time for that.
    fn let_go(&mut self, pid: Pid, slot: u32) {
        // It may have ended a moment ago.
        let _ = kill_process(pid, Signal::TERM);
        // As systemd does: one that is stopped would not see it.
        let _ = kill_process(pid, Signal::CONT);
        self.places.leaving.push(Leaving {
            pid,
            slot,
            due: running_clock::instant() + self.terms.drain,
            killed: false,
        });
    }

    /// Kills workers that serve nobody any more and have not ended, so that they keep no place from
    /// others. Gives who they were.
    fn kill_those_who_linger(&mut self, now: Instant) -> Vec<Pid> {
        let (places, scoreboard, linger) = (&mut self.places, &self.scoreboard, self.terms.linger);
        for number in 0..places.all.len() {
            let has_left = |live: &mut Live| {
                places.left_for(live.pid, live.slot, scoreboard).is_some_and(|left| left >= linger)
            };
            let mut worker = places.all[number].worker;
            if let Some(live) = worker.take_if(has_left) {
                places.all[number].worker = None;
                // No request of its is waited for.
                places.leaving.push(Leaving {
                    pid: live.pid,
                    slot: live.slot,
                    due: now + linger,
                    killed: false,
                });
            }
        }
        let late: Vec<Pid> = places
            .leaving
            .iter()
            .filter(|leaving| !leaving.killed)
            .filter(|leaving| {
                places
                    .left_for(leaving.pid, leaving.slot, scoreboard)
                    .is_some_and(|left| left >= linger)
            })
            .map(|leaving| leaving.pid)
            .collect();
        for leaving in places.leaving.iter_mut().filter(|leaving| late.contains(&leaving.pid)) {
            leaving.due = now;
        }
        late
    }

    /// Kills workers and templates whose time to end is over.
    pub(super) fn kill_those_who_stay(&mut self) {
        let now = running_clock::instant();
        for pid in self.kill_those_who_linger(now).into_iter().filter(|pid| !has_ended(*pid)) {
            self.log(
                &LogMessage::warning(
                    Code::WorkerNotExiting,
                    format!(
                        "worker {pid} has served its last request and did not end; it is killed"
                    ),
                )
                .hint("an exit handler or a thread of the application may be what it waits for"),
            );
        }
        for leaving in self.places.leaving.iter_mut().filter(|leaving| leaving.due <= now) {
            let _ = kill_process(leaving.pid, Signal::KILL);
            (leaving.due, leaving.killed) = (now + LONGEST_WAIT, true);
        }
        for _ in 0..self.templates.kill_those_who_stay() {
            self.log(
                &LogMessage::warning(
                    Code::TemplateDied,
                    "a template that was to end did not, and is killed",
                )
                .hint(
                    "an exit handler or a thread that the application has begun while it was \
                     loaded may be what it waits for",
                ),
            );
        }
    }

    /// Says why a worker was replaced, if that was for its own sake.
    fn say_why(&self, live: &Live) {
        let why = match live.outworn {
            None => return,
            Some(Outworn::Age) => {
                format!("it is {:.0} s old", running_clock::elapsed(live.since).as_secs_f32())
            }
            Some(Outworn::Memory(resident)) => format!("it has {} MiB of memory", resident >> 20),
        };
        let pid = live.pid.as_raw_nonzero();
        self.log(&LogMessage::notice(
            Code::WorkerReplaced,
            format!("worker {pid} makes way for another: {why}"),
        ));
    }
}

/// Has a process ended that nobody has asked how yet? Its template does that, which may be stopped.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}
