//! A deadline for the end of this process, kept by the kernel: no thread is needed, and nothing that
//! holds the interpreter can delay it.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
    time::Duration,
};

/// What the signal handler needs when the deadline has passed.
struct Passed {
    message: Vec<u8>,
    status: i32,
}

/// Made once and never freed, since a signal handler may read it at any time.
static PASSED: AtomicPtr<Passed> = AtomicPtr::new(ptr::null_mut());

/// Ends this process after `limit` with the exit status `status`, unless it has ended before.
/// `message` is written to standard error first. A second call changes nothing.
///
/// Where the kernel has no timer left for this user there is no deadline.
pub(super) fn set(limit: Duration, message: String, status: i32) {
    let passed = Box::into_raw(Box::new(Passed { message: message.into_bytes(), status }));
    let unset = PASSED.compare_exchange(ptr::null_mut(), passed, Ordering::AcqRel, Ordering::Relaxed);
    if unset.is_err() {
        // SAFETY: the box was made above, and nobody else has seen it.
        drop(unsafe { Box::from_raw(passed) });
        return;
    }
    // The last of the real-time signals: applications use the first ones, if any.
    let signal = libc::SIGRTMAX();
    // SAFETY: all-zero is a valid value of each of these structures, and the fields that count are
    // set. The handler calls functions only that are async-signal-safe. The calls take pointers to
    // live values.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = end_now as *const () as libc::sighandler_t;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, ptr::null_mut());
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        let mut timer: libc::timer_t = ptr::null_mut();
        if libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) == 0 {
            let mut time: libc::itimerspec = std::mem::zeroed();
            time.it_value.tv_sec = limit.as_secs().try_into().unwrap_or(libc::time_t::MAX);
            time.it_value.tv_nsec = limit.subsec_nanos().into();
            libc::timer_settime(timer, 0, &raw const time, ptr::null_mut());
        }
    }
}

/// Runs as a signal handler.
extern "C" fn end_now(_signal: libc::c_int) {
    let passed = PASSED.load(Ordering::Acquire);
    // SAFETY: the pointer is null or that of a box that is never freed; write(2) and _exit(2) are
    // async-signal-safe, and the bytes are live.
    unsafe {
        if let Some(passed) = passed.as_ref() {
            libc::write(libc::STDERR_FILENO, passed.message.as_ptr().cast(), passed.message.len());
            libc::_exit(passed.status);
        }
    }
}
