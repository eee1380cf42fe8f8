//! The modules that Python has loaded, and their files.

use std::path::PathBuf;

use pyo3::{prelude::*, types::PyDict};

/// A module of `sys.modules` that came from a file.
pub(crate) struct ModuleFile<'py> {
    /// The name in `sys.modules`; `None` if the key is not a `str`.
    pub(crate) name: Option<String>,
    /// The globals of the module.
    pub(crate) namespace: Bound<'py, PyDict>,
    /// The file as the module or its loader names it. Files inside archives do not exist in the
    /// file system.
    pub(crate) file: PathBuf,
}

/// All modules that came from files. Reads only the dictionaries of modules, since reading an
/// attribute of some modules imports others.
///
/// # Errors
/// If the application has replaced `sys.modules`.
pub(crate) fn with_files(py: Python<'_>) -> PyResult<Vec<ModuleFile<'_>>> {
    // A copy, since other threads may import meanwhile.
    let modules = sys_modules(py)?.copy()?;
    let mut found = Vec::new();
    for (name, module) in modules {
        let Ok(module) = module.cast::<PyModule>() else { continue };
        let namespace = module.dict();
        if let Some(file) = file_of(&namespace) {
            found.push(ModuleFile { name: name.extract().ok(), namespace, file });
        }
    }
    Ok(found)
}

/// The files of all loaded modules.
///
/// # Errors
/// As [`with_files`].
pub(crate) fn files(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    Ok(with_files(py)?.into_iter().map(|module| module.file).collect())
}

/// The number of loaded modules; 0 if the application has replaced `sys.modules`.
pub(crate) fn count(py: Python<'_>) -> usize {
    sys_modules(py).map_or(0, |modules| modules.len())
}

/// The module `name`, if it is loaded.
///
/// # Errors
/// If `sys.modules` is missing.
pub(crate) fn loaded<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let modules = py.import("sys")?.getattr("modules")?;
    Ok(modules.get_item(name).ok().filter(|module| !module.is_none()))
}

fn sys_modules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    Ok(py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?)
}

fn file_of(namespace: &Bound<'_, PyDict>) -> Option<PathBuf> {
    if let Some(file) = namespace.get_item("__file__").ok()?.and_then(|file| file.extract().ok()) {
        return Some(file);
    }
    // Loaders need not set `__file__`.
    let origin: PathBuf =
        namespace.get_item("__spec__").ok()??.getattr("origin").ok()?.extract().ok()?;
    origin.is_absolute().then_some(origin)
}
