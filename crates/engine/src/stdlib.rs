//! Imports modules of Python's standard library after the application's directories are on
//! `sys.path`.
//!
//! A file `traceback.py` beside the script belongs to the application. The engine does not run such
//! a file. Nor does the engine import a standard module under a name that the application uses. If
//! a name is taken, the engine does without the module.

use std::ffi::OsString;

use pyo3::{
    exceptions::PyImportError,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

/// Modules that `traceback`, `threading` and `wsgiref.validate` import, immediately or later, in
/// any version of Python. Built-in modules are omitted: Python always finds them first.
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

/// Modules that only Python 3.9 and 3.10 need for the modules above.
const NEEDED_BY_OLD_RE: [&str; 3] = ["sre_compile", "sre_constants", "sre_parse"];

/// Imports the module `name`: `traceback`, `threading` or `wsgiref.validate`.
///
/// # Errors
/// `ImportError` that names the file, if the application hides this module or a dependency of the
/// module. Also any exception of the import itself.
pub(crate) fn import<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyModule>> {
    if let Some(taken) = hidden(py)? {
        return Err(PyImportError::new_err(format!(
            "`{taken}` hides a module of Python's standard library"
        )));
    }
    py.import(name)
}

/// The first file of the application that has the name of a needed module.
fn hidden(py: Python<'_>) -> PyResult<Option<String>> {
    let library = Library::of(py)?;
    let finder = py.import("_frozen_importlib_external")?.getattr("PathFinder")?;
    for name in NEEDED.iter().chain(&NEEDED_BY_OLD_RE) {
        let spec = match library.modules.get_item(*name)? {
            Some(module) => module.getattr(intern!(py, "__spec__")).ok(),
            None => Some(finder.call_method1(intern!(py, "find_spec"), (*name,))?),
        };
        // Some modules are missing in some versions, and built-in modules have no file.
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

/// The location of the standard library.
struct Library<'py> {
    modules: Bound<'py, PyDict>,
    /// The directory, with a trailing slash.
    directory: String,
}

impl<'py> Library<'py> {
    fn of(py: Python<'py>) -> PyResult<Self> {
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        // Python imports `os` at its start, before the application can hide the module.
        let os = py.import("os")?.getattr("__file__")?.cast_into::<PyString>()?.to_string();
        let directory = os.rsplit_once('/').map_or("", |(directory, _)| directory);
        Ok(Self { modules, directory: format!("{directory}/") })
    }

    fn has(&self, file: &OsString) -> bool {
        let Some(file) = file.to_str() else {
            return false;
        };
        // `sys.path` may name the directory of extension modules by another path.
        let is_inside = file.starts_with(&self.directory) || file.contains("/lib-dynload/");
        let is_installed =
            ["/site-packages/", "/dist-packages/"].iter().any(|place| file.contains(place));
        !file.starts_with('/') || (is_inside && !is_installed)
    }
}
