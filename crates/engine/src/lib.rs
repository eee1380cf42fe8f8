//! The engine: all code of wsgate that touches Python, in one extension module. The user's own
//! interpreter loads this module.
//!
//! The gateway starts `python` with a few lines that load this module by its path and call
//! `prepare` and `run`. The modules form layers, from the top: `run` → `check` → `cgi`, `pool` →
//! `loading` → `transport` → `wsgi` → `advice`, `log`, `reporter`, `stdlib` → `process`.

mod advice;
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
