//! fork, with everything that Python and the kernel want around it.
//!
//! Only where one thread lives: what other threads hold locked would stay locked for ever in the
//! child.

use pyo3::{ffi, prelude::*};
use rustix::process::Pid;

use crate::{loading::random_state, process, process::forks};

/// Which side of the fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The new process.
    Child,
    /// The process that forked it.
    Parent(Pid),
}

/// Forks. In the child all signals are blocked when the application's hooks have run, until
/// [`crate::process::unblock_signals`]; in the parent they are as before.
///
/// # Errors
/// If the kernel has no process or memory left for the child.
pub(crate) fn fork(py: Python<'_>) -> std::io::Result<Side> {
    // SAFETY: this thread is attached to the interpreter, which the token shows; the hooks come in
    // the order that Python's own os.fork has them in, the parent's even if there is no child.
    unsafe { ffi::PyOS_BeforeFork() };
    let before = forks::block_all();
    forks::our_fork();
    // SAFETY: as above; no other thread lives that could hold a lock.
    let pid = unsafe { libc::fork() };
    let error = std::io::Error::last_os_error();
    // Threads that hooks of the application start must not inherit that signals are blocked, as
    // programs would from them. In the child the template's handlers stand, which wake that, and
    // what has come is for the worker that the child becomes.
    if pid == 0 {
        forks::forget_signals();
    }
    forks::set_mask(&before);
    if pid == 0 {
        process::mark_c_handlers();
        // SAFETY: as above, in the child.
        unsafe { ffi::PyOS_AfterFork_Child() };
        forks::block_all();
        random_state::seed_again(py);
        return Ok(Side::Child);
    }
    // SAFETY: as above, in the parent.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    // A negative number is no process's, and must not be taken for one.
    if pid > 0 { Pid::from_raw(pid) } else { None }.map(Side::Parent).ok_or(error)
}

/// Starts what `start` starts so that it never handles a signal: the main thread is to be
/// interrupted by them.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let before = forks::block_all();
    let started = start();
    forks::set_mask(&before);
    started
}
