//! Looks at the scoreboard for requests that take too long.

use std::time::{Duration, Instant};

use link::scoreboard::{Reading, Scoreboard, now};

/// How long a request may take to end after its worker was told to interrupt it.
const GRACE: Duration = Duration::from_secs(2);

/// How long the worker then has to write its stacks.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Say that it is slow, with the stacks.
    Tell,
    /// Interrupt it.
    Interrupt,
    /// End the worker, which writes its stacks.
    Abort,
    /// End the worker.
    Kill,
}

/// Limits, and what was done already.
pub(super) struct Watch {
    slow: Option<Duration>,
    timeout: Option<Duration>,
    lines: Vec<Seen>,
}

/// The request that a line had when it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    since: u64,
    served: u64,
    pid: i32,
    /// How many of the actions were taken.
    told: bool,
    steps: usize,
}

impl Watch {
    /// Watches `lines` lines.
    pub(super) fn new(slow: Option<Duration>, timeout: Option<Duration>, lines: usize) -> Self {
        Self { slow, timeout, lines: vec![Seen::default(); lines] }
    }

    /// What is due now.
    pub(super) fn look(&mut self, scoreboard: &Scoreboard) -> Vec<(Action, Reading)> {
        let mut due = Vec::new();
        if self.slow.is_none() && self.timeout.is_none() {
            return due;
        }
        let steps = self.steps();
        for (number, seen) in self.lines.iter_mut().enumerate() {
            let Some(reading) = scoreboard.line(number).and_then(link::scoreboard::Line::read).filter(|read| read.busy)
            else {
                continue;
            };
            if (seen.since, seen.served, seen.pid) != (reading.since, reading.served, reading.pid) {
                *seen = Seen { since: reading.since, served: reading.served, pid: reading.pid, told: false, steps: 0 };
            }
            let lasts = reading.lasts();
            if self.slow.is_some_and(|slow| lasts >= slow) && !seen.told {
                seen.told = true;
                due.push((Action::Tell, reading.clone()));
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

    /// When to look again, if a request is being served that has a limit.
    pub(super) fn next_due(&self, scoreboard: &Scoreboard) -> Option<Instant> {
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
            let is_known = (seen.since, seen.served, seen.pid) == (reading.since, reading.served, reading.pid);
            let told = is_known && seen.told;
            let step = steps.get(if is_known { seen.steps } else { 0 }).map(|(after, _)| *after);
            let next = self.slow.filter(|_| !told).into_iter().chain(step).min()?;
            Some(next.saturating_sub(Duration::from_millis(now().saturating_sub(reading.since))))
        });
        waits.min().map(|wait| Instant::now() + wait)
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
