//! The deadline for the exit of this process, which the kernel enforces.
//!
//! A timer ticks [`TICKS`] times until the deadline. A process that was suspended meanwhile
//! (SIGSTOP) gets one tick for all missed ticks, and so keeps most of its time.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::process::{
    forks,
    timers::kernel_timer::{KernelTimer, Published, abort},
};

/// Ticks of the timer until the deadline.
const TICKS: u32 = 8;

static TIMER: KernelTimer = KernelTimer::new(0);

/// The action of the signal handler at the deadline.
static DEADLINE: Published<ExitDeadline> = Published::new();

/// The remaining ticks; 0 unless the deadline has started.
static TICKS_LEFT: AtomicU32 = AtomicU32::new(0);

/// The number of running requests, in processes that count them.
static SERVING: AtomicU32 = AtomicU32::new(0);

/// Counts one running request. The warning of [`prepare`] is written only while requests are
/// running.
pub(crate) struct ServingRequest(());

impl ServingRequest {
    /// Counts a request until the value is dropped.
    pub(crate) fn begin() -> Self {
        SERVING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for ServingRequest {
    fn drop(&mut self) {
        SERVING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the process ends at the deadline, after the message was written.
#[derive(Clone, Copy)]
pub(crate) enum DeadlineEnd {
    /// With this exit status.
    Status(i32),
    /// By SIGABRT, at which `faulthandler` writes the stacks.
    Abort,
}

/// A log message before the deadline. SIGUSR1 then writes the stacks.
pub(crate) struct DeadlineWarning {
    /// The time from the start of the deadline to the message.
    pub(crate) after: Duration,
    /// The log message.
    pub(crate) message: String,
}

struct ExitDeadline {
    tick: Duration,
    message: Vec<u8>,
    end: DeadlineEnd,
    /// The number of remaining ticks at which the warning is due, and its message.
    warning: Option<(u32, Vec<u8>)>,
}

/// Writes `message` to the log and ends this process after `limit`. Replaces an earlier deadline.
///
/// There is no deadline if the kernel has no timer left for this user.
pub(crate) fn set(limit: Duration, message: String, end: DeadlineEnd) {
    prepare(limit, message, end, None);
    begin();
}

/// As [`set`], unless an earlier deadline has started.
pub(crate) fn set_if_earlier(limit: Duration, message: String, end: DeadlineEnd) {
    let left = TICKS_LEFT.load(Ordering::Acquire);
    if left == 0 || DEADLINE.get().is_none_or(|deadline| deadline.tick * left > limit) {
        set(limit, message, end);
    }
}

/// Prepares a deadline as in [`set`]; [`begin`] starts it.
pub(crate) fn prepare(
    limit: Duration,
    message: String,
    end: DeadlineEnd,
    warning: Option<DeadlineWarning>,
) {
    let tick = (limit / TICKS).max(Duration::from_millis(1));
    let warning = warning.and_then(|warning| {
        let before = u32::try_from(warning.after.as_millis().div_ceil(tick.as_millis().max(1)))
            .unwrap_or(TICKS);
        (before < TICKS).then(|| (TICKS - before, warning.message.into_bytes()))
    });
    TICKS_LEFT.store(0, Ordering::Release);
    DEADLINE.set(ExitDeadline { tick, message: message.into_bytes(), end, warning });
    if !TIMER.exists() {
        TIMER.handle(on_tick);
        TIMER.create();
    }
}

/// Starts the prepared deadline, unless it has started. Async-signal-safe.
pub(crate) extern "C" fn begin() {
    let Some(deadline) = DEADLINE.get().filter(|_| TIMER.exists()) else {
        return;
    };
    if TICKS_LEFT.compare_exchange(0, TICKS, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        TIMER.arm(deadline.tick, true);
    }
}

/// Runs as a signal handler.
extern "C" fn on_tick(
    _signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    let Ok(left) =
        TICKS_LEFT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
    else {
        return;
    };
    let Some(deadline) = DEADLINE.get() else {
        return;
    };
    if let Some((_, message)) = deadline
        .warning
        .as_ref()
        .filter(|(at, _)| *at == left - 1 && SERVING.load(Ordering::Relaxed) > 0)
    {
        // The handler that writes the stacks would wait for a reader.
        if forks::write_to_log(message) {
            // SAFETY: the call is async-signal-safe, and touches no memory.
            unsafe { libc::raise(libc::SIGUSR1) };
        }
    }
    if left > 1 {
        return;
    }
    let has_room = forks::write_to_log(&deadline.message);
    // SAFETY: the calls are async-signal-safe, and touch no memory.
    unsafe {
        match deadline.end {
            DeadlineEnd::Status(status) => libc::_exit(status),
            DeadlineEnd::Abort => {
                if has_room {
                    abort();
                }
                // Nobody reads the log, or the application handles SIGABRT.
                libc::_exit(1)
            }
        }
    }
}
