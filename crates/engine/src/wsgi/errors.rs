//! `wsgi.errors`: a text stream that takes any Unicode and never fails its writer (PEP 3333 *Input and Error Streams*).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use pyo3::{intern, prelude::*, types::PyBytes};

use super::ErrorSink;

/// Bytes of a line that are waited for. Of a longer one, pieces leave.
const LONGEST_LINE: usize = 8 * 1024;

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

    fn flush(&self, py: Python<'_>) {
        py.detach(|| self.sink.flush());
    }

    /// The log outlives every stream on it.
    fn close(&self, py: Python<'_>) {
        self.flush(py);
    }

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

/// Lines of a text stream, which leave as a whole: other processes write to the same log.
pub(super) struct Lines {
    sink: Arc<dyn ErrorSink>,
    /// What has no line end yet.
    begun: Mutex<Vec<u8>>,
    /// How often something was done to the stream.
    uses: AtomicUsize,
}

impl Lines {
    /// How often something was done to the stream. To flush it counts, too, as whoever closes it does that.
    pub(super) fn uses(&self) -> usize {
        self.uses.load(Ordering::Relaxed)
    }
}

impl ErrorSink for Lines {
    fn write(&self, bytes: &[u8]) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.extend_from_slice(bytes);
        // Through `errors.buffer` lines come without a flush behind them.
        if begun.len() > LONGEST_LINE || bytes.contains(&b'\n') {
            let piece = std::mem::take(&mut *begun);
            // Not under the lock: the log may be slow, and the application may fork meanwhile.
            drop(begun);
            self.sink.write(&piece);
        }
    }

    fn flush(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        if !begun.is_empty() {
            self.sink.write(&begun);
        }
    }

    fn descriptor(&self) -> Option<i32> {
        self.sink.descriptor()
    }
}

/// A new `wsgi.errors` on `sink`, and what is written to it.
pub(super) fn errors_stream(py: Python<'_>, sink: Arc<dyn ErrorSink>) -> PyResult<(Bound<'_, PyAny>, Arc<Lines>)> {
    let lines = Arc::new(Lines { sink, begun: Mutex::default(), uses: AtomicUsize::new(0) });
    Ok((stream(py, lines.clone(), true)?, lines))
}

/// A new text stream on `sink`: UTF-8, what cannot be encoded is shown escaped, each line leaves at once.
pub(crate) fn text_stream(py: Python<'_>, sink: Arc<dyn ErrorSink>) -> PyResult<Bound<'_, PyAny>> {
    stream(py, sink, false)
}

/// A text stream on `sink`, which gets each word by itself if `write_through`.
fn stream(py: Python<'_>, sink: Arc<dyn ErrorSink>, write_through: bool) -> PyResult<Bound<'_, PyAny>> {
    let buffer = Bound::new(py, ErrorBuffer { sink })?;
    py.import(intern!(py, "_io"))?.getattr(intern!(py, "TextIOWrapper"))?.call1((
        buffer,
        "utf-8",
        "backslashreplace",
        // Newlines stay as they are. A line leaves when it ends, as a whole: other processes write to the same log.
        "\n",
        true,
        write_through,
    ))
}
