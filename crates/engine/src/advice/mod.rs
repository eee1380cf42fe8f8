//! Advice for common mistakes: the hints of log messages about exceptions and callables. Loading
//! and requests use the same advice.

mod callable;
mod distributions;
mod encoding;
mod missing_module;
mod own_modules;
mod python2;
mod removed_modules;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use diagnostics::limit_hints;
use pyo3::{
    exceptions::{
        PyAttributeError, PyImportError, PyMemoryError, PyNameError, PyOSError, PyRuntimeError,
        PySyntaxError, PyValueError,
    },
    prelude::*,
};
use rustix::io::Errno;
use wire::{
    app::Source,
    launch::{Launch, Venv},
};

pub(crate) use crate::advice::{
    callable::{FACTORY_NAMES, Mismatch, mismatch, no_factory_hint, returned},
    missing_module::{advice as for_missing_module, for_application, name as missing_name},
};

/// How this process was started, as far as advice depends on that.
static START: OnceLock<Start> = OnceLock::new();

/// How this process was started.
#[derive(Debug)]
pub(crate) struct Start {
    source: Source,
    /// The directories of the application on `sys.path`.
    directories: Vec<PathBuf>,
    venv: Option<Venv>,
    /// A sentence about a virtualenv that is not used.
    skipped_venv: Option<String>,
}

impl Start {
    /// The file of the application.
    fn script(&self) -> Option<&Path> {
        match &self.source {
            Source::File(path) => Some(Path::new(OsStr::from_bytes(path))),
            Source::Module(_) => None,
        }
    }
}

/// Remembers how `launch` starts this process.
pub(crate) fn remember(launch: &Launch) {
    let directories =
        launch.sys_path.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
    // A process has one launch message.
    let _ = START.set(Start {
        source: launch.app.source.clone(),
        directories,
        venv: launch.venv.clone(),
        skipped_venv: launch.skipped_venv.clone(),
    });
}

/// The advice about `error`, if it is a common mistake.
pub(crate) fn for_exception(py: Python<'_>, error: &PyErr) -> Option<String> {
    if let Some(name) = missing_module::name(py, error) {
        return Some(missing_module::advice(py, &name));
    }
    if let Some(advice) = of_limit(py, error).or_else(|| of_encoding(py, error)) {
        return Some(advice);
    }
    let evidence = if error.is_instance_of::<PySyntaxError>(py) {
        let text = |name: &str| -> String {
            error.value(py).getattr(name).and_then(|text| text.extract()).unwrap_or_default()
        };
        python2::is_syntax(&text("text"), &text("msg")).then_some(python2::Evidence::Certain)
    } else if error.is_instance_of::<PyNameError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
    {
        python2::evidence(&error.value(py).str().ok()?.to_string())
    } else {
        None
    };
    evidence.map(|evidence| python2::advice(&running(py), evidence))
}

/// The advice about `error`, if it is about the encoding of a source file. Python 3.11 and earlier
/// raise ValueError for null bytes.
fn of_encoding(py: Python<'_>, error: &PyErr) -> Option<String> {
    let is_of_source = error.is_instance_of::<PySyntaxError>(py)
        || error.is_instance_of::<PyValueError>(py) && !error.is_instance_of::<PyOSError>(py);
    // The text of an exception is code of the application, which may hang.
    let text = is_of_source.then(|| error.value(py).str().map(|text| text.to_string()));
    encoding::advice(py, error, &text?.ok()?)
}

/// The advice about `error`, if a limit of processes or memory is its cause.
fn of_limit(py: Python<'_>, error: &PyErr) -> Option<String> {
    if error.is_instance_of::<PyMemoryError>(py) {
        return Some(limit_hints::memory());
    }
    let value = error.value(py);
    let text = || value.str().map(|text| text.to_string()).unwrap_or_default();
    if error.is_instance_of::<PyRuntimeError>(py) {
        return text().contains("can't start new thread").then(|| limit_hints::processes(None));
    }
    if error.is_instance_of::<PyImportError>(py) {
        return limit_hints::of_text(&text());
    }
    let is_of_system = error.is_instance_of::<PyOSError>(py);
    let errno: Option<i32> =
        if is_of_system { value.getattr("errno").ok()?.extract().ok()? } else { None };
    (errno == Some(Errno::NOMEM.raw_os_error())).then(limit_hints::memory)
}

/// The version of the running Python, such as `3.11`.
fn running(py: Python<'_>) -> String {
    let version = py.version_info();
    format!("{}.{}", version.major, version.minor)
}
