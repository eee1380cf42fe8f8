//! Shared behaviour of the PEP's streams and Python's `io` streams (PEP 3333 *Input and Error
//! Streams*).

use pyo3::{PyTypeInfo, exceptions::PyValueError, intern, prelude::*, sync::PyOnceLock};

/// Makes `isinstance(stream, io.BufferedIOBase)` true for streams of the type `T`. `registered`
/// records that this was done.
pub(super) fn register<T: PyTypeInfo>(py: Python<'_>, registered: &PyOnceLock<()>) -> PyResult<()> {
    let register = || {
        let base = py.import(intern!(py, "io"))?.getattr(intern!(py, "BufferedIOBase"))?;
        base.call_method1(intern!(py, "register"), (py.get_type::<T>(),)).map(drop)
    };
    registered.get_or_try_init(py, register).map(drop)
}

/// The exception for an unsupported operation of a stream.
pub(super) fn unsupported(py: Python<'_>, what: &str) -> PyErr {
    let exception = || {
        py.import(intern!(py, "_io"))?.getattr(intern!(py, "UnsupportedOperation"))?.call1((what,))
    };
    exception().map_or_else(|error| error, PyErr::from_value)
}

/// The exception for an operation on a closed stream.
pub(super) fn closed_file() -> PyErr {
    PyValueError::new_err("I/O operation on closed file.")
}
