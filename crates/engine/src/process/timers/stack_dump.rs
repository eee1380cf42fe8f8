//! Says that something takes long, with the stacks of all threads, and lets it go on.
//!
//! The kernel's timer sends a signal, at which `faulthandler` writes the stacks, in whatever code
//! the process is; then comes the message.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
    time::Duration,
};

use pyo3::prelude::*;

use crate::process::forks;

/// What is written. Never freed, since a signal handler may read it at any time.
static MESSAGE: AtomicPtr<String> = AtomicPtr::new(ptr::null_mut());

/// The handler that writes the stacks.
static STACKS: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// A watch over something that should not take long; it ends on drop.
pub(crate) struct Watch<'py> {
    py: Python<'py>,
    timer: libc::timer_t,
}

/// Writes the stacks and `message` to the log after `limit`, unless what is returned is dropped
/// before. Where the kernel has no timer left for this user, or the application's code is in the
/// way, nothing is written.
pub(crate) fn tell_after(py: Python<'_>, limit: Duration, message: String) -> Option<Watch<'_>> {
    MESSAGE.store(Box::into_raw(Box::new(message)), Ordering::Release);
    let timer = make_timer()?;
    let watch = Watch { py, timer };
    let arguments = (signal(), forks::log_number(), true, false);
    py.import("faulthandler").and_then(|module| module.call_method1("register", arguments)).ok()?;
    // Ours is called first: it looks whether somebody reads the log.
    let stacks =
        set_action(tell as *const () as libc::sighandler_t, libc::SA_RESTART | libc::SA_ONSTACK);
    STACKS.store(stacks, Ordering::Release);
    start(timer, limit);
    Some(watch)
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // SAFETY: the timer is this process's, or none if it was forked meanwhile, which the kernel
        // says.
        unsafe { libc::timer_delete(self.timer) };
        let module = self.py.import("faulthandler");
        if let Err(error) = module.and_then(|module| module.call_method1("unregister", (signal(),)))
        {
            error.write_unraisable(self.py, None);
        }
        MESSAGE.store(ptr::null_mut(), Ordering::Release);
        // To ignore the signal first drops one that has come and was not delivered: the default
        // ends the process.
        set_action(libc::SIG_IGN, 0);
        set_action(libc::SIG_DFL, 0);
    }
}

/// The last of the real-time signals that the other files of this directory leave.
fn signal() -> libc::c_int {
    libc::SIGRTMAX() - 2
}

fn make_timer() -> Option<libc::timer_t> {
    // SAFETY: all-zero is a valid value of each of these structures, and the fields that count are
    // set. The calls take pointers to live values.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal();
        let mut timer: libc::timer_t = ptr::null_mut();
        (libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0)
            .then_some(timer)
    }
}

/// Gives the handler that was there.
fn set_action(handler: libc::sighandler_t, flags: libc::c_int) -> libc::sighandler_t {
    // SAFETY: all-zero is a valid action, and the fields that count are set. The handler is one of
    // the kernel's, or [`tell`], which calls only functions that are async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        libc::sigemptyset(&raw mut action.sa_mask);
        let mut previous: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal(), &raw const action, &raw mut previous);
        previous.sa_sigaction
    }
}

fn start(timer: libc::timer_t, limit: Duration) {
    // SAFETY: all-zero is a valid value, and the timer is live.
    unsafe {
        let mut time: libc::itimerspec = std::mem::zeroed();
        time.it_value.tv_sec = limit.as_secs().try_into().unwrap_or(libc::time_t::MAX);
        time.it_value.tv_nsec = limit.subsec_nanos().into();
        libc::timer_settime(timer, 0, &raw const time, ptr::null_mut());
    }
}

/// Runs as a signal handler.
extern "C" fn tell(signal: libc::c_int) {
    // A handler must not wait for somebody to read the log.
    if !forks::write_to_log(&[]) {
        return;
    }
    let stacks = STACKS.load(Ordering::Acquire);
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&stacks) {
        // SAFETY: this is the handler that `faulthandler` has installed for this signal.
        unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(stacks)(signal) };
    }
    // SAFETY: the pointer is null or that of a box that is never freed.
    if let Some(message) = unsafe { MESSAGE.load(Ordering::Acquire).as_ref() } {
        forks::write_to_log(message.as_bytes());
    }
}
