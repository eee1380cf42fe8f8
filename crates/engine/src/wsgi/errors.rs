//! `wsgi.errors`: a text stream that takes any Unicode and never fails its writer (PEP 3333 *Input and Error Streams*).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyTuple},
};

use super::{
    ErrorSink,
    stream::{register, unsupported},
};

/// Bytes of a line that are waited for. Of a longer one, pieces leave.
const LONGEST_LINE: usize = 8 * 1024;

/// The binary stream below `wsgi.errors`, `sys.stdout` and `sys.stderr`: to Python an `io.BufferedIOBase`.
#[pyclass(frozen, weakref, module = "wsgate")]
struct ErrorBuffer {
    sink: Arc<dyn ErrorSink>,
}

#[pymethods]
#[expect(clippy::unused_self, reason = "methods and attributes of Python's stream protocol")]
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

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        lines.try_iter()?.try_for_each(|line| self.write(py, &line?).map(drop))
    }

    fn flush(&self, py: Python<'_>) {
        py.detach(|| self.sink.flush());
    }

    /// The log outlives every stream on it.
    fn close(&self, py: Python<'_>) {
        self.flush(py);
    }

    #[getter]
    fn closed(&self) -> bool {
        false
    }

    #[getter]
    fn name(&self) -> &'static str {
        "<stderr>"
    }

    #[getter]
    fn mode(&self) -> &'static str {
        "wb"
    }

    fn readable(&self) -> bool {
        false
    }

    fn writable(&self) -> bool {
        true
    }

    fn seekable(&self) -> bool {
        false
    }

    fn isatty(&self) -> bool {
        false
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.sink.descriptor().ok_or_else(|| unsupported(py, "fileno"))
    }

    #[pyo3(signature = (_size = None, /))]
    fn read(&self, py: Python<'_>, _size: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "read"))
    }

    #[pyo3(signature = (_size = None, /))]
    fn read1(&self, py: Python<'_>, _size: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "read1"))
    }

    #[pyo3(signature = (_target, /))]
    fn readinto(&self, py: Python<'_>, _target: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(unsupported(py, "readinto"))
    }

    #[pyo3(signature = (_target, /))]
    fn readinto1(&self, py: Python<'_>, _target: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(unsupported(py, "readinto1"))
    }

    #[pyo3(signature = (_size = None, /))]
    fn readline(&self, py: Python<'_>, _size: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "readline"))
    }

    #[pyo3(signature = (_hint = None, /))]
    fn readlines(&self, py: Python<'_>, _hint: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "readlines"))
    }

    #[pyo3(signature = (_offset, _whence = None, /))]
    fn seek(&self, py: Python<'_>, _offset: &Bound<'_, PyAny>, _whence: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "seek"))
    }

    fn tell(&self, py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "tell"))
    }

    #[pyo3(signature = (_size = None, /))]
    fn truncate(&self, py: Python<'_>, _size: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "truncate"))
    }

    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "detach"))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "read"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
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

/// Writes what has no line end yet to `stream`, and sets right what a request has changed of it for itself.
pub(super) fn settle(stream: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = stream.py();
    let settings = PyDict::new(py);
    settings.set_item(intern!(py, "encoding"), intern!(py, "utf-8"))?;
    settings.set_item(intern!(py, "errors"), intern!(py, "backslashreplace"))?;
    settings.set_item(intern!(py, "newline"), intern!(py, "\n"))?;
    settings.set_item(intern!(py, "line_buffering"), true)?;
    settings.set_item(intern!(py, "write_through"), true)?;
    stream.call_method(intern!(py, "reconfigure"), (), Some(&settings)).map(drop)
}

/// A new text stream on `sink`: UTF-8, what cannot be encoded is shown escaped, each line leaves at once.
pub(crate) fn text_stream(py: Python<'_>, sink: Arc<dyn ErrorSink>) -> PyResult<Bound<'_, PyAny>> {
    stream(py, sink, false)
}

/// A text stream on `sink`, which gets each word by itself if `write_through`.
fn stream(py: Python<'_>, sink: Arc<dyn ErrorSink>, write_through: bool) -> PyResult<Bound<'_, PyAny>> {
    static BUFFER: PyOnceLock<()> = PyOnceLock::new();
    register::<ErrorBuffer>(py, &BUFFER)?;
    let buffer = Bound::new(py, ErrorBuffer { sink })?;
    let stream = py.import(intern!(py, "_io"))?.getattr(intern!(py, "TextIOWrapper"))?.call1((
        buffer,
        "utf-8",
        "backslashreplace",
        // Newlines stay as they are. A line leaves when it ends, as a whole: other processes write to the same log.
        "\n",
        true,
        write_through,
    ))?;
    stream.setattr(intern!(py, "mode"), intern!(py, "w"))?;
    Ok(stream)
}
