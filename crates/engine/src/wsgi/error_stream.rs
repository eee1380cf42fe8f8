//! `wsgi.errors`: a text stream that takes any Unicode and never fails its writer (PEP 3333 *Input
//! and Error Streams*).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{
        ThreadId, {self},
    },
};

use pyo3::{
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBytes, PyDict, PyTuple},
};

use crate::{
    log::is_open_traceback,
    wsgi::{
        ErrorSink,
        stream::{register, unsupported},
    },
};

/// How many bytes of an unfinished line are buffered. Longer lines are written in pieces.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// How many threads may have unfinished lines at the same time.
const MAX_UNFINISHED_LINES: usize = 256;

/// The binary stream below `wsgi.errors`, `sys.stdout` and `sys.stderr`: to Python an
/// `io.BufferedIOBase`.
#[pyclass(frozen, weakref, module = "wsgate")]
struct ErrorBuffer {
    sink: Arc<dyn ErrorSink>,
}

#[pymethods]
#[expect(clippy::unused_self, reason = "methods and attributes of Python's stream protocol")]
impl ErrorBuffer {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        // Also accepts bytearray and memoryview. The stable ABI of 3.9 has no buffers, so Python
        // itself copies them.
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
    fn seek(
        &self,
        py: Python<'_>,
        _offset: &Bound<'_, PyAny>,
        _whence: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
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

/// Lines of a text stream. Each line is written as a whole, since other processes write to the same
/// log. Each thread has its own line.
pub(super) struct LineBuffer {
    sink: Arc<dyn ErrorSink>,
    /// Unfinished lines.
    begun: Mutex<Vec<UnfinishedLine>>,
    /// The use count of the stream.
    uses: AtomicUsize,
}

/// The unfinished line of a thread.
struct UnfinishedLine {
    thread: ThreadId,
    /// Bytes that were not written yet.
    bytes: Vec<u8>,
    /// A part of the line was written.
    is_open: bool,
}

impl LineBuffer {
    /// An empty buffer for lines to `sink`.
    pub(super) fn new(sink: Arc<dyn ErrorSink>) -> Self {
        Self { sink, begun: Mutex::default(), uses: AtomicUsize::new(0) }
    }

    /// The use count of the stream. Flushing counts, since closing the stream flushes it.
    pub(super) fn uses(&self) -> usize {
        self.uses.load(Ordering::Relaxed)
    }

    /// Ends the unfinished line of this thread, since the next text in the log has another source.
    pub(super) fn end_line(&self) {
        let thread = thread::current().id();
        let line = self.take(|begun| begun.thread == thread);
        line.into_iter().for_each(|line| self.end(line));
    }

    /// Ends the unfinished line of this thread, if a part of it was written.
    pub(super) fn end_open_line(&self) {
        let thread = thread::current().id();
        let line = self.take(|begun| begun.thread == thread && begun.is_open);
        line.into_iter().for_each(|line| self.end(line));
    }

    /// Ends the lines of all threads.
    pub(super) fn end_all(&self) {
        while let Some(line) = self.take(|_| true) {
            self.end(line);
        }
    }

    fn end(&self, mut line: UnfinishedLine) {
        if line.is_open || !line.bytes.is_empty() {
            line.bytes.push(b'\n');
            self.sink.write(&line.bytes);
        }
    }

    fn begun(&self) -> MutexGuard<'_, Vec<UnfinishedLine>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, which: impl Fn(&UnfinishedLine) -> bool) -> Option<UnfinishedLine> {
        let mut begun = self.begun();
        let position = begun.iter().position(which)?;
        Some(begun.remove(position))
    }

    /// Adds `bytes` to the line of this thread. Returns the bytes that must be written now.
    fn add(&self, bytes: &[u8], all: bool) -> Vec<u8> {
        let thread = thread::current().id();
        let mut begun = self.begun();
        let position = begun.iter().position(|line| line.thread == thread).unwrap_or_else(|| {
            begun.push(UnfinishedLine { thread, bytes: Vec::new(), is_open: false });
            begun.len() - 1
        });
        let line = &mut begun[position];
        line.bytes.extend_from_slice(bytes);
        if line.bytes.len() <= MAX_LINE_BYTES && is_open_traceback(&line.bytes) {
            return Vec::new();
        }
        // `errors.buffer` gets lines without a flush after them.
        if !(all || line.bytes.len() > MAX_LINE_BYTES || bytes.contains(&b'\n')) {
            return Vec::new();
        }
        let piece = std::mem::take(&mut line.bytes);
        line.is_open = piece.last().map_or(line.is_open, |&last| last != b'\n');
        if !line.is_open {
            begun.swap_remove(position);
        }
        piece
    }
}

impl ErrorSink for LineBuffer {
    fn write(&self, bytes: &[u8]) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        // Writes without holding the lock: writing may take long, and the application may fork
        // meanwhile.
        let piece = self.add(bytes, false);
        if !piece.is_empty() {
            self.sink.write(&piece);
        }
        // Threads that have exited may have left lines.
        if self.begun().len() > MAX_UNFINISHED_LINES {
            self.take(|_| true).into_iter().for_each(|line| self.end(line));
        }
    }

    fn flush(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let piece = self.add(b"", true);
        if !piece.is_empty() {
            self.sink.write(&piece);
        }
    }

    fn descriptor(&self) -> Option<i32> {
        self.sink.descriptor()
    }
}

/// A new text stream that writes to `sink`, and its lines.
pub(super) fn errors_stream(
    py: Python<'_>,
    sink: Arc<dyn ErrorSink>,
) -> PyResult<(Bound<'_, PyAny>, Arc<LineBuffer>)> {
    let lines = Arc::new(LineBuffer::new(sink));
    Ok((stream_of(py, lines.clone())?, lines))
}

/// Flushes `stream`, and restores settings that a request has changed.
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

/// A UTF-8 text stream that writes to `lines`. Characters without an encoding are escaped.
pub(super) fn stream_of(py: Python<'_>, lines: Arc<LineBuffer>) -> PyResult<Bound<'_, PyAny>> {
    static BUFFER: PyOnceLock<()> = PyOnceLock::new();
    register::<ErrorBuffer>(py, &BUFFER)?;
    let buffer = Bound::new(py, ErrorBuffer { sink: lines })?;
    let stream = py.import(intern!(py, "_io"))?.getattr(intern!(py, "TextIOWrapper"))?.call1((
        buffer,
        "utf-8",
        "backslashreplace",
        // Keeps newlines unchanged.
        "\n",
        true,
        // Text is written through, since the application may close the stream.
        true,
    ))?;
    stream.setattr(intern!(py, "mode"), intern!(py, "w"))?;
    Ok(stream)
}
