//! fork, with everything that Python and the kernel want around it.
//!
//! Only where one thread lives: what other threads hold locked would stay locked for ever in the child.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pyo3::{
    ffi,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::Pid;

/// Which side of the fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The new process.
    Child,
    /// The process that forked it.
    Parent(Pid),
}

/// Threads of this process.
pub(super) fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// Forks. In the child all signals stay blocked until [`crate::process::unblock_signals`]; in the parent they are as before.
///
/// # Errors
/// If the kernel has no process or memory left for the child.
pub(super) fn fork(_py: Python<'_>) -> std::io::Result<Side> {
    // SAFETY: all-zero is a valid signal set, and is overwritten at once; the calls take pointers to live sets.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
    }
    // SAFETY: this thread is attached to the interpreter, which the token shows; the hooks come in the order that Python's own
    // os.fork has them in, the parent's even if there is no child.
    let pid = unsafe {
        ffi::PyOS_BeforeFork();
        let pid = libc::fork();
        if pid == 0 {
            ffi::PyOS_AfterFork_Child();
        } else {
            ffi::PyOS_AfterFork_Parent();
        }
        pid
    };
    if pid == 0 {
        return Ok(Side::Child);
    }
    let error = std::io::Error::last_os_error();
    // SAFETY: `before` was filled by the kernel above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    // A negative number is no process's, and must not be taken for one.
    if pid > 0 { Pid::from_raw(pid) } else { None }.map(Side::Parent).ok_or(error)
}

/// Starts what `start` starts so that it never handles a signal: the main thread is to be interrupted by them.
pub(super) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: all-zero is a valid signal set, and is overwritten at once; the calls take pointers to live sets.
    let before = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        before
    };
    let started = start();
    // SAFETY: `before` was filled by the kernel above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    started
}

/// Takes note in every child that the application forks: what it does is not the worker's.
pub(super) fn note_forks(py: Python<'_>, forked: &Arc<AtomicBool>) -> PyResult<()> {
    let forked = forked.clone();
    let note = PyCFunction::new_closure(
        py,
        Some(c"note_fork"),
        None,
        move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            forked.store(true, Ordering::Relaxed);
        },
    )?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", note)?;
    py.import("posix")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}
