//! Applications that a file of PasteDeploy describes (`file.ini#name`).

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use diagnostics::message::{Code, LogMessage};
use pyo3::{exceptions::PyModuleNotFoundError, prelude::*, types::PyDict};
use wire::app::{App, Source};

/// Loads the application by PasteDeploy, after setting up the logging that the file describes, as
/// `pserve` does.
pub(super) fn load<'py>(py: Python<'py>, app: &App, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let path = match &app.source {
        Source::File(path) => Path::new(OsStr::from_bytes(path)),
        Source::Module(name) => Path::new(name),
    };
    let deploy = py.import("paste.deploy")?;
    let here = path.parent().unwrap_or(Path::new("/"));
    let parser = py.import("configparser")?.call_method0("RawConfigParser")?;
    parser.call_method1("read", (path,))?;
    if parser.call_method1("has_section", ("loggers",))?.is_truthy()? {
        let defaults = PyDict::new(py);
        defaults.set_item("here", here)?;
        defaults.set_item("__file__", path)?;
        let options = PyDict::new(py);
        options.set_item("defaults", defaults)?;
        options.set_item("disable_existing_loggers", false)?;
        py.import("logging.config")?.call_method("fileConfig", (path,), Some(&options))?;
    }
    let options = PyDict::new(py);
    options.set_item("name", name)?;
    options.set_item("relative_to", here)?;
    let uri = format!("config:{}", path.display());
    deploy.call_method("loadapp", (uri,), Some(&options))
}

/// Is `error` that PasteDeploy is missing?
pub(super) fn is_missing(py: Python<'_>, error: &PyErr) -> bool {
    let name = error.value(py).getattr("name").and_then(|name| name.extract::<String>());
    error.is_instance_of::<PyModuleNotFoundError>(py)
        && name.is_ok_and(|name| name == "paste" || name == "paste.deploy")
}

/// The log message that PasteDeploy, which `app` needs, is missing.
pub(super) fn missing(app: &App) -> LogMessage {
    let sentence = format!("`{app}` needs PasteDeploy, which is not installed");
    LogMessage::new(Code::ModuleNotFound, sentence).hint(
        "`python -m pip install PasteDeploy` in the virtualenv of the application, or name that \
         virtualenv with --venv DIR",
    )
}
