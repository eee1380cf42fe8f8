//! fork, with everything that Python and the kernel want around it.
//!
//! Only where one thread lives: what other threads hold locked would stay locked for ever in the child.

use pyo3::{ffi, prelude::*};
use rustix::process::Pid;

use super::random_state;
use crate::forks;

/// Which side of the fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The new process.
    Child,
    /// The process that forked it.
    Parent(Pid),
}

/// Forks. In the child all signals stay blocked until [`crate::process::unblock_signals`]; in the parent they are as before.
///
/// # Errors
/// If the kernel has no process or memory left for the child.
pub(super) fn fork(py: Python<'_>) -> std::io::Result<Side> {
    let before = forks::block_all();
    // SAFETY: this thread is attached to the interpreter, which the token shows; the hooks come in the order that Python's own
    // os.fork has them in, the parent's even if there is no child.
    let pid = unsafe {
        ffi::PyOS_BeforeFork();
        forks::our_fork();
        let pid = libc::fork();
        if pid == 0 {
            ffi::PyOS_AfterFork_Child();
        } else {
            ffi::PyOS_AfterFork_Parent();
        }
        pid
    };
    if pid == 0 {
        random_state::seed_again(py);
        return Ok(Side::Child);
    }
    let error = std::io::Error::last_os_error();
    forks::set_mask(&before);
    // A negative number is no process's, and must not be taken for one.
    if pid > 0 { Pid::from_raw(pid) } else { None }.map(Side::Parent).ok_or(error)
}

/// Starts what `start` starts so that it never handles a signal: the main thread is to be interrupted by them.
pub(super) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let before = forks::block_all();
    let started = start();
    forks::set_mask(&before);
    started
}
