//! The interpreter itself: made fit for an application, and left in good order.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyList, PyTuple},
};
use rustix::process::Signal;
use wire::{app::Source, launch::Launch, report::StopReason};

use crate::{
    process,
    process::forks,
    reporter::Reporter,
    transport::error_sinks::PrintedOutput,
    wsgi::{ErrorSink, Interrupted, Interruptible, install_streams},
};

/// Sets up `sys` and crash reports.
pub(crate) fn settle(py: Python<'_>, launch: &Launch) -> PyResult<()> {
    let sys = py.import("sys")?;
    settle_path(&sys, launch)?;
    let name: &OsStr = match &launch.app.source {
        Source::File(path) => OsStr::from_bytes(path),
        Source::Module(name) => OsStr::new(name),
    };
    sys.setattr("argv", PyList::new(py, [name])?)?;
    if let Some(prefix) = &launch.pycache_prefix {
        sys.setattr("pycache_prefix", OsStr::from_bytes(prefix))?;
    }
    // What an application prints belongs in the log line by line, and must not fail it when the log
    // cannot be written.
    let sink: Arc<dyn ErrorSink> = Arc::new(PrintedOutput);
    install_streams(py, &sink)?;
    // A crash in C code then leaves the Python stack in the log.
    forks::report_crashes(py)
}

/// Whose SIGTERM ends a request.
pub(crate) enum Heeds {
    /// Whoever sends it.
    Anybody,
    /// The gateway's, which says so before. Another's is noted. A handler that loading has set
    /// decides how the request ends, as it does in a process that serves one request.
    Gateway(Arc<AtomicBool>, TermHandler),
}

/// What loading has made of SIGTERM.
pub(crate) enum TermHandler {
    /// Nothing.
    Default,
    /// It is ignored.
    Ignored,
    /// A function is called.
    Function(Py<PyAny>),
}

impl TermHandler {
    /// What there is now.
    pub(crate) fn present(py: Python<'_>) -> PyResult<Self> {
        let signal = py.import("_signal")?;
        let handler = signal.call_method1("getsignal", (Signal::TERM.as_raw(),))?;
        Ok(if handler.is_callable() {
            Self::Function(handler.unbind())
        } else if handler.eq(signal.getattr("SIG_IGN")?)? {
            Self::Ignored
        } else {
            Self::Default
        })
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Default => Self::Default,
            Self::Ignored => Self::Ignored,
            Self::Function(function) => Self::Function(function.clone_ref(py)),
        }
    }
}

/// Makes SIGTERM raise an exception in the application, as long as what is returned says that it
/// may.
pub(crate) fn end_by_exception(
    py: Python<'_>,
    reporter: &Reporter,
    heeds: Heeds,
) -> PyResult<Interruptible> {
    let interruptible = Interruptible::yes();
    let (reporter, asked) = (reporter.clone(), interruptible.clone());
    let interrupt = PyCFunction::new_closure(
        py,
        Some(c"interrupt"),
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            if process::has_interrupted() {
                // The gateway has exited, and `close()` takes longer than the request may.
                return if asked.time_out() {
                    Err(Interrupted::new_err("timeout"))
                } else {
                    Ok(())
                };
            }
            let reason = match (reporter.stop(), &heeds) {
                // A supervisor: this process ends after its request in any case.
                (None, Heeds::Gateway(told, _)) => {
                    told.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                (_, Heeds::Gateway(_, TermHandler::Ignored)) => return Ok(()),
                (_, Heeds::Gateway(_, TermHandler::Function(theirs))) => {
                    return theirs.call1(arguments.py(), arguments.clone()).map(drop);
                }
                (Some(StopReason::Timeout), _) if asked.time_out() => StopReason::Timeout.as_str(),
                // A person has had enough of `close()`, too.
                (Some(stop @ (StopReason::Interrupted | StopReason::HungUp)), _)
                    if asked.time_out() =>
                {
                    stop.as_str()
                }
                // The response is whole, and what is left to do is short. The gateway sees to it if
                // it is not.
                _ if !asked.get() => return Ok(()),
                (Some(StopReason::Timeout), _) => return Ok(()),
                (stop, _) => stop.unwrap_or(StopReason::Terminated).as_str(),
            };
            Err(Interrupted::new_err(reason))
        },
    )?;
    forks::handle(py, Signal::TERM.as_raw(), &interrupt)?;
    Ok(interruptible)
}

fn settle_path(sys: &Bound<'_, PyModule>, launch: &Launch) -> PyResult<()> {
    let path = sys.getattr("path")?.cast_into::<PyList>()?;
    // `python -c` puts the working directory first; what an application imports must not depend on
    // that.
    if path.get_item(0).is_ok_and(|first| first.eq("").unwrap_or(false)) {
        path.del_item(0)?;
    }
    for (position, directory) in launch.sys_path.iter().enumerate() {
        path.insert(position, OsStr::from_bytes(directory))?;
    }
    Ok(())
}
