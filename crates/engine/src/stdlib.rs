//! Modules of Python's standard library, for the engine's own use after the application's
//! directories are on `sys.path`.
//!
//! A file `traceback.py` beside the script is the application's. The engine neither runs such a
//! file nor leaves a module of the standard library where the application would find its own: where
//! a name is taken, the engine does without.

use std::ffi::OsString;

use pyo3::{
    exceptions::PyImportError,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

/// Modules that `traceback`, `threading` and `wsgiref.validate` import, at once or later, in any
/// version of Python. Built-in modules are always found first, and need not stand here.
const NEEDED: [&str; 46] = [
    "traceback",
    "threading",
    "wsgiref",
    "_ast_unparse",
    "_collections_abc",
    "_colorize",
    "_compat_pickle",
    "_contextvars",
    "_heapq",
    "_locale",
    "_opcode",
    "_opcode_metadata",
    "_py_warnings",
    "_suggestions",
    "_threading_local",
    "_weakrefset",
    "abc",
    "annotationlib",
    "ast",
    "bisect",
    "codecs",
    "codeop",
    "collections",
    "contextlib",
    "contextvars",
    "copyreg",
    "dataclasses",
    "dis",
    "enum",
    "functools",
    "heapq",
    "importlib",
    "inspect",
    "io",
    "keyword",
    "linecache",
    "opcode",
    "operator",
    "re",
    "reprlib",
    "textwrap",
    "token",
    "tokenize",
    "types",
    "unicodedata",
    "warnings",
];

/// Names that the modules above need in Python 3.9 and 3.10 alone.
const NEEDED_BY_OLD_RE: [&str; 3] = ["sre_compile", "sre_constants", "sre_parse"];

/// The module `name`, one of `traceback`, `threading` and `wsgiref.validate`.
///
/// # Errors
/// `ImportError` that names the file, if the application hides this module or another that it
/// needs; and what importing raises.
pub(crate) fn import<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyModule>> {
    if let Some(taken) = hidden(py)? {
        return Err(PyImportError::new_err(format!(
            "`{taken}` hides a module of Python's standard library"
        )));
    }
    py.import(name)
}

/// The first file that would be imported, or was, under the name of a module that is needed.
fn hidden(py: Python<'_>) -> PyResult<Option<String>> {
    let library = Library::of(py)?;
    let finder = py.import("_frozen_importlib_external")?.getattr("PathFinder")?;
    for name in NEEDED.iter().chain(&NEEDED_BY_OLD_RE) {
        let spec = match library.modules.get_item(*name)? {
            Some(module) => module.getattr(intern!(py, "__spec__")).ok(),
            None => Some(finder.call_method1(intern!(py, "find_spec"), (*name,))?),
        };
        // Not every version has all of them, and built-in modules are in no file.
        let origin = spec
            .filter(|spec| !spec.is_none())
            .and_then(|spec| spec.getattr(intern!(py, "origin")).ok());
        let origin: Option<OsString> = origin.and_then(|origin| origin.extract().ok());
        if let Some(file) = origin.filter(|file| !library.has(file)) {
            return Ok(Some(file.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Where the standard library is.
struct Library<'py> {
    modules: Bound<'py, PyDict>,
    /// Its directory, with a slash behind it.
    directory: String,
}

impl<'py> Library<'py> {
    fn of(py: Python<'py>) -> PyResult<Self> {
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        // Python has loaded it before there was an application.
        let os = py.import("os")?.getattr("__file__")?.cast_into::<PyString>()?.to_string();
        let directory = os.rsplit_once('/').map_or("", |(directory, _)| directory);
        Ok(Self { modules, directory: format!("{directory}/") })
    }

    fn has(&self, file: &OsString) -> bool {
        let Some(file) = file.to_str() else {
            return false;
        };
        // `sys.path` may name extension modules of the library by another way.
        let is_inside = file.starts_with(&self.directory) || file.contains("/lib-dynload/");
        let is_installed =
            ["/site-packages/", "/dist-packages/"].iter().any(|place| file.contains(place));
        !file.starts_with('/') || (is_inside && !is_installed)
    }
}
