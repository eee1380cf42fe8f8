//! The files of all code that this process has loaded.

use std::{fs, path::PathBuf};

use pyo3::prelude::*;

use crate::{loading::staleness::executed, process::python_modules};

/// The counts of loaded modules and known code files. Equal counts mean that no code was loaded
/// between two checks.
pub(super) fn count(py: Python<'_>) -> usize {
    python_modules::count(py) + executed::count()
}

/// The files of all modules; none if the application has replaced `sys.modules`.
pub(super) fn of_modules(py: Python<'_>) -> Vec<PathBuf> {
    python_modules::files(py).unwrap_or_default()
}

/// Files of code that may belong to no module, and `.pth` files, which name directories of modules.
///
/// # Errors
/// If the application has replaced `sys.path`.
pub(super) fn others(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    let mut files = executed::all();
    let path = py.import("sys")?.getattr("path")?;
    for directory in path.try_iter()?.filter_map(|entry| entry.ok()?.extract::<PathBuf>().ok()) {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        files.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|end| end == "pth")),
        );
    }
    Ok(files)
}
