//! The exit of a process after its last response: exit handlers and finalisation as in a Python
//! program.
//!
//! A process that has loaded the application itself finalises the interpreter, if the destruction
//! of an object would have an effect. A worker that was forked from a template must not destroy the
//! template's objects. So the worker finalises only objects that it has created itself.

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
    inherited::InheritedObjects,
    python_modules::loaded,
    registrations::Registrations,
    timers::exit_deadline::{
        DeadlineEnd, DeadlineWarning, {self},
    },
};

/// When a process that was asked to stop logs that it is still running. mod_fcgid kills a process
/// eight seconds after SIGTERM.
const STILL_RUNNING_DELAY: Duration = Duration::from_secs(3);

/// The time limit of exit handlers, finalisation and, where included, threads.
pub(crate) struct ExitLimit {
    /// The limit.
    pub(crate) time: Duration,
    /// The log message for a process that exceeds the limit.
    pub(crate) message: String,
    /// The limit includes threads that Python waits for.
    pub(crate) counts_threads: bool,
}

/// Which objects this process finalises.
pub(crate) enum FinalisationScope {
    /// All objects: this process has loaded the application itself, or none.
    All,
    /// Objects that a template has loaded for its workers, unless the workers finalise them.
    Template,
    /// Objects that a worker has created itself, without the objects of its template.
    Forked(InheritedObjects),
}

/// The exit steps of a worker after its exit handlers.
struct PendingExit {
    status: i32,
    inherited: InheritedObjects,
}

static PENDING_EXIT: Mutex<Option<PendingExit>> = Mutex::new(None);

/// The exit status, once this process has begun to exit.
static EXIT_STATUS: AtomicI32 = AtomicI32::new(NOT_LEAVING);
const NOT_LEAVING: i32 = -1;

/// Ends this process with the exit status `status`: waits for its threads, runs its exit handlers,
/// and finalises the objects of `ownership`.
///
/// # Errors
/// `SystemExit`, which makes the interpreter exit, or an earlier exception of Python.
pub(crate) fn exit(
    py: Python<'_>,
    status: i32,
    limit: Option<ExitLimit>,
    ownership: FinalisationScope,
) -> PyResult<()> {
    let (first, then) = match limit {
        Some(limit) if limit.counts_threads => (Some(limit), None),
        limit => (None, limit),
    };
    let set = |limit: ExitLimit| {
        exit_deadline::set(limit.time, limit.message, DeadlineEnd::Status(status))
    };
    // A worker that was asked to stop has less time.
    first.into_iter().for_each(|limit| {
        exit_deadline::set_if_earlier(limit.time, limit.message, DeadlineEnd::Status(status));
    });
    // Waits for all non-daemon threads.
    if let Some(threading) = loaded(py, "threading")? {
        report(py, threading.call_method0("_shutdown").map(drop));
    }
    then.into_iter().for_each(set);
    let is_template = match ownership {
        FinalisationScope::All => false,
        FinalisationScope::Template => true,
        FinalisationScope::Forked(inherited) => {
            replace_pending_exit(Some(PendingExit { status, inherited }));
            run_exit_handlers(py)?;
            // The application has removed the handler that `collect_inherited` registered.
            if let Some(rest) = replace_pending_exit(None) {
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
        // Finalising the interpreter would stop other threads in the middle of the engine's code.
        report(py, finalisation::finalise(py));
        leave(py, status);
    }
    Err(PySystemExit::new_err(status))
}

/// Limits this process to `limit` from the next signal of [`forks::wake`] on. SIGABRT then kills
/// the process and the stacks are logged. If requests are running some seconds after the signal,
/// `still_runs` and the stacks are logged, too: the sender may soon kill the process.
pub(crate) fn end_soon_after_signal(limit: ExitLimit, still_runs: String) {
    let warning = DeadlineWarning { after: STILL_RUNNING_DELAY, message: still_runs };
    exit_deadline::prepare(limit.time, limit.message, DeadlineEnd::Abort, Some(warning));
    forks::call_when_woken(exit_deadline::begin);
}

/// Collects what the workers of this template inherit. See [`InheritedObjects::collect`].
///
/// # Errors
/// If Python raises.
pub(crate) fn collect_inherited(
    py: Python<'_>,
    of_packages: Registrations,
) -> PyResult<InheritedObjects> {
    InheritedObjects::collect(py, of_packages, end_of_own_handlers)
}

/// Runs after the exit handlers of a worker and before those of its template, which must not run.
/// An exiting process exits here.
fn end_of_own_handlers(py: Python<'_>) {
    if let Some(rest) = replace_pending_exit(None) {
        InheritedObjects::run_library_handlers(py);
        finish(py, &rest);
    }
}

/// Replaces the pending exit, and returns the previous value.
fn replace_pending_exit(rest: Option<PendingExit>) -> Option<PendingExit> {
    let mut pending = PENDING_EXIT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::mem::replace(&mut *pending, rest)
}

fn finish(py: Python<'_>, rest: &PendingExit) {
    report(py, finalisation::finalise(py));
    rest.inherited.write_out(py);
    leave(py, rest.status);
}

fn run_exit_handlers(py: Python<'_>) -> PyResult<()> {
    report(py, py.import("atexit")?.call_method0("_run_exitfuncs").map(drop));
    Ok(())
}

/// Are other threads running Python code, or able to?
fn has_other_threads(py: Python<'_>) -> PyResult<bool> {
    let count: usize = py.import("_thread")?.call_method0("_count")?.extract()?;
    Ok(count > 0)
}

/// Logs an exception without stopping the exit.
fn report(py: Python<'_>, result: PyResult<()>) {
    if let Err(error) = result {
        error.write_unraisable(py, None);
    }
}

/// Flushes the standard streams and ends the process. Exit handlers of C libraries run and their
/// streams are flushed; the interpreter is not finalised.
fn leave(py: Python<'_>, status: i32) -> ! {
    for name in ["stdout", "stderr"] {
        let stream = py.import("sys").and_then(|sys| sys.getattr(name));
        if let Ok(stream) = stream
            && !stream.is_none()
        {
            report(py, stream.call_method0("flush").map(drop));
        }
    }
    EXIT_STATUS.store(status, Ordering::Relaxed);
    // SAFETY: only this thread exits, and other threads of Python wait for it.
    unsafe { libc::exit(status) }
}

/// Separates the exit handlers of C libraries in a worker from those of its template. Only the
/// worker's handlers run in the worker. Must be called in the new process.
pub(crate) fn mark_c_handlers() {
    // If memory is short, the template's handlers run, too. SAFETY: the function lives as long as
    // the process, since Python never unloads an extension module.
    unsafe { libc::atexit(end_of_own_c_handlers) };
}

extern "C" fn end_of_own_c_handlers() {
    let status = EXIT_STATUS.load(Ordering::Relaxed);
    // A child of the worker exits by itself.
    if status != NOT_LEAVING {
        flush_c_streams();
        // SAFETY: ending the process has no requirements.
        unsafe { libc::_exit(status) }
    }
}

/// Flushes the streams of C libraries (stdio).
pub(crate) fn flush_c_streams() {
    // SAFETY: flushing all C streams is allowed at any time.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// Exits at once, without exit handlers and without flushing buffers.
pub(crate) fn exit_at_once(status: i32) -> ! {
    // SAFETY: ending the process has no requirements.
    unsafe { libc::_exit(status) }
}
