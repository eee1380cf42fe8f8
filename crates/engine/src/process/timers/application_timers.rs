//! Timers that the application starts by `signal.alarm` or `signal.setitimer` and leaves behind.
//!
//! Such a timer ends the process, or raises an exception, during another request.

use std::sync::atomic::{AtomicBool, Ordering};

use diagnostics::message::{Code, LogMessage};

/// The kernel's interval timers with their signals (setitimer(2)). The first timer counts real
/// time.
const TIMERS: [(libc::c_int, libc::c_int, &str); 3] = [
    (libc::ITIMER_REAL, libc::SIGALRM, "SIGALRM"),
    (libc::ITIMER_VIRTUAL, libc::SIGVTALRM, "SIGVTALRM"),
    (libc::ITIMER_PROF, libc::SIGPROF, "SIGPROF"),
];

/// The known timers of the application, in a process that serves several requests.
#[derive(Default)]
pub(crate) struct ApplicationTimers {
    /// A timer of real time was running before the present request.
    was_running: AtomicBool,
    /// This process has logged that requests leave timers.
    is_logged: AtomicBool,
}

impl ApplicationTimers {
    /// Stops timers that loading left and that would kill the process. Returns the log message if a
    /// timer was stopped.
    pub(crate) fn after_loading(&self) -> Option<LogMessage> {
        let stopped = stop_fatal("loading it");
        let [(real_time, ..), ..] = TIMERS;
        self.was_running.store(is_running(&current(real_time)), Ordering::Relaxed);
        stopped
    }

    /// Stops a timer that would hit the next request. Must be called when a request has ended and
    /// no other request is running. Such a timer has a signal without a handler, or was started by
    /// this request and expires once. Repeating timers, such as a profiler's, stay.
    ///
    /// Checks only the timer of `signal.alarm`, which costs one system call.
    /// [`ApplicationTimers::when_idle`] checks the others.
    pub(crate) fn after_request(&self) -> Option<LogMessage> {
        let [(which, signal, name), ..] = TIMERS;
        let timer = current(which);
        if !is_running(&timer) {
            self.was_running.store(false, Ordering::Relaxed);
            return None;
        }
        let is_new = !self.was_running.load(Ordering::Relaxed);
        let repeats = timer.it_interval.tv_sec != 0 || timer.it_interval.tv_usec != 0;
        if is_fatal(signal) || (is_new && !repeats) {
            stop(which);
            return self.once(message("a request", name));
        }
        self.was_running.store(true, Ordering::Relaxed);
        None
    }

    /// Stops all timers that would kill the process. Must be called when the process is idle.
    pub(crate) fn when_idle(&self) -> Option<LogMessage> {
        stop_fatal("a request").and_then(|message| self.once(message))
    }

    /// Returns `message`, unless this process has already logged such a message.
    fn once(&self, message: LogMessage) -> Option<LogMessage> {
        (!self.is_logged.swap(true, Ordering::Relaxed)).then_some(message)
    }
}

fn stop_fatal(who: &str) -> Option<LogMessage> {
    let mut stopped = None;
    for (which, signal, name) in TIMERS {
        if is_running(&current(which)) && is_fatal(signal) {
            stop(which);
            stopped = Some(message(who, name));
        }
    }
    stopped
}

fn message(who: &str, name: &str) -> LogMessage {
    LogMessage::new(
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

fn current(which: libc::c_int) -> libc::itimerval {
    // SAFETY: all-zero is a valid value, which says that no timer runs; the call writes to it.
    unsafe {
        let mut timer: libc::itimerval = std::mem::zeroed();
        libc::getitimer(which, &raw mut timer);
        timer
    }
}

fn stop(which: libc::c_int) {
    // SAFETY: all-zero is a valid value, which the call reads; the call writes nothing.
    unsafe {
        let none: libc::itimerval = std::mem::zeroed();
        libc::setitimer(which, &raw const none, std::ptr::null_mut());
    }
}

/// Would the signal kill this process?
fn is_fatal(signal: libc::c_int) -> bool {
    // SAFETY: all-zero is a valid action, which the kernel overwrites.
    unsafe {
        let mut found: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut found) == 0
            && found.sa_sigaction == libc::SIG_DFL
    }
}
