//! The engine: everything of wsgate that touches Python, as one extension module that the user's
//! own interpreter loads.
//!
//! The gateway starts `python` with a few lines that load this module by its path and call
//! `prepare` and `run`. Rooms, each using those below it: `run` → `cgi`, `pool`, `check` →
//! `loading` → `process` → `transport` → `wsgi`.

mod cgi;
mod check;
mod loading;
mod log;
mod pool;
mod process;
mod reporter;
mod run;
mod stdlib;
mod transport;
mod wsgi;

use pyo3::prelude::*;

/// The module as Python sees it.
#[pymodule(name = "_wsgate")]
fn wsgate(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(crate::run::prepare, module)?)
}
