//! Owner of the timeouts of requests: logs slow requests, and interrupts or kills requests that
//! exceed `--timeout`.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use diagnostics::{escape, message::LogMessage};
use rustix::process::Pid;
use wire::{
    overdue_requests::{Action as Measure, OverdueWatch},
    scoreboard::Scoreboard,
};

use crate::pool::supervisor::action::{Action, CountedEvent, WorkerEvent};

/// Time limits of a pool's requests.
pub(super) struct Timeouts {
    watch: OverdueWatch,
    scoreboard: Rc<Scoreboard>,
}

impl Timeouts {
    /// Limits after which a request is logged (`slow`), and after which one may be interrupted
    /// (`shortest_timeout`).
    pub(super) fn new(
        slow: Option<Duration>,
        shortest_timeout: Option<Duration>,
        scoreboard: Rc<Scoreboard>,
    ) -> Self {
        Self { watch: OverdueWatch::new(slow, shortest_timeout, scoreboard.lines()), scoreboard }
    }

    /// Sets the limits of [`Self::new`].
    pub(super) fn set_limits(&mut self, slow: Option<Duration>, timeout: Option<Duration>) {
        let lines = self.scoreboard.lines();
        if !self.watch.has_limits(slow, timeout, lines) {
            self.watch = OverdueWatch::new(slow, timeout, lines);
        }
    }

    /// Checks all requests that are being served. `is_worker` says whether a pid is a worker of
    /// this pool: the number in the scoreboard may belong to another process by now.
    pub(super) fn check(&mut self, is_worker: impl Fn(Pid) -> bool) -> Vec<Action> {
        let mut actions = Vec::new();
        for (measure, reading) in self.watch.look(&self.scoreboard) {
            let Some(pid) = Pid::from_raw(reading.pid).filter(|pid| is_worker(*pid)) else {
                continue;
            };
            let (request, age) = (escape::text(&reading.request), reading.elapsed());
            match measure {
                Measure::LogSlow => {
                    let message = LogMessage::slow_request(&request, reading.pid, age);
                    actions
                        .extend([Action::LogSlow(message, pid), Action::Count(CountedEvent::Slow)]);
                    continue;
                }
                Measure::Abort => {
                    actions.push(Action::Log(LogMessage::not_interrupted(&request, age)));
                    actions.push(Action::Worker(WorkerEvent::TimedOut(pid)));
                }
                Measure::Interrupt => actions.push(Action::Count(CountedEvent::TimedOut)),
                Measure::Kill => {}
            }
            actions.push(Action::Signal(pid, measure.signal()));
        }
        actions
    }

    /// Time of the next check.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.watch.next_due(&self.scoreboard)
    }
}
