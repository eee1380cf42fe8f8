//! How long, and how many requests of a FastCGI pool may wait for a worker.

use std::{fmt, time::Duration};

use clap::Args;

use crate::config::options::{Context, contexts::ActsIn, count, seconds};

/// Requests that wait unless an option says otherwise.
const DEFAULT_LENGTH: u32 = 1000;

/// The options of a pool about requests that wait.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct QueueOptions {
    /// Return 503 Service Unavailable to a request that has waited SECONDS for an idle worker; 0
    /// sets no limit [default: 0]
    ///
    /// The response has a Retry-After header. The log message is W0750, once a minute.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    queue: Option<u64>,

    /// Return 503 Service Unavailable to a request that arrives while COUNT others wait for an
    /// idle worker [default: 1000]
    ///
    /// Without this option and --queue there is no limit. The limit is never above half of the file
    /// descriptors that the supervisor may open.
    #[arg(long, value_name = "COUNT", value_parser = count(1, u32::MAX))]
    queue_length: Option<u32>,
}

impl ActsIn for QueueOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool];
}

/// Limits of the requests that wait for a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// How long a request may wait.
    pub(super) time: Option<Duration>,
    /// How many requests may wait.
    pub(super) length: usize,
}

impl QueueOptions {
    /// The options that were given.
    pub(super) fn given(self) -> [(&'static str, bool); 2] {
        [("queue", self.queue.is_some()), ("queue-length", self.queue_length.is_some())]
    }

    /// Each option, and whether it has another value than in `other`.
    pub(super) fn changes(self, other: Self) -> [(&'static str, bool); 2] {
        [
            ("queue", self.queue != other.queue),
            ("queue-length", self.queue_length != other.queue_length),
        ]
    }

    /// The limits, if there are any.
    pub(super) fn limits(self) -> Option<QueueLimits> {
        let time = self.queue.filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let length = self.queue_length.or(time.map(|_| DEFAULT_LENGTH))?;
        Some(QueueLimits { time, length: usize::try_from(length).unwrap_or(usize::MAX) })
    }
}

impl fmt::Display for QueueLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(time) = self.time {
            write!(f, "--queue is {} s, ", time.as_secs())?;
        }
        write!(f, "--queue-length is {}", self.length)
    }
}
