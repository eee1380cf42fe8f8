//! What a fork does to this process, by the engine or by the application.
//!
//! The kernel's copy of the process gets what it would have without the engine: `pthread_atfork`
//! reaches each fork of the C library, Python's hook what Python knows besides. Workers that the
//! template forks are no children in this sense.

use std::{
    cell::UnsafeCell,
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    exceptions::PySystemExit,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use crate::{
    log::Log,
    process::forks::{descriptors, handlers},
};

/// This process is a child that the application has forked, or a child of such a one.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// What Python knows was put in order in this child.
static IS_SETTLED: AtomicBool = AtomicBool::new(false);

/// The fork that comes next is the engine's own.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// The forking thread's signal mask, from before the fork until after it.
static MASK: Mask = Mask(UnsafeCell::new(None));

struct Mask(UnsafeCell<Option<libc::sigset_t>>);

// SAFETY: touched only between `before` and what comes after a fork, by the one thread that has
// shut the gate.
unsafe impl Sync for Mask {}

/// Is this process a child that the application has forked?
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Fails in a child that the application has forked: what it asks for is its parent's.
///
/// # Errors
/// `BrokenPipe`, in such a child.
pub(crate) fn refuse_child() -> io::Result<()> {
    if is_child() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// Looks after all forks of this process from now on.
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
            }
            Ok(())
        },
    )?;
    let hooks = PyDict::new(py);
    hooks.set_item("after_in_child", settle)?;
    py.import("posix")?.getattr("register_at_fork")?.call((), Some(&hooks))?;
    Ok(())
}

/// The next fork of this thread makes a process of the engine's. To be called right before it,
/// while no other thread lives.
pub(crate) fn our_fork() {
    IS_OURS.store(true, Ordering::Relaxed);
}

extern "C" fn before() {
    // In this order: a handler that forks must not find the gate shut by the thread that it
    // interrupts.
    let mask = handlers::block_all();
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
        IS_CHILD.store(true, Ordering::Relaxed);
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
        handlers::set_mask(&mask);
    }
}

/// In a child that the application has forked: ends the process, as the application has returned
/// `result` to the engine, and what follows is its parent's to do. Elsewhere gives `result` back.
///
/// # Errors
/// As `result`.
pub(crate) fn end_if_child<T>(py: Python<'_>, log: &Log, result: PyResult<T>) -> PyResult<T> {
    if is_child() { end_child(py, log, result.err()) } else { result }
}

/// Exit handlers, and what is buffered in files, are the parent's. What the application has raised
/// decides the exit status.
fn end_child(py: Python<'_>, log: &Log, error: Option<PyErr>) -> ! {
    let status = match error {
        Some(error) if error.is_instance_of::<PySystemExit>(py) => exit_status(py, &error),
        error => {
            log.entry(
                &LogMessage::warning(
                    Code::ChildReturned,
                    "a child process that the application forked returned from the application",
                )
                .hint(
                    "wsgate ended the child: end such a process with `os._exit()` where its work \
                     is done, and do not let an application go into the background by itself",
                ),
            );
            error.map_or(0, |error| {
                error.print(py);
                1
            })
        }
    };
    for name in ["stdout", "stderr"] {
        let flushed = py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
        if let Err(error) = flushed {
            error.write_unraisable(py, None);
        }
    }
    // SAFETY: ending the process has no requirements.
    unsafe { libc::_exit(status) }
}

/// The status that Python gives a program which ends by `SystemExit`.
fn exit_status(py: Python<'_>, error: &PyErr) -> i32 {
    match error.value(py).getattr("code") {
        Ok(code) if code.is_none() => 0,
        Ok(code) => code.extract().unwrap_or_else(|_| {
            let text = code.str().map_or_else(|_| String::new(), |text| text.to_string());
            crate::log::write_all(format!("{text}\n").as_bytes());
            1
        }),
        Err(_) => 1,
    }
}
