//! Children that the application forks, and that return from the application into the engine.

use diagnostics::message::{Code, LogMessage};
use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::{
    log::Log,
    process::{exit_at_once, forks::is_child},
};

/// Ends a child that the application has forked, since only the parent may continue. The
/// application has returned `result` to the engine. In other processes, returns `result`.
///
/// # Errors
/// As `result`.
pub(crate) fn end_if_child<T>(py: Python<'_>, log: &Log, result: PyResult<T>) -> PyResult<T> {
    if is_child() { end_child(py, log, result.err()) } else { result }
}

/// Exits without exit handlers and without flushing files, which belong to the parent. The
/// application's exception decides the exit status.
fn end_child(py: Python<'_>, log: &Log, error: Option<PyErr>) -> ! {
    let status = match error {
        Some(error) if error.is_instance_of::<PySystemExit>(py) => exit_status(py, &error),
        error => {
            log.write(
                &LogMessage::new(
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
    exit_at_once(status)
}

/// The exit status of a program that exits by this `SystemExit`.
fn exit_status(py: Python<'_>, error: &PyErr) -> i32 {
    match error.value(py).getattr("code") {
        Ok(code) if code.is_none() => 0,
        Ok(code) => code.extract().unwrap_or_else(|_| {
            let text = code.str().map_or_else(|_| String::new(), |text| text.to_string());
            crate::log::write_errors(format!("{text}\n").as_bytes());
            1
        }),
        Err(_) => 1,
    }
}
