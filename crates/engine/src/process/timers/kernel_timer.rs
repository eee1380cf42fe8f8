//! A timer of the kernel (timer_create(2)) that sends a real-time signal to this process.
//!
//! The timer needs no thread, and code that holds the interpreter cannot delay the signal. Each
//! user of this file has a static timer and its own signal.

use std::{
    ptr,
    sync::atomic::{AtomicI32, AtomicPtr, Ordering},
    time::Duration,
};

use crate::process::forks;

/// A signal handler that receives the sender of the signal (`SA_SIGINFO`).
pub(super) type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

/// A timer and its signal. Forked processes do not inherit the kernel's timer.
pub(super) struct KernelTimer {
    /// The number of the signal counts down from the last real-time signal: applications use the
    /// first real-time signals, if any.
    below_last: libc::c_int,
    id: AtomicPtr<libc::c_void>,
    /// The process that created the timer; 0 for none.
    owner: AtomicI32,
}

impl KernelTimer {
    /// A timer for the signal `SIGRTMAX - below_last`.
    pub(super) const fn new(below_last: libc::c_int) -> Self {
        Self { below_last, id: AtomicPtr::new(ptr::null_mut()), owner: AtomicI32::new(0) }
    }

    /// The number of the signal.
    pub(super) fn signal(&self) -> libc::c_int {
        libc::SIGRTMAX() - self.below_last
    }

    /// Has this process created the timer? Async-signal-safe.
    pub(super) fn exists(&self) -> bool {
        self.owner.load(Ordering::Acquire) == rustix::process::getpid().as_raw_nonzero().get()
    }

    /// Creates the timer, unless this process has it, and unblocks its signal in this thread.
    /// Returns `false` if the kernel has no timer left for this user.
    pub(super) fn create(&self) -> bool {
        self.unblock();
        if self.exists() {
            return true;
        }
        // SAFETY: all-zero is a valid event, whose relevant fields are set; both pointers are to
        // live values.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = self.signal();
            let mut id: libc::timer_t = ptr::null_mut();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id) != 0 {
                return false;
            }
            self.id.store(id, Ordering::Relaxed);
        }
        self.owner.store(rustix::process::getpid().as_raw_nonzero().get(), Ordering::Release);
        true
    }

    /// Sends the signal once after `delay`, or every `delay` if `repeats`. Does nothing without a
    /// timer. Async-signal-safe.
    pub(super) fn arm(&self, delay: Duration, repeats: bool) {
        // A delay of zero would disarm the timer.
        let delay = delay.max(Duration::from_millis(1));
        self.set(delay, if repeats { delay } else { Duration::ZERO });
    }

    /// Stops sending signals. Async-signal-safe.
    pub(super) fn disarm(&self) {
        self.set(Duration::ZERO, Duration::ZERO);
    }

    /// Deletes the timer.
    pub(super) fn delete(&self) {
        if self.exists() {
            self.owner.store(0, Ordering::Release);
            // SAFETY: this process created the timer, and does not use it from here on.
            unsafe { libc::timer_delete(self.id.load(Ordering::Relaxed)) };
        }
    }

    fn set(&self, delay: Duration, interval: Duration) {
        if !self.exists() {
            return;
        }
        let time = |duration: Duration| libc::timespec {
            tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        };
        let times = libc::itimerspec { it_interval: time(interval), it_value: time(delay) };
        // SAFETY: the timer is this process's, and timer_settime(2) is async-signal-safe.
        unsafe {
            libc::timer_settime(
                self.id.load(Ordering::Relaxed),
                0,
                &raw const times,
                ptr::null_mut(),
            );
        }
    }

    fn unblock(&self) {
        // SAFETY: all-zero is a valid signal set; the calls take pointers to it.
        unsafe {
            let mut signals: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            libc::sigaddset(&raw mut signals, self.signal());
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut());
        }
    }

    /// Calls `handler` at the signal until this process exits. Children that the application forks
    /// get back the previous handler.
    pub(super) fn handle(&self, handler: Handler) {
        // The kernel accepts every existing signal number. SAFETY: the handlers of this directory
        // call only async-signal-safe functions.
        let _ = unsafe { forks::install_action(self.signal(), &action(handler as usize)) };
    }

    /// Calls `handler` at the signal until [`KernelTimer::stop_handling`]. Returns the replaced
    /// handler.
    pub(super) fn handle_for_now(&self, handler: Handler) -> libc::sighandler_t {
        self.replace_action(handler as usize)
    }

    /// Restores the default action of the signal, and drops a pending signal.
    pub(super) fn stop_handling(&self) {
        // The default action would kill the process at a pending signal; ignoring the signal drops
        // it.
        self.replace_action(libc::SIG_IGN);
        self.replace_action(libc::SIG_DFL);
    }

    fn replace_action(&self, handler: libc::sighandler_t) -> libc::sighandler_t {
        let action = action(handler);
        // SAFETY: all-zero is a valid action, which the call overwrites; as in `handle`.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            libc::sigaction(self.signal(), &raw const action, &raw mut previous);
            previous.sa_sigaction
        }
    }
}

/// The action that calls `handler`.
fn action(handler: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: all-zero is a valid action, whose fields are then set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut action.sa_mask);
        action
    }
}

/// How long writing the stacks may take.
const STACKS_TIMEOUT_SECONDS: libc::c_uint = 2;

/// Kills this process by SIGABRT, at which `faulthandler` writes the stacks; by SIGALRM if nobody
/// reads the log. Returns only if the application handles SIGABRT. Async-signal-safe.
pub(super) fn abort() {
    // SAFETY: all-zero is a valid value of each structure, and the calls are async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut());
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, ptr::null_mut());
        libc::alarm(STACKS_TIMEOUT_SECONDS);
        libc::raise(libc::SIGABRT);
    }
}

/// A value that signal handlers read. Replaced values are never freed, since a handler may be
/// reading them at any time.
pub(super) struct Published<T>(AtomicPtr<T>);

impl<T> Published<T> {
    /// No value.
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Makes `value` the value that handlers read.
    pub(super) fn set(&self, value: T) {
        self.0.store(Box::into_raw(Box::new(value)), Ordering::Release);
    }

    /// Removes the value.
    pub(super) fn clear(&self) {
        self.0.store(ptr::null_mut(), Ordering::Release);
    }

    /// The value. Async-signal-safe.
    pub(super) fn get(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null, or that of a box that is never freed.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }
}
