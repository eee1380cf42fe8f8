//! How a process ends: as a Python program ends, after the last response has left.
//!
//! A process that has loaded the application itself ends with the interpreter, if anything is left
//! that would notice. A process that was forked from one that had the application loaded must not
//! destroy what belongs to that: such a process finishes what it has made itself, and exits.

use std::{sync::Mutex, time::Duration};

use pyo3::{exceptions::PySystemExit, prelude::*};

use super::{deadline, finalisation, inherited::Inherited};

/// How long exit handlers and finalisation may take.
pub(crate) struct Limit {
    /// The time.
    pub(crate) time: Duration,
    /// The log message for a process that takes longer.
    pub(crate) message: String,
}

/// What is left to do when the exit handlers of this process have run.
struct Rest {
    status: i32,
    inherited: Inherited,
}

static REST: Mutex<Option<Rest>> = Mutex::new(None);

/// Ends this process with the exit status `status`: waits for its threads, runs its exit handlers,
/// and finalises the rest. `inherited` is what a forked process has from its template.
///
/// # Errors
/// `SystemExit`, which the interpreter then ends by; and what Python raises on the way there.
pub(crate) fn exit(py: Python<'_>, status: i32, limit: Option<Limit>, inherited: Option<Inherited>) -> PyResult<()> {
    // Threads that are no daemons are waited for.
    if let Some(threading) = loaded(py, "threading")? {
        report(py, threading.call_method0("_shutdown").map(drop));
    }
    if let Some(limit) = limit {
        deadline::set(limit.time, limit.message, status);
    }
    if let Some(inherited) = inherited {
        set_rest(Some(Rest { status, inherited }));
        run_exit_handlers(py)?;
        // The application has taken the mark between the handlers away.
        if let Some(rest) = set_rest(None) {
            finish(py, &rest);
        }
        return Ok(());
    }
    run_exit_handlers(py)?;
    if !finalisation::is_needed(py)? {
        leave(py, status);
    }
    if has_other_threads(py)? {
        // They would meet the end of the interpreter in the middle of our code.
        report(py, finalisation::finalise(py));
        leave(py, status);
    }
    Err(PySystemExit::new_err(status))
}

/// The mark between the exit handlers that a forked process has registered itself and those of its
/// template, which are not to run. If this process is ending it ends here.
pub(super) fn end_of_own_handlers(py: Python<'_>) {
    if let Some(rest) = set_rest(None) {
        Inherited::run_library_handlers(py);
        finish(py, &rest);
    }
}

/// Puts `rest` in the place of what there is, which is returned.
fn set_rest(rest: Option<Rest>) -> Option<Rest> {
    let mut place = REST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::replace(&mut *place, rest)
}

fn finish(py: Python<'_>, rest: &Rest) {
    report(py, finalisation::finalise(py));
    rest.inherited.write_out(py);
    leave(py, rest.status);
}

fn run_exit_handlers(py: Python<'_>) -> PyResult<()> {
    report(py, py.import("atexit")?.call_method0("_run_exitfuncs").map(drop));
    Ok(())
}

/// Do other threads run, or may they run, Python code?
fn has_other_threads(py: Python<'_>) -> PyResult<bool> {
    let count: usize = py.import("_thread")?.call_method0("_count")?.extract()?;
    Ok(count > 0)
}

/// The module `name`, if the application has loaded it.
pub(super) fn loaded<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let modules = py.import("sys")?.getattr("modules")?;
    Ok(modules.get_item(name).ok().filter(|module| !module.is_none()))
}

/// Writes an exception to the log; the end of the process goes on.
fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
}

/// Writes what the standard streams and those of C hold, and ends the process at once.
fn leave(py: Python<'_>, status: i32) -> ! {
    for name in ["stdout", "stderr"] {
        let stream = py.import("sys").and_then(|sys| sys.getattr(name));
        if let Ok(stream) = stream
            && !stream.is_none()
        {
            report(py, stream.call_method0("flush").map(drop));
        }
    }
    flush_c_streams();
    // SAFETY: ending the process has no requirements.
    unsafe { libc::_exit(status) }
}

/// Writes what libraries in C have printed and hold back.
pub(crate) fn flush_c_streams() {
    // SAFETY: flushing all C streams is allowed at any time.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}
