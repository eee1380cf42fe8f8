//! Limits log messages that any client can cause. Each kind is logged once a minute, with the
//! number of suppressed messages.

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

/// The minimum time between two messages of one kind, in milliseconds.
const INTERVAL_MILLIS: u64 = 60_000;

/// How far the coarse clock may lag, in milliseconds.
const CLOCK_LAG_MILLIS: u64 = 20;

/// The value of [`DUE`] while no count is due.
const NEVER: u64 = u64::MAX;

/// The kind of a limited message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitedMessage {
    /// The bytes are not FastCGI.
    OtherVersion,
    /// A record that begins a request has the wrong length.
    BeginLength,
    /// A new request has the id of an active request.
    AlreadyActive,
    /// A stream came out of order.
    OutOfOrder,
    /// The parameters are too long.
    LongParams,
    /// There are too many parameters.
    ManyParams,
    /// The parameters end in the middle.
    CutParams,
    /// The start of a request exceeded its timeout.
    HeaderTimeout,
    /// There were too many connections.
    Connections,
    /// The parameters of incomplete requests took too much memory.
    ParamsMemory,
    /// The address of a web server is not allowed.
    RefusedAddress,
}

/// The number of kinds.
const MESSAGE_KINDS: usize = LimitedMessage::RefusedAddress as usize + 1;

/// The history of each kind.
static LOGGED: Mutex<[MessageHistory; MESSAGE_KINDS]> =
    Mutex::new([const { MessageHistory { next: 0, left_out: None } }; MESSAGE_KINDS]);

/// When [`write_due_counts`] is due, in milliseconds of the monotonic clock.
static DUE: AtomicU64 = AtomicU64::new(NEVER);

#[derive(Debug)]
struct MessageHistory {
    /// When the next message of this kind may be logged, in milliseconds of the monotonic clock.
    next: u64,
    /// The first message suppressed since the last log message, and the number of suppressed
    /// messages.
    left_out: Option<(LogMessage, u64)>,
}

impl LimitedMessage {
    /// Logs a message of this kind, unless the last minute already had one.
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

/// The time until [`write_due_counts`] is due.
pub(crate) fn left() -> Option<Duration> {
    let due = DUE.load(Ordering::Relaxed);
    (due < NEVER).then(|| Duration::from_millis(due.saturating_sub(recently()) + CLOCK_LAG_MILLIS))
}

/// Logs the numbers of suppressed messages, for the kinds that are due.
pub(crate) fn write_due_counts() {
    let due = DUE.load(Ordering::Relaxed);
    if due < NEVER && due <= recently() {
        write_counts(recently());
    }
}

/// Logs all numbers of suppressed messages before this process exits.
pub(crate) fn write_all_counts() {
    if DUE.load(Ordering::Relaxed) < NEVER {
        write_counts(NEVER);
    }
}

#[cold]
fn write_counts(until: u64) {
    let mut due = NEVER;
    let mut suppressed = Vec::new();
    {
        let mut all = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        for logged in all.iter_mut().filter(|logged| logged.left_out.is_some()) {
            if logged.next <= until {
                suppressed.extend(logged.left_out.take());
                logged.next = recently() + INTERVAL_MILLIS;
            } else {
                due = due.min(logged.next);
            }
        }
        DUE.store(due, Ordering::Relaxed);
    }
    for (message, count) in suppressed {
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        Log::without_request("connection")
            .write(&message.detail(format!("this or the like, {times} since the last message")));
    }
}
