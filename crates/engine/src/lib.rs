//! The engine: everything of wsgate that touches Python, as one extension module that the user's
//! own interpreter loads.
//!
//! The gateway starts `python` with a few lines that load this module by its path and call
//! `prepare` and `run`. Layers, each using those below it: `worker` → `process` → `transport` →
//! `wsgi` → `forks`, with `app` beside `wsgi`.

mod app;
mod forks;
mod log;
mod log_files;
mod process;
mod rare_messages;
mod reporter;
mod stdlib;
mod transport;
mod worker;
mod wsgi;

use pyo3::prelude::*;

/// The module as Python sees it.
#[pymodule(name = "_wsgate")]
fn wsgate(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(worker::prepare, module)?)
}
