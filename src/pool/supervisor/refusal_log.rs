//! Log messages about requests that are refused since they have waited too long: one for many of
//! them.

use std::time::{Duration, Instant, SystemTime};

use diagnostics::{
    message::{Code, LogMessage},
    timestamp::Timestamp,
};
use wire::running_clock;

use crate::{
    pool::{queue_options::QueueLimits, supervisor::action::Action},
    request::Request,
};

/// Minimum time between two log messages about refused requests.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A limit of the queue that a request has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueLimit {
    /// How long a request may wait.
    Time,
    /// How many requests may wait.
    Length,
}

impl QueueLimit {
    /// The log message about a request that has reached this one of `limits`.
    pub(super) fn refusal(self, limits: QueueLimits) -> LogMessage {
        let reached = match (self, limits.time) {
            (Self::Time, Some(time)) => {
                format!("the request has waited for {} s", time.as_secs())
            }
            _ => "as many requests wait as may".to_owned(),
        };
        let sentence = format!("request refused: all workers are busy, and {reached} ({limits})");
        LogMessage::new(Code::QueueFull, sentence).hint(
            "see with `wsgate status` what takes long; raise --workers or --threads for more \
             requests at a time, or --queue and --queue-length for longer waits",
        )
    }
}

/// Limits the log messages about refused requests.
#[derive(Default)]
pub(super) struct RefusalLog {
    next: Option<Instant>,
    left_out: Option<LeftOut>,
}

/// Requests that were refused without a log message.
struct LeftOut {
    count: u64,
    first: SystemTime,
    last: SystemTime,
}

impl RefusalLog {
    /// Logs that `refused` were refused for `reason`: the first of them, if the last message is
    /// long ago, after a summary of those that were not logged.
    pub(super) fn actions(&mut self, refused: Vec<Request>, reason: &LogMessage) -> Vec<Action> {
        let now = running_clock::instant();
        let mut refused = refused.into_iter();
        let mut actions = Vec::new();
        if self.next.is_none_or(|next| now >= next) {
            let left_out = self.left_out.take();
            actions.extend(left_out.map(|left_out| Action::Log(left_out.summary())));
            let first = refused.next();
            actions.extend(first.map(|it| Action::LogRequest(reason.clone(), Box::new(it))));
            if !actions.is_empty() {
                self.next = Some(now + LOG_INTERVAL);
            }
        }
        for _ in refused {
            let last = SystemTime::now();
            let left_out = self.left_out.get_or_insert(LeftOut { count: 0, first: last, last });
            (left_out.count, left_out.last) = (left_out.count + 1, last);
        }
        actions
    }

    /// The pool stops: what was left out is logged now.
    pub(super) fn finish(&mut self) {
        self.next = None;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next.filter(|_| self.left_out.is_some())
    }
}

impl LeftOut {
    /// The time of the message is later than that of the refusals, so the message names theirs.
    fn summary(&self) -> LogMessage {
        let [first, last] = [self.first, self.last].map(Timestamp::of);
        let sentence = match self.count {
            1 => format!("1 more request was refused, at {}", first.as_str()),
            count => {
                let (first, last) = (first.as_str(), last.as_str());
                format!("{count} more requests were refused, from {first} to {last}")
            }
        };
        LogMessage::new(Code::QueueFull, format!("{sentence}: all workers were busy")).hint(
            "messages about refused requests are at least 60 s apart; the first has a request",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_the_number_and_the_time_of_what_was_left_out() {
        let [first, last] =
            [1000, 1059].map(|time| SystemTime::UNIX_EPOCH + Duration::from_secs(time));
        let text = |count| LeftOut { count, first, last }.summary().for_client();
        let expected = "12 more requests were refused, from 1970-01-01T00:16:40.000Z to \
                        1970-01-01T00:17:39.000Z: all workers were busy";
        assert!(text(12).contains(expected), "{}", text(12));
        let expected = "1 more request was refused, at 1970-01-01T00:16:40.000Z: all workers";
        assert!(text(1).contains(expected), "{}", text(1));
    }
}
