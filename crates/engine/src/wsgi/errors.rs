//! `wsgi.errors`: a text stream that takes any Unicode and never fails its writer (PEP 3333 *Input and Error Streams*).

use std::sync::Arc;

use pyo3::{intern, prelude::*, types::PyBytes};

use super::ErrorSink;

/// The binary stream below `wsgi.errors`, `sys.stdout` and `sys.stderr`.
#[pyclass(frozen, module = "wsgate")]
struct ErrorBuffer {
    sink: Arc<dyn ErrorSink>,
}

#[pymethods]
impl ErrorBuffer {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        // bytearray and memoryview as well; the stable ABI of 3.9 has no buffers, so Python itself copies them.
        let data = match data.cast::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            Err(_) => py
                .get_type::<PyBytes>()
                .call1((py.import("builtins")?.getattr("memoryview")?.call1((data,))?,))?
                .cast_into()?,
        };
        let bytes = data.as_bytes();
        py.detach(|| self.sink.write(bytes));
        Ok(bytes.len())
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn flush(&self) {}

    /// The log outlives every stream on it.
    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn close(&self) {}

    #[getter]
    #[expect(clippy::unused_self, reason = "an attribute of Python's stream protocol")]
    fn closed(&self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn readable(&self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn writable(&self) -> bool {
        true
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn seekable(&self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn isatty(&self) -> bool {
        false
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        match self.sink.descriptor() {
            Some(descriptor) => Ok(descriptor),
            None => Err(PyErr::from_value(py.import("_io")?.getattr("UnsupportedOperation")?.call1(("fileno",))?)),
        }
    }
}

/// A new text stream on `sink`: UTF-8, what cannot be encoded is shown escaped, each line leaves at once.
pub(crate) fn text_stream(py: Python<'_>, sink: Arc<dyn ErrorSink>) -> PyResult<Bound<'_, PyAny>> {
    let buffer = Bound::new(py, ErrorBuffer { sink })?;
    py.import(intern!(py, "_io"))?.getattr(intern!(py, "TextIOWrapper"))?.call1((
        buffer,
        "utf-8",
        "backslashreplace",
        // Newlines stay as they are. A line leaves when it ends, as a whole: other processes write to the same log.
        "\n",
        true,
    ))
}
