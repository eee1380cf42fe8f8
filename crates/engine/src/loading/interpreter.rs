//! Prepares the interpreter for an application: `sys`, standard streams, crash reports, SIGTERM.

use std::{
    ffi::OsStr,
    io,
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
use rustix::{process::Signal, termios::isatty};
use wire::{
    app::Source,
    launch::Launch,
    report::{Report, StopReason},
};

use crate::{
    advice, process,
    process::forks,
    reporter::Reporter,
    transport::error_sinks::PrintedOutput,
    wsgi::{Enforcer, ErrorSink, Interrupted, Interruptible, install_streams},
};

/// Sets up `sys`, the standard streams and crash reports.
pub(crate) fn prepare(py: Python<'_>, launch: &Launch) -> PyResult<()> {
    advice::remember(launch);
    let sys = py.import("sys")?;
    prepare_path(&sys, launch)?;
    let name: &OsStr = match &launch.app.source {
        Source::File(path) => OsStr::from_bytes(path),
        Source::Module(name) => OsStr::new(name),
    };
    sys.setattr("argv", PyList::new(py, [name])?)?;
    if let Some(prefix) = &launch.pycache_prefix {
        sys.setattr("pycache_prefix", OsStr::from_bytes(prefix))?;
    }
    // Printed text goes to the log line by line. If the log cannot be written, the application must
    // not fail. On a terminal, Python's own streams show the prompt of a debugger.
    if !isatty(io::stdin()) {
        let sink: Arc<dyn ErrorSink> = Arc::new(PrintedOutput);
        install_streams(py, &sink)?;
    }
    // A crash in C code then leaves the Python stack in the log.
    forks::report_crashes(py)
}

/// The senders whose SIGTERM ends a request.
pub(crate) enum SigtermSender {
    /// Any sender.
    Anybody,
    /// The gateway, which announces the signal. SIGTERM of other senders sets the flag. If loading
    /// has installed a handler, that handler decides how the request ends, as in cold CGI.
    Gateway(Arc<AtomicBool>, SigtermHandler),
}

/// The application's action for SIGTERM after loading.
pub(crate) enum SigtermHandler {
    /// The default.
    Default,
    /// SIGTERM is ignored.
    Ignored,
    /// Python calls this function.
    Function(Py<PyAny>),
}

impl SigtermHandler {
    /// The present action.
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

    /// A copy that refers to the same function.
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Default => Self::Default,
            Self::Ignored => Self::Ignored,
            Self::Function(function) => Self::Function(function.clone_ref(py)),
        }
    }
}

/// Makes SIGTERM raise an exception in the application, as long as the returned value allows that.
pub(crate) fn raise_on_sigterm(
    py: Python<'_>,
    reporter: &Reporter,
    senders: SigtermSender,
) -> PyResult<Interruptible> {
    let gateway = reporter.clone();
    let interruptible = Interruptible::of_enforcer(Enforcer(Box::new(move |time| {
        gateway.send(&Report::TimeExtended(time.from_now));
    })));
    let (reporter, asked) = (reporter.clone(), interruptible.clone());
    let interrupt = PyCFunction::new_closure(
        py,
        Some(c"interrupt"),
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            if process::has_interrupted() {
                // The gateway has exited, and `close()` has exceeded the time limit of the request.
                return if asked.time_out() {
                    Err(Interrupted::new_err("timeout"))
                } else {
                    Ok(())
                };
            }
            let reason = match (reporter.stop(), &senders) {
                // The supervisor sent the signal: this process exits after its request in any case.
                (None, SigtermSender::Gateway(asked_to_stop, _)) => {
                    asked_to_stop.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                (_, SigtermSender::Gateway(_, SigtermHandler::Ignored)) => return Ok(()),
                (_, SigtermSender::Gateway(_, SigtermHandler::Function(theirs))) => {
                    return theirs.call1(arguments.py(), arguments.clone()).map(drop);
                }
                (Some(stop), _) if stop.is_timeout() && asked.time_out() => stop.as_str(),
                // A user at a terminal may also interrupt `close()`.
                (Some(stop @ (StopReason::Interrupted | StopReason::HungUp)), _)
                    if asked.time_out() =>
                {
                    stop.as_str()
                }
                // The response is complete, so the rest should be short. Otherwise the gateway
                // kills the process.
                _ if !asked.may_be_interrupted() => return Ok(()),
                (Some(stop), _) if stop.is_timeout() => return Ok(()),
                (stop, _) => stop.unwrap_or(StopReason::Terminated).as_str(),
            };
            Err(Interrupted::new_err(reason))
        },
    )?;
    forks::handle(py, Signal::TERM.as_raw(), &interrupt)?;
    Ok(interruptible)
}

fn prepare_path(sys: &Bound<'_, PyModule>, launch: &Launch) -> PyResult<()> {
    let path = sys.getattr("path")?.cast_into::<PyList>()?;
    // `python -c` puts the working directory first; imports must not depend on it.
    if path.get_item(0).is_ok_and(|first| first.eq("").unwrap_or(false)) {
        path.del_item(0)?;
    }
    for (position, directory) in launch.sys_path.iter().enumerate() {
        path.insert(position, OsStr::from_bytes(directory))?;
    }
    Ok(())
}
