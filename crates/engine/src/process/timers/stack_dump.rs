//! Logs a message and the stacks of all threads when an operation is slow, without ending it.
//!
//! The kernel's timer sends a signal. The handler of `faulthandler` writes the stacks, whatever
//! code is running. The message follows.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use pyo3::prelude::*;

use crate::process::{
    forks,
    timers::kernel_timer::{KernelTimer, Published},
};

static TIMER: KernelTimer = KernelTimer::new(2);

/// The message for the log.
static MESSAGE: Published<String> = Published::new();

/// The handler of `faulthandler` that writes the stacks.
static STACKS_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// A stack dump that is due; dropping this value cancels the dump.
pub(crate) struct StackDumpWatch<'py> {
    py: Python<'py>,
}

/// Writes the stacks and `message` to the log after `delay`, unless the returned value is dropped
/// before. Nothing is written if the kernel has no timer left for this user, or if the application
/// has replaced `faulthandler`.
pub(crate) fn dump_stacks_after(
    py: Python<'_>,
    delay: Duration,
    message: String,
) -> Option<StackDumpWatch<'_>> {
    MESSAGE.set(message);
    if !TIMER.create() {
        return None;
    }
    let watch = StackDumpWatch { py };
    let arguments = (TIMER.signal(), forks::log_number(), true, false);
    py.import("faulthandler").and_then(|module| module.call_method1("register", arguments)).ok()?;
    // This handler runs first: it checks that the log has room.
    STACKS_HANDLER.store(TIMER.handle_for_now(write_stacks), Ordering::Release);
    TIMER.arm(delay, false);
    Some(watch)
}

impl Drop for StackDumpWatch<'_> {
    fn drop(&mut self) {
        TIMER.delete();
        let module = self.py.import("faulthandler");
        if let Err(error) =
            module.and_then(|module| module.call_method1("unregister", (TIMER.signal(),)))
        {
            error.write_unraisable(self.py, None);
        }
        MESSAGE.clear();
        TIMER.stop_handling();
    }
}

/// Runs as a signal handler.
extern "C" fn write_stacks(
    signal: libc::c_int,
    _info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // A handler must not wait for a reader of the log.
    if !forks::write_to_log(&[]) {
        return;
    }
    let stacks = STACKS_HANDLER.load(Ordering::Acquire);
    if ![libc::SIG_DFL, libc::SIG_IGN].contains(&stacks) {
        // SAFETY: `faulthandler` has installed this handler for this signal.
        unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(stacks)(signal) };
    }
    if let Some(message) = MESSAGE.get() {
        forks::write_to_log(message.as_bytes());
    }
}
