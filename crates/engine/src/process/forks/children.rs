//! Steps at each fork of this process, by the engine or by the application.
//!
//! A child that the application forks gets the state that it would have without the engine.
//! `pthread_atfork` covers every fork of the C library. Python's hook restores state that only
//! Python knows. Workers that the template forks are not children in this sense.

use std::{
    cell::UnsafeCell,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use crate::process::{
    forks::{
        child_flag::{self, is_child},
        descriptors, handlers, stack_requests, standard,
    },
    signals::{SignalMask, block_all},
};

/// The handlers that Python knows were restored in this child.
static IS_SETTLED: AtomicBool = AtomicBool::new(false);

/// The next fork is the engine's own.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// The forking thread's signal mask, while it forks.
static MASK: ForkMask = ForkMask(UnsafeCell::new(None));

struct ForkMask(UnsafeCell<Option<SignalMask>>);

// SAFETY: only the one thread that has shut the gate touches the value, from `before` until
// `go_on`.
unsafe impl Sync for ForkMask {}

/// Handles all forks of this process from now on.
///
/// # Errors
/// If memory is short.
pub(crate) fn watch(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the three functions live as long as the process, since Python never unloads an
    // extension module.
    let refused = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused).into());
    }
    let settle = PyCFunction::new_closure(
        py,
        Some(c"settle_child"),
        None,
        |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            if is_child() && !IS_SETTLED.swap(true, Ordering::Relaxed) {
                handlers::restore_handlers(arguments.py())?;
                stack_requests::unregister(arguments.py())?;
            }
            Ok(())
        },
    )?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", settle)?;
    py.import("posix")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}

/// Marks the next fork of this thread as the engine's own. Must be called right before the fork,
/// while no other thread runs.
pub(crate) fn our_fork() {
    IS_OURS.store(true, Ordering::Relaxed);
}

extern "C" fn before() {
    // The order matters: a handler that forks must not find the gate shut by the thread that it
    // interrupts.
    let mask = block_all();
    descriptors::shut_gate();
    // SAFETY: this thread has shut the gate.
    unsafe { *MASK.0.get() = Some(mask) };
}

extern "C" fn in_parent() {
    IS_OURS.store(false, Ordering::Relaxed);
    go_on();
}

extern "C" fn in_child() {
    if !IS_OURS.swap(false, Ordering::Relaxed) {
        child_flag::set();
        standard::forget_log();
        descriptors::close_all();
        handlers::restore_actions();
    }
    go_on();
}

fn go_on() {
    // SAFETY: this thread, or the one that it is a copy of, has shut the gate.
    let mask = unsafe { (*MASK.0.get()).take() };
    descriptors::open_gate();
    if let Some(mask) = mask {
        mask.apply();
    }
}
