//! Looks at the scoreboard for requests that take too long: for the supervisor of a pool, and in a
//! worker that has none.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    running_clock,
    scoreboard::{Scoreboard, ScoreboardLine, ThreadStatus},
};
use diagnostics::message::{Code, LogMessage};

/// How long a request may take to end after its worker was told to interrupt it.
const GRACE: Duration = Duration::from_secs(2);

/// How long the worker then has to write its stacks.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say that it is slow, with the stacks.
    LogSlow,
    /// Interrupt it.
    Interrupt,
    /// End the worker, which writes its stacks.
    Abort,
    /// End the worker.
    Kill,
}

impl Action {
    /// The signal that has a worker do it.
    pub fn signal(self) -> Signal {
        match self {
            Self::LogSlow => Signal::USR1,
            Self::Interrupt => Signal::USR2,
            Self::Abort => Signal::ABORT,
            Self::Kill => Signal::KILL,
        }
    }

    /// What the log is told of it, about the request in `reading`.
    pub fn entry(self, reading: &ThreadStatus) -> Option<LogMessage> {
        let ThreadStatus { request, pid, .. } = reading;
        let seconds = reading.lasts().as_secs_f32();
        match self {
            Self::LogSlow => Some(
                LogMessage::warning(
                    Code::SlowRequest,
                    format!(
                        "the request `{request}` has been taking {seconds:.1} s in worker {pid}"
                    ),
                )
                .hint("the stacks of the worker's threads follow, the innermost call first"),
            ),
            Self::Abort => Some(
                LogMessage::error(
                    Code::TimedOut,
                    format!(
                        "the request `{request}` could not be interrupted after {seconds:.1} s; \
                         its worker is ended"
                    ),
                )
                .hint(
                    "the stacks follow; it waits in C code, or the application catches the \
                     exception",
                ),
            ),
            Self::Interrupt | Self::Kill => None,
        }
    }
}

/// Limits, and what was done already.
pub struct OverdueWatch {
    slow: Option<Duration>,
    timeout: Option<Duration>,
    lines: Vec<WatchedRequest>,
}

/// The request that a line had when it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct WatchedRequest {
    since: u64,
    served: u64,
    pid: i32,
    /// How many of the actions were taken.
    told: bool,
    steps: usize,
}

impl OverdueWatch {
    /// Watches `lines` lines.
    pub fn new(slow: Option<Duration>, timeout: Option<Duration>, lines: usize) -> Self {
        Self { slow, timeout, lines: vec![WatchedRequest::default(); lines] }
    }

    /// What is due now.
    pub fn look(&mut self, scoreboard: &Scoreboard) -> Vec<(Action, ThreadStatus)> {
        let mut due = Vec::new();
        if self.slow.is_none() && self.timeout.is_none() {
            return due;
        }
        let steps = self.steps();
        for (number, seen) in self.lines.iter_mut().enumerate() {
            let Some(reading) =
                scoreboard.line(number).and_then(ScoreboardLine::read).filter(|read| read.busy)
            else {
                continue;
            };
            if (seen.since, seen.served, seen.pid) != (reading.since, reading.served, reading.pid) {
                *seen = WatchedRequest {
                    since: reading.since,
                    served: reading.served,
                    pid: reading.pid,
                    told: false,
                    steps: 0,
                };
            }
            let lasts = reading.lasts();
            if self.slow.is_some_and(|slow| lasts >= slow) && !seen.told {
                seen.told = true;
                due.push((Action::LogSlow, reading.clone()));
            }
            while let Some((after, action)) = steps.get(seen.steps)
                && lasts >= *after
            {
                seen.steps += 1;
                due.push((*action, reading.clone()));
            }
        }
        due
    }

    /// When to look again, by the clock of [`running_clock`], if there is any limit.
    pub fn next_due(&self, scoreboard: &Scoreboard) -> Option<Instant> {
        if self.slow.is_none() && self.timeout.is_none() {
            return None;
        }
        let steps = self.steps();
        let waits = self.lines.iter().enumerate().filter_map(|(number, seen)| {
            let reading = scoreboard.line(number)?.read().filter(|reading| reading.busy);
            let Some(reading) = reading else {
                // A request may begin at any time, and has at least this long.
                return self.slow.iter().chain(&self.timeout).min().copied();
            };
            let is_known =
                (seen.since, seen.served, seen.pid) == (reading.since, reading.served, reading.pid);
            let told = is_known && seen.told;
            let step = steps.get(if is_known { seen.steps } else { 0 }).map(|(after, _)| *after);
            let next = self.slow.filter(|_| !told).into_iter().chain(step).min()?;
            Some(next.saturating_sub(reading.lasts()))
        });
        waits.min().map(|wait| running_clock::instant() + wait)
    }

    fn steps(&self) -> Vec<(Duration, Action)> {
        let Some(timeout) = self.timeout else {
            return Vec::new();
        };
        vec![
            (timeout, Action::Interrupt),
            (timeout + GRACE, Action::Abort),
            (timeout + GRACE + LAST_WORDS, Action::Kill),
        ]
    }
}
