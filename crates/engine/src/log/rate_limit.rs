//! Log messages about what anybody may bring about who can connect: of each kind one a minute, with
//! the number of those that were left out.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use diagnostics::message::LogMessage;
use wire::clock::recently;

use crate::log::Log;

/// Least time between two messages of a kind, in milliseconds.
const INTERVAL_MILLIS: u64 = 60_000;

/// Milliseconds by which the clock that is used may be late.
const CLOCK_LAG_MILLIS: u64 = 20;

/// No time of the clock.
const NEVER: u64 = u64::MAX;

/// What such a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitedMessage {
    /// Bytes that are not FastCGI.
    OtherVersion,
    /// A record that begins a request and has the wrong length.
    BeginLength,
    /// A request with the id of another.
    AlreadyActive,
    /// A stream before its turn.
    OutOfOrder,
    /// Parameters that are too long.
    LongParams,
    /// Too many parameters.
    ManyParams,
    /// Parameters that end in the middle.
    CutParams,
    /// The start of a request took too long.
    HeaderTimeout,
    /// There were too many connections.
    Connections,
    /// The starts of requests took too much memory.
    ParamsMemory,
    /// A web server may not connect.
    RefusedAddress,
}

/// How many kinds there are.
const MESSAGE_KINDS: usize = LimitedMessage::RefusedAddress as usize + 1;

/// What was logged of each kind.
static LOGGED: Mutex<[MessageHistory; MESSAGE_KINDS]> =
    Mutex::new([const { MessageHistory { next: 0, left_out: None } }; MESSAGE_KINDS]);

/// When [`write_due_counts`] has something to tell, in milliseconds of the monotonic clock.
static DUE: AtomicU64 = AtomicU64::new(NEVER);

#[derive(Debug)]
struct MessageHistory {
    /// When the next message of this kind may be logged, in milliseconds of the monotonic clock.
    next: u64,
    /// The first message that was left out since the last one, and how many were.
    left_out: Option<(LogMessage, u64)>,
}

impl LimitedMessage {
    /// Logs a message of this kind, unless there was one in the last minute.
    pub(crate) fn write(self, log: &Log, message: impl FnOnce() -> LogMessage) {
        let now = recently();
        {
            let mut all = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
            let logged = &mut all[self as usize];
            if now < logged.next {
                match &mut logged.left_out {
                    Some((_, count)) => *count += 1,
                    none => {
                        *none = Some((message(), 1));
                        DUE.fetch_min(logged.next, Ordering::Relaxed);
                    }
                }
                return;
            }
            logged.next = now + INTERVAL_MILLIS;
        }
        log.write(&message());
    }
}

/// How long until [`write_due_counts`] has something to tell.
pub(crate) fn left() -> Option<Duration> {
    let due = DUE.load(Ordering::Relaxed);
    (due < NEVER).then(|| Duration::from_millis(due.saturating_sub(recently()) + CLOCK_LAG_MILLIS))
}

/// Logs how many messages were left out, of those kinds for which it is time.
pub(crate) fn write_due_counts() {
    let due = DUE.load(Ordering::Relaxed);
    if due < NEVER && due <= recently() {
        tell(recently());
    }
}

/// Logs how many messages were left out: this process exits.
pub(crate) fn write_all_counts() {
    if DUE.load(Ordering::Relaxed) < NEVER {
        tell(NEVER);
    }
}

#[cold]
fn tell(until: u64) {
    let mut due = NEVER;
    let mut entries = Vec::new();
    {
        let mut all = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        for logged in all.iter_mut().filter(|logged| logged.left_out.is_some()) {
            if logged.next <= until {
                entries.extend(logged.left_out.take());
                logged.next = recently() + INTERVAL_MILLIS;
            } else {
                due = due.min(logged.next);
            }
        }
        DUE.store(due, Ordering::Relaxed);
    }
    for (message, count) in entries {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        Log::new("-", "(connection)")
            .write(&message.detail(format!("this or the like, {times} since the last message")));
    }
}
