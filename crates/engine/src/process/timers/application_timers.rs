//! Timers that the application starts by `signal.alarm` or `signal.setitimer` and leaves behind.
//!
//! Such a timer ends the process, or raises an exception, while it serves somebody else.

use std::sync::atomic::{AtomicBool, Ordering};

use diagnostics::message::{Code, LogMessage};

/// The kernel's timers, the signal of each, and what it counts (setitimer(2)).
const TIMERS: [(libc::c_int, libc::c_int, &str); 3] = [
    (libc::ITIMER_REAL, libc::SIGALRM, "SIGALRM"),
    (libc::ITIMER_VIRTUAL, libc::SIGVTALRM, "SIGVTALRM"),
    (libc::ITIMER_PROF, libc::SIGPROF, "SIGPROF"),
];

/// What a process that serves one request after the other knows of its timers.
#[derive(Default)]
pub(crate) struct Timers {
    /// One that counts real time was running before the present request.
    was_running: AtomicBool,
    /// The log knows that requests leave timers.
    is_told: AtomicBool,
}

impl Timers {
    /// Looks when the application is loaded: stops what would end the process.
    pub(crate) fn after_loading(&self) -> Option<LogMessage> {
        let stopped = stop_fatal("loading it");
        self.was_running.store(
            TIMERS.first().is_some_and(|&(which, ..)| is_running(&now(which))),
            Ordering::Relaxed,
        );
        stopped
    }

    /// Looks when a request is over and no other is being served: stops what would hit the next
    /// one. That is a timer whose signal nobody handles, or that ends once and was started by this
    /// request. One that repeats, as profilers have it, stays.
    ///
    /// One call of the kernel, for the timer of `signal.alarm`; for the others see
    /// [`Timers::when_idle`].
    pub(crate) fn after_request(&self) -> Option<LogMessage> {
        let [(which, signal, name), ..] = TIMERS;
        let timer = now(which);
        if !is_running(&timer) {
            self.was_running.store(false, Ordering::Relaxed);
            return None;
        }
        let is_new = !self.was_running.load(Ordering::Relaxed);
        let repeats = timer.it_interval.tv_sec != 0 || timer.it_interval.tv_usec != 0;
        if is_fatal(signal) || (is_new && !repeats) {
            stop(which);
            return self.once(entry("a request", name));
        }
        self.was_running.store(true, Ordering::Relaxed);
        None
    }

    /// Looks when there is nothing to do: stops what would end the process.
    pub(crate) fn when_idle(&self) -> Option<LogMessage> {
        stop_fatal("a request").and_then(|entry| self.once(entry))
    }

    /// What is to be logged: this process says it once.
    fn once(&self, entry: LogMessage) -> Option<LogMessage> {
        (!self.is_told.swap(true, Ordering::Relaxed)).then_some(entry)
    }
}

fn stop_fatal(who: &str) -> Option<LogMessage> {
    let mut stopped = None;
    for (which, signal, name) in TIMERS {
        if is_running(&now(which)) && is_fatal(signal) {
            stop(which);
            stopped = Some(entry(who, name));
        }
    }
    stopped
}

fn entry(who: &str, name: &str) -> LogMessage {
    LogMessage::warning(
        Code::TimerLeft,
        format!(
            "{who} has left a timer running, which was stopped: its {name} would have hit another \
             request"
        ),
    )
    .hint("call `signal.alarm(0)` or `signal.setitimer(WHICH, 0)` in a `finally:` block")
}

fn is_running(timer: &libc::itimerval) -> bool {
    timer.it_value.tv_sec != 0 || timer.it_value.tv_usec != 0
}

fn now(which: libc::c_int) -> libc::itimerval {
    // SAFETY: all-zero is a valid value, which says that no timer runs; the call writes to it.
    unsafe {
        let mut timer: libc::itimerval = std::mem::zeroed();
        libc::getitimer(which, &raw mut timer);
        timer
    }
}

fn stop(which: libc::c_int) {
    // SAFETY: all-zero is a valid value, which the call reads; it is given nothing to write to.
    unsafe {
        let none: libc::itimerval = std::mem::zeroed();
        libc::setitimer(which, &raw const none, std::ptr::null_mut());
    }
}

/// Would the signal end this process?
fn is_fatal(signal: libc::c_int) -> bool {
    // SAFETY: all-zero is a valid action, which the kernel overwrites.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut found) == 0
            && found.sa_sigaction == libc::SIG_DFL
    }
}
