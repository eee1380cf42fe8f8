//! fork, with the steps around it that Python and the kernel need.
//!
//! Locks that other threads hold would stay locked in the child. So a process with threads forks
//! only if the hooks of the threads' packages deal with that, or if the user asks for it.

use pyo3::{ffi, prelude::*};
use rustix::process::Pid;

use crate::process::{forks, random_state, signals};

/// The side of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForkSide {
    /// The new process.
    Child,
    /// The process that forked the child with this number.
    Parent(Pid),
}

/// Forks. In the child all signals are blocked once the application's hooks have run, until
/// [`crate::process::unblock_signals`]; in the parent the mask is as before.
///
/// # Errors
/// If the kernel has no process or memory left for the child.
pub(crate) fn fork(py: Python<'_>) -> std::io::Result<ForkSide> {
    // SAFETY: this thread is attached to the interpreter, which the token shows. The hooks run in
    // the order of Python's own os.fork: the parent's run even if there is no child.
    unsafe { ffi::PyOS_BeforeFork() };
    let before = signals::block_all();
    forks::our_fork();
    // SAFETY: as above; the C library keeps its own locks usable in the child, and Python's hooks
    // those of the interpreter.
    let pid = unsafe { libc::fork() };
    let error = std::io::Error::last_os_error();
    // Threads and programs that the application's hooks start must not inherit blocked signals. The
    // child still has the template's handlers, which wake the template. Signals that these handlers
    // record are meant for the worker.
    if pid == 0 {
        forks::forget_signals();
    }
    before.apply();
    if pid == 0 {
        crate::process::mark_c_handlers();
        // SAFETY: as above, in the child.
        unsafe { ffi::PyOS_AfterFork_Child() };
        signals::block_all();
        random_state::seed_again(py);
        return Ok(ForkSide::Child);
    }
    // SAFETY: as above, in the parent.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    // A negative number is an error, not a process.
    if pid > 0 { Pid::from_raw(pid) } else { None }.map(ForkSide::Parent).ok_or(error)
}

/// Runs `start`, whose new threads block all signals: only the main thread handles signals.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let before = signals::block_all();
    let started = start();
    before.apply();
    started
}
