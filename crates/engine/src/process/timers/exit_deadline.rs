//! Deadlines for the end of this process, kept by the kernel: no thread is needed, and nothing that
//! holds the interpreter can delay them.
//!
//! A timer ticks [`TICKS`] times until the deadline. A process that was stopped meanwhile gets one
//! tick for all that it has missed, and so has nearly all of its time yet.

use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering},
    time::Duration,
};

use crate::process::{forks, timers::abort};

/// Ticks of the timer until the deadline.
const TICKS: u32 = 8;

/// Requests that are being served, as far as they are counted.
static SERVING: AtomicU32 = AtomicU32::new(0);

/// A request is being served: the warning of [`prepare`] is about such ones.
pub(crate) struct Serving(());

impl Serving {
    /// A request begins.
    pub(crate) fn begin() -> Self {
        SERVING.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How the process ends at the deadline, after the message was written.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// With this exit status.
    Status(i32),
    /// By SIGABRT, upon which the stacks are written.
    Abort,
}

/// A message before the deadline, with the stacks that SIGUSR1 brings about.
pub(crate) struct Warning {
    /// How long after the beginning.
    pub(crate) after: Duration,
    /// What is written to standard error.
    pub(crate) message: String,
}

/// What the signal handler needs.
struct Passed {
    tick: Duration,
    message: Vec<u8>,
    end: End,
    /// Ticks that are left when it is time for the warning, and its message.
    warning: Option<(u32, Vec<u8>)>,
}

/// Never freed, since a signal handler may read it at any time.
static PASSED: AtomicPtr<Passed> = AtomicPtr::new(ptr::null_mut());

/// The timer, once there is one.
static TIMER: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
static HAS_TIMER: AtomicBool = AtomicBool::new(false);

/// Ticks that are left.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Ends this process after `limit`, unless it has ended before. `message` is written to standard
/// error first. A deadline that was set or prepared before is none any more.
///
/// Where the kernel has no timer left for this user there is no deadline.
pub(crate) fn set(limit: Duration, message: String, end: End) {
    prepare(limit, message, end, None);
    begin();
}

/// As [`set`], unless time counts already until an earlier deadline.
pub(crate) fn set_if_earlier(limit: Duration, message: String, end: End) {
    let left = LEFT.load(Ordering::Acquire);
    // SAFETY: the pointer is null or that of a box that is never freed.
    let passed = unsafe { PASSED.load(Ordering::Acquire).as_ref() };
    if left == 0 || passed.is_none_or(|passed| passed.tick * left > limit) {
        set(limit, message, end);
    }
}

/// Makes ready what [`set`] does, for [`begin`].
pub(crate) fn prepare(limit: Duration, message: String, end: End, warning: Option<Warning>) {
    let tick = (limit / TICKS).max(Duration::from_millis(1));
    let warning = warning.and_then(|warning| {
        let before = u32::try_from(warning.after.as_millis().div_ceil(tick.as_millis().max(1)))
            .unwrap_or(TICKS);
        (before < TICKS).then(|| (TICKS - before, warning.message.into_bytes()))
    });
    let passed = Passed { tick, message: message.into_bytes(), end, warning };
    LEFT.store(0, Ordering::Release);
    PASSED.store(Box::into_raw(Box::new(passed)), Ordering::Release);
    if HAS_TIMER.load(Ordering::Acquire) {
        return;
    }
    // The last of the real-time signals: applications use the first ones, if any.
    let signal = libc::SIGRTMAX();
    // SAFETY: all-zero is a valid value of each of these structures, and the fields that count are
    // set. The handler calls functions only that are async-signal-safe. The calls take pointers to
    // live values.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        // A signal number that exists is not refused.
        let _ = forks::install_action(signal, &action);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
            TIMER.store(timer, Ordering::Release);
            HAS_TIMER.store(true, Ordering::Release);
        }
    }
}

/// From now on time counts until the deadline that was prepared, unless it does already. Runs as a
/// signal handler, too.
pub(crate) extern "C" fn begin() {
    // SAFETY: the pointer is null or that of a box that is never freed.
    let passed = unsafe { PASSED.load(Ordering::Acquire).as_ref() };
    let Some(passed) = passed.filter(|_| HAS_TIMER.load(Ordering::Acquire)) else {
        return;
    };
    if LEFT.compare_exchange(0, TICKS, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: all-zero is a valid value of the structure; timer_settime(2) is async-signal-safe,
    // and the timer is one of this process's that is never deleted.
    unsafe {
        let mut time: libc::itimerspec = std::mem::zeroed();
        time.it_value.tv_sec = passed.tick.as_secs().try_into().unwrap_or(libc::time_t::MAX);
        time.it_value.tv_nsec = passed.tick.subsec_nanos().into();
        time.it_interval = time.it_value;
        libc::timer_settime(TIMER.load(Ordering::Acquire), 0, &raw const time, ptr::null_mut());
    }
}

/// Runs as a signal handler.
extern "C" fn on_tick(_signal: libc::c_int) {
    let Ok(left) =
        LEFT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
    else {
        return;
    };
    // SAFETY: the pointer is null or that of a box that is never freed.
    let Some(passed) = (unsafe { PASSED.load(Ordering::Acquire).as_ref() }) else {
        return;
    };
    if let Some((_, message)) = passed
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
    let has_room = forks::write_to_log(&passed.message);
    // SAFETY: the calls are async-signal-safe, and touch no memory.
    unsafe {
        match passed.end {
            End::Status(status) => libc::_exit(status),
            End::Abort => {
                if has_room {
                    abort();
                }
                // Nobody reads the log, or the application has a handler for the signal.
                libc::_exit(1)
            }
        }
    }
}
