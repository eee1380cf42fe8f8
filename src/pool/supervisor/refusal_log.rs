//! Log messages about requests that are refused since they have waited too long: one for many of
//! them.

use std::time::{Duration, Instant};

use diagnostics::message::LogMessage;
use wire::running_clock;

use crate::{pool::supervisor::action::Action, request::Request};

/// Minimum time between two log messages about refused requests.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Limits the log messages about refused requests.
#[derive(Default)]
pub(super) struct RefusalLog {
    next: Option<Instant>,
    /// Number of requests that were refused without a log message.
    left_out: u64,
}

impl RefusalLog {
    /// Logs that `refused` were refused for `reason`: the first of them, if the last message is
    /// long ago, with the number of those that were not logged.
    pub(super) fn actions(&mut self, refused: Vec<Request>, reason: &LogMessage) -> Vec<Action> {
        let now = running_clock::instant();
        let is_due = self.next.is_none_or(|next| now >= next);
        let mut refused = refused.into_iter();
        let mut actions = Vec::new();
        if is_due {
            let count = std::mem::take(&mut self.left_out);
            let message = match count {
                0 => reason.clone(),
                1 => reason.clone().detail("another request was refused since the last message"),
                _ => {
                    let detail = format!("{count} requests were refused since the last message");
                    reason.clone().detail(detail)
                }
            };
            if let Some(first) = refused.next() {
                actions.push(Action::LogRequest(message, Box::new(first)));
                self.next = Some(now + LOG_INTERVAL);
            } else if count > 0 {
                actions.push(Action::Log(message));
                self.next = Some(now + LOG_INTERVAL);
            }
        }
        self.left_out += u64::try_from(refused.count()).unwrap_or(u64::MAX);
        actions
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next.filter(|_| self.left_out > 0)
    }
}
