//! Files whose code this process has run in any way: `exec` and `runpy` leave no module behind.
//!
//! Python's audit events name the code objects that run and the files that are opened. Each event
//! costs a call, so only a process that watches its code installs the hook.

use std::{
    collections::BTreeSet,
    env,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::loading::staleness::archive::archive_of;
use pyo3::{
    intern,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

/// How many files are recorded.
const MAX_FILES: usize = 1 << 16;

/// Files of code that was run, and sources that were read.
static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Records all code that is run from now on, in this process and in its forked children.
///
/// # Errors
/// If Python raises.
pub(crate) fn take_note(py: Python<'_>) -> PyResult<()> {
    let hook = PyCFunction::new_closure(
        py,
        Some(c"note_code"),
        None,
        |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            // An error here would fail the application's call.
            if let Ok(Some(file)) = file_of(arguments) {
                note(file);
            }
        },
    )?;
    py.import("sys")?.call_method1("addaudithook", (hook,)).map(drop)
}

/// Records `file`, if it exists. Code may have any name, even a different name for each request.
fn note(file: PathBuf) {
    let is_known = {
        let files = files();
        files.contains(&file) || files.len() >= MAX_FILES
    };
    if !is_known && (file.is_file() || archive_of(&file).is_some()) {
        files().insert(file);
    }
}

/// The number of recorded files.
pub(crate) fn count() -> usize {
    files().len()
}

/// All recorded files.
pub(crate) fn all() -> Vec<PathBuf> {
    files().iter().cloned().collect()
}

fn files() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file of an audit event, if it is a file of code.
fn file_of(arguments: &Bound<'_, PyTuple>) -> PyResult<Option<PathBuf>> {
    let py = arguments.py();
    let event = arguments.get_item(0)?;
    let is_run = event.eq(intern!(py, "exec"))?;
    if !is_run && !event.eq(intern!(py, "open"))? {
        return Ok(None);
    }
    let details = arguments.get_item(1)?.cast_into::<PyTuple>()?;
    let first = details.get_item(0)?;
    let file: PathBuf = if is_run {
        first.getattr(intern!(py, "co_filename"))?.extract()?
    } else {
        let mode = details.get_item(1)?;
        if !mode.is_none() && !mode.extract::<String>()?.starts_with('r') {
            return Ok(None);
        }
        let Ok(file) = first.extract::<PathBuf>() else { return Ok(None) };
        if file.extension().is_none_or(|extension| extension != "py") {
            return Ok(None);
        }
        file
    };
    // `<string>` and similar names are not files.
    if file.as_os_str().as_encoded_bytes().starts_with(b"<") {
        return Ok(None);
    }
    Ok(if file.is_absolute() {
        Some(file)
    } else {
        env::current_dir().ok().map(|directory| directory.join(file))
    })
}
