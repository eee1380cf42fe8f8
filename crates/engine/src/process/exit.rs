//! How a process ends: as a Python program ends, after the last response has left.
//!
//! A process that has loaded the application itself ends with the interpreter, if anything is left
//! that would notice. A process that was forked from one that had the application loaded must not
//! destroy what belongs to that: such a process finishes what it has made itself, and exits.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::process::{
    finalisation, forks,
    inherited::Inherited,
    timers::exit_deadline::{
        End, Warning, {self},
    },
};

/// Wait until a process that was asked to stop says where it is. mod_fcgid kills eight seconds
/// after it has asked.
const STILL_RUNS: Duration = Duration::from_secs(3);

/// How long exit handlers and finalisation may take, and threads where that counts.
pub(crate) struct Limit {
    /// The time.
    pub(crate) time: Duration,
    /// The log message for a process that takes longer.
    pub(crate) message: String,
    /// The time of threads that Python waits for counts, too.
    pub(crate) counts_threads: bool,
}

/// Which objects are this process's to finalise.
pub(crate) enum Ownership {
    /// All: this process has loaded the application itself, or none.
    All,
    /// What it has loaded for the processes that were forked from it, as far as these do not
    /// finalise it.
    Template,
    /// What it has made itself, without what it has from its template.
    Forked(Inherited),
}

/// What is left to do when the exit handlers of this process have run.
struct Rest {
    status: i32,
    inherited: Inherited,
}

static REST: Mutex<Option<Rest>> = Mutex::new(None);

/// The exit status of this process once it leaves.
static STATUS: AtomicI32 = AtomicI32::new(NOT_LEAVING);
const NOT_LEAVING: i32 = -1;

/// Ends this process with the exit status `status`: waits for its threads, runs its exit handlers,
/// and finalises the rest, as far as that is its own.
///
/// # Errors
/// `SystemExit`, which the interpreter then ends by; and what Python raises on the way there.
pub(crate) fn exit(
    py: Python<'_>,
    status: i32,
    limit: Option<Limit>,
    ownership: Ownership,
) -> PyResult<()> {
    let (first, then) = match limit {
        Some(limit) if limit.counts_threads => (Some(limit), None),
        limit => (None, limit),
    };
    let set = |limit: Limit| exit_deadline::set(limit.time, limit.message, End::Status(status));
    // A worker that was asked to stop has less time.
    first.into_iter().for_each(|limit| {
        exit_deadline::set_if_earlier(limit.time, limit.message, End::Status(status));
    });
    // Threads that are no daemons are waited for.
    if let Some(threading) = loaded(py, "threading")? {
        report(py, threading.call_method0("_shutdown").map(drop));
    }
    then.into_iter().for_each(set);
    let is_template = match ownership {
        Ownership::All => false,
        Ownership::Template => true,
        Ownership::Forked(inherited) => {
            set_rest(Some(Rest { status, inherited }));
            run_exit_handlers(py)?;
            // The application has taken the mark between the handlers away.
            if let Some(rest) = set_rest(None) {
                finish(py, &rest);
            }
            return Ok(());
        }
    };
    run_exit_handlers(py)?;
    if is_template {
        report(py, finalisation::finalise_template(py));
        leave(py, status);
    }
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

/// When a signal comes that [`forks::wake`] is for, this process ends after `limit` at the latest,
/// by SIGABRT and with the stacks in the log. If it has not ended after some seconds, the message
/// `still_runs` and the stacks are logged: whoever has sent the signal may kill it soon.
pub(crate) fn end_soon_after_signal(limit: Limit, still_runs: String) {
    let warning = Warning { after: STILL_RUNS, message: still_runs };
    exit_deadline::prepare(limit.time, limit.message, End::Abort, Some(warning));
    forks::call_when_woken(exit_deadline::begin);
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

/// Writes what the standard streams hold, and ends the process: what libraries in C have registered
/// for that runs, and their streams are written. The interpreter stays as it is.
fn leave(py: Python<'_>, status: i32) -> ! {
    for name in ["stdout", "stderr"] {
        let stream = py.import("sys").and_then(|sys| sys.getattr(name));
        if let Ok(stream) = stream
            && !stream.is_none()
        {
            report(py, stream.call_method0("flush").map(drop));
        }
    }
    STATUS.store(status, Ordering::Relaxed);
    // SAFETY: this thread alone ends the process, and other threads of Python's wait for it.
    unsafe { libc::exit(status) }
}

/// In a process that was just forked: sets a mark between the exit handlers of C libraries that are
/// its own and those of its template, which are not to run here.
pub(crate) fn mark_c_handlers() {
    // Where memory is short, the template's handlers run. SAFETY: the function lives as long as the
    // process, since Python never unloads an extension module.
    unsafe { libc::atexit(end_of_own_c_handlers) };
}

extern "C" fn end_of_own_c_handlers() {
    let status = STATUS.load(Ordering::Relaxed);
    // Otherwise it is a child of this process that ends, by itself.
    if status != NOT_LEAVING {
        flush_c_streams();
        // SAFETY: ending the process has no requirements.
        unsafe { libc::_exit(status) }
    }
}

/// Writes what libraries in C have printed and hold back.
pub(crate) fn flush_c_streams() {
    // SAFETY: flushing all C streams is allowed at any time.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}
