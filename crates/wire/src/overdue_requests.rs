//! Finds requests on the scoreboard that take too long: for the supervisor of a pool, and in a
//! worker without a supervisor.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    running_clock,
    scoreboard::{Scoreboard, ScoreboardLine, ThreadStatus},
};

/// Time for a request to end after its worker was asked to interrupt it.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for a worker to write its stacks after SIGABRT.
const ABORT_TIMEOUT: Duration = Duration::from_millis(500);

/// What to do about an overdue request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Log that the request is slow, with the stacks of its worker.
    LogSlow,
    /// Interrupt the request.
    Interrupt,
    /// Abort the worker, which writes its stacks.
    Abort,
    /// Kill the worker.
    Kill,
}

impl Action {
    /// The signal that makes a worker take the action.
    pub fn signal(self) -> Signal {
        match self {
            Self::LogSlow => Signal::USR1,
            Self::Interrupt => Signal::USR2,
            Self::Abort => Signal::ABORT,
            Self::Kill => Signal::KILL,
        }
    }
}

/// The limits, and the actions already taken.
pub struct OverdueWatch {
    slow: Option<Duration>,
    /// The shortest timeout that a request can have.
    shortest_timeout: Option<Duration>,
    requests: Vec<WatchedRequest>,
}

/// The request that a line showed at the last look.
#[derive(Clone, Copy, Debug, Default)]
struct WatchedRequest {
    since: u64,
    served: u64,
    pid: i32,
    is_logged: bool,
    /// The timeout to which `steps` belongs.
    timeout: Option<Duration>,
    /// How many of the steps after the timeout were taken.
    steps: usize,
}

impl WatchedRequest {
    /// Does `status` show the same request?
    fn is_in(&self, status: &ThreadStatus) -> bool {
        (self.since, self.served, self.pid) == (status.since, status.served, status.pid)
    }
}

impl OverdueWatch {
    /// Watches the first `lines` lines of a scoreboard for requests that take longer than `slow` or
    /// the timeout in their line, which is at least `shortest_timeout`.
    pub fn new(slow: Option<Duration>, shortest_timeout: Option<Duration>, lines: usize) -> Self {
        Self { slow, shortest_timeout, requests: vec![WatchedRequest::default(); lines] }
    }

    /// Does this watch have these limits, for so many lines?
    pub fn has_limits(
        &self,
        slow: Option<Duration>,
        timeout: Option<Duration>,
        lines: usize,
    ) -> bool {
        (self.slow, self.shortest_timeout, self.requests.len()) == (slow, timeout, lines)
    }

    /// Returns the actions that are due now, each once.
    pub fn look(&mut self, scoreboard: &Scoreboard) -> Vec<(Action, ThreadStatus)> {
        let mut due = Vec::new();
        if self.slow.is_none() && self.shortest_timeout.is_none() {
            return due;
        }
        for (number, request) in self.requests.iter_mut().enumerate() {
            let status = scoreboard.line(number).and_then(ScoreboardLine::read);
            let Some(status) = status.filter(|status| status.busy) else {
                continue;
            };
            if !request.is_in(&status) {
                let ThreadStatus { since, served, pid, .. } = status;
                *request = WatchedRequest { since, served, pid, ..WatchedRequest::default() };
            }
            if request.timeout != status.timeout {
                // The application has asked for more time.
                (request.timeout, request.steps) = (status.timeout, 0);
            }
            let steps = steps(status.timeout);
            let elapsed = status.elapsed();
            if self.slow.is_some_and(|slow| elapsed >= slow) && !request.is_logged {
                request.is_logged = true;
                due.push((Action::LogSlow, status.clone()));
            }
            while let Some((after, action)) = steps.get(request.steps)
                && elapsed >= *after
            {
                request.steps += 1;
                due.push((*action, status.clone()));
            }
        }
        due
    }

    /// When to look again, by the clock of [`running_clock`]; `None` without any limit.
    pub fn next_due(&self, scoreboard: &Scoreboard) -> Option<Instant> {
        // A request with this timeout may begin at any time.
        let soonest = self.slow.iter().chain(&self.shortest_timeout).min().copied()?;
        let waits = self.requests.iter().enumerate().filter_map(|(number, request)| {
            let status = scoreboard.line(number)?.read().filter(|status| status.busy);
            let Some(status) = status else {
                return Some(soonest);
            };
            let is_known = request.is_in(&status);
            let is_logged = is_known && request.is_logged;
            let taken =
                if is_known && request.timeout == status.timeout { request.steps } else { 0 };
            let step = steps(status.timeout).get(taken).map(|(after, _)| *after);
            let next = self.slow.filter(|_| !is_logged).into_iter().chain(step).min();
            let left = next.map(|next| next.saturating_sub(status.elapsed()));
            Some(left.map_or(soonest, |left| left.min(soonest)))
        });
        waits.min().map(|wait| running_clock::instant() + wait)
    }
}

/// The actions after `timeout`, and when each is due after the beginning of a request.
fn steps(timeout: Option<Duration>) -> Vec<(Duration, Action)> {
    let Some(timeout) = timeout else {
        return Vec::new();
    };
    vec![
        (timeout, Action::Interrupt),
        (timeout + INTERRUPT_TIMEOUT, Action::Abort),
        (timeout + INTERRUPT_TIMEOUT + ABORT_TIMEOUT, Action::Kill),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(watch: &mut OverdueWatch, board: &Scoreboard) -> Vec<Action> {
        watch.look(board).into_iter().map(|(action, _)| action).collect()
    }

    #[test]
    fn each_action_is_due_once_for_each_request() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.claim(4711, 0);
        let shortest = Duration::from_secs(1);
        let mut watch = OverdueWatch::new(Some(Duration::ZERO), Some(shortest), 1);
        assert_eq!(actions(&mut watch, &board), []);
        for _ in 0..2 {
            line.begin("GET /");
            line.set_timeout(1);
            std::thread::sleep(Duration::from_millis(10));
            assert_eq!(actions(&mut watch, &board), [Action::LogSlow, Action::Interrupt]);
            assert_eq!(actions(&mut watch, &board), []);
            line.end();
            assert_eq!(actions(&mut watch, &board), []);
        }
    }

    #[test]
    fn all_actions_are_due_again_after_a_later_timeout_and_none_without_a_timeout() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let line = board.line(0).unwrap();
        line.claim(4711, 0);
        let mut watch = OverdueWatch::new(None, Some(Duration::from_millis(1)), 1);
        line.begin("GET /");
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(actions(&mut watch, &board), []);
        for milliseconds in [1, 2] {
            line.set_timeout(milliseconds);
            assert_eq!(actions(&mut watch, &board), [Action::Interrupt]);
        }
        line.set_timeout(60_000);
        assert_eq!(actions(&mut watch, &board), []);
        let due = watch.next_due(&board).unwrap() - running_clock::instant();
        assert!(due <= Duration::from_millis(1), "another request may begin: {due:?}");
    }

    #[test]
    fn without_a_limit_nothing_is_due() {
        let (board, _descriptor) = Scoreboard::create(1).unwrap();
        let mut watch = OverdueWatch::new(None, None, 1);
        board.line(0).unwrap().claim(1, 0);
        board.line(0).unwrap().begin("GET /");
        assert_eq!(actions(&mut watch, &board), []);
        assert_eq!(watch.next_due(&board), None);
    }
}
