//! What the streams of the PEP have in common with those of Python's `io` (PEP 3333 *Input and
//! Error Streams*).

use pyo3::{PyTypeInfo, exceptions::PyValueError, intern, prelude::*, sync::PyOnceLock};

/// Lets `isinstance(stream, io.BufferedIOBase)` say what is so of streams of the type `T`, whose
/// `registered` remembers that.
pub(super) fn register<T: PyTypeInfo>(py: Python<'_>, registered: &PyOnceLock<()>) -> PyResult<()> {
    let register = || {
        let base = py.import(intern!(py, "io"))?.getattr(intern!(py, "BufferedIOBase"))?;
        base.call_method1(intern!(py, "register"), (py.get_type::<T>(),)).map(drop)
    };
    registered.get_or_try_init(py, register).map(drop)
}

/// The exception for what a stream cannot do.
pub(super) fn unsupported(py: Python<'_>, what: &str) -> PyErr {
    let exception = || {
        py.import(intern!(py, "_io"))?.getattr(intern!(py, "UnsupportedOperation"))?.call1((what,))
    };
    exception().map_or_else(|error| error, PyErr::from_value)
}

/// The exception for what is done to a closed stream.
pub(super) fn closed_file() -> PyErr {
    PyValueError::new_err("I/O operation on closed file.")
}
