//! The function of `--after-fork`, which a process calls that was forked with the application
//! loaded.

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use wire::launch::Launch;

use crate::log::Log;

/// Calls the function, if there is one. Returns whether the process may serve; otherwise the reason
/// was logged.
pub(crate) fn call(py: Python<'_>, launch: &Launch, log: &Log) -> bool {
    let Some((module, function)) = launch.after_fork.as_ref().and_then(|path| path.split_once(':'))
    else {
        return true;
    };
    let called = py.import(module).and_then(|module| module.getattr(function)?.call0());
    let Err(error) = called else { return true };
    let sentence = format!("--after-fork {module}:{function} failed: {error}; the process exits");
    log.write(&LogMessage::new(Code::AfterForkFailed, sentence).hint(
        "the traceback follows; the module must be importable, as `wsgate check` shows with its \
         sys.path",
    ));
    error.print(py);
    false
}
