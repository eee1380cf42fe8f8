//! `wsgi.input`: a buffered reader over the request body (PEP 3333 *Input and Error Streams*).
//!
//! To Python the stream is an `io.BufferedIOBase`. Reading stops at the end of the request, so no
//! call blocks beyond it. A body that ends early raises: an incomplete body must not look whole.

mod body;

use std::{
    io,
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pyo3::{
    exceptions::{
        PyConnectionResetError, PyMemoryError, PyRuntimeError, PyStopIteration, PyTypeError,
        PyValueError,
    },
    intern,
    prelude::*,
    sync::MutexExt,
    types::{PyBytes, PyList, PySlice, PyTuple},
};

use crate::wsgi::{
    BodySource, ClientWait, Interruptible,
    input::body::{BufferedBody, ReadStep, SeekOutcome},
    stream::{closed_file, unsupported},
};

/// Sizes of reads that fill the result directly. Smaller reads would cost a system call each;
/// larger sizes are mostly limits, not expectations.
const DIRECT_READ_SIZES: RangeInclusive<usize> = 4 * 1024..=256 * 1024;

/// Larger results need a fallible allocation: [`PyBytes::new`] panics if memory is short.
const MAX_INFALLIBLE_SIZE: usize = 256 * 1024;

/// The stream that applications read.
#[pyclass(frozen, weakref, module = "wsgate")]
pub(super) struct Input {
    body: Mutex<BufferedBody>,
    interruptible: Interruptible,
}

impl Input {
    /// A stream over `source`, for the request of `interruptible`.
    pub(super) fn new(source: Box<dyn BodySource>, interruptible: Interruptible) -> Self {
        Self { body: Mutex::new(BufferedBody::new(source)), interruptible }
    }

    /// Ends the stream: the application cannot read after the request.
    pub(super) fn end(&self, py: Python<'_>) {
        self.body(py).end();
    }

    /// Has a read failed?
    pub(super) fn was_cut(&self, py: Python<'_>) -> bool {
        self.body(py).was_cut()
    }

    fn body(&self, py: Python<'_>) -> MutexGuard<'_, BufferedBody> {
        self.body.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, unless the application has closed the stream.
    fn open(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, BufferedBody>> {
        let body = self.body(py);
        if body.is_closed() { Err(closed_file()) } else { Ok(body) }
    }

    /// Reads at most `most` bytes (all without it), up to the first byte `until`.
    fn collect(&self, py: Python<'_>, most: Option<usize>, until: Option<u8>) -> PyResult<Vec<u8>> {
        let most = most.unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while taken.len() < most {
            let mut body = self.open(py)?;
            if !body.unread().is_empty() {
                if until.is_none() {
                    taken
                        .try_reserve(body.expected().min(most - taken.len()))
                        .map_err(|_| no_memory())?;
                }
                if body.take(most - taken.len(), until, &mut taken).map_err(|_| no_memory())? {
                    break;
                }
            } else if self.step(py, body, BufferedBody::fill)? == Some(0) {
                break;
            }
        }
        Ok(taken)
    }

    /// Reads at most `most` available bytes, and waits only if none is available.
    fn collect_some(&self, py: Python<'_>, most: usize) -> PyResult<Vec<u8>> {
        let mut taken = Vec::new();
        (most > 0).then(|| self.await_some(py)).transpose()?;
        self.open(py)?.take(most, None, &mut taken).map_err(|_| no_memory())?;
        Ok(taken)
    }

    /// Waits until bytes are available, or the body has ended.
    fn await_some(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let body = self.open(py)?;
            if !body.unread().is_empty() || self.step(py, body, BufferedBody::fill)? == Some(0) {
                return Ok(());
            }
        }
    }

    /// Fills `into` as far as the body reaches. Returns the number of bytes.
    fn collect_into(&self, py: Python<'_>, into: &mut [u8]) -> PyResult<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let mut body = self.open(py)?;
            let rest = &mut into[filled..];
            let count = body.unread().len().min(rest.len());
            if count > 0 {
                rest[..count].copy_from_slice(&body.unread()[..count]);
                body.advance(count);
                filled += count;
                continue;
            }
            match self.step(py, body, |body| body.read(rest))? {
                Some(0) => break,
                count => filled += count.unwrap_or(0),
            }
        }
        Ok(filled)
    }

    /// Runs `step` detached from the interpreter. Returns the number of bytes; `None` if a signal
    /// arrived first, whose handlers have run.
    fn step(
        &self,
        py: Python<'_>,
        mut body: MutexGuard<'_, BufferedBody>,
        step: impl FnOnce(&mut BufferedBody) -> ReadStep + Send,
    ) -> PyResult<Option<usize>> {
        let reading: &mut BufferedBody = &mut body;
        match py.detach(|| step(reading)) {
            ReadStep::Got(count) => {
                drop(body);
                // Signals between system calls interrupt none, and slow clients may send for long.
                self.interruptible.run_signal_handlers(py, ClientWait::RequestBody)?;
                Ok(Some(count))
            }
            ReadStep::Signal => {
                drop(body);
                self.interruptible.run_signal_handlers(py, ClientWait::RequestBody)?;
                Ok(None)
            }
            ReadStep::Late => Err(self.interruptible.expire(py, ClientWait::RequestBody)),
            ReadStep::Closed => {
                Err(PyRuntimeError::new_err("wsgi.input was read after its request was over"))
            }
            ReadStep::Failed(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Err(no_memory())
            }
            ReadStep::Failed(error) => Err(PyConnectionResetError::new_err(error.to_string())),
        }
    }

    /// The length of the body. Reads to the end if the length is not known before.
    fn find_end(&self, py: Python<'_>) -> PyResult<u64> {
        loop {
            let body = self.open(py)?;
            match (body.place(), body.length()) {
                (Some(_), Some(length)) => return Ok(length),
                (Some(_), None) if body.may_keep_more() => {
                    let _ = self.step(py, body, BufferedBody::fill)?;
                }
                _ => return Err(unsupported(py, "seek")),
            }
        }
    }

    /// Copies `data` to the writable buffer of `target`.
    fn read_into(
        py: Python<'_>,
        target: &Bound<'_, PyAny>,
        read: impl FnOnce(usize) -> PyResult<Vec<u8>>,
    ) -> PyResult<usize> {
        // The stable ABI of 3.9 has no buffers, so Python itself copies.
        let view = py
            .import(intern!(py, "builtins"))?
            .getattr(intern!(py, "memoryview"))?
            .call1((target,))?;
        if view.getattr(intern!(py, "readonly"))?.is_truthy()? {
            return Err(PyTypeError::new_err(
                "readinto() argument must be read-write bytes-like object",
            ));
        }
        let room: usize = view.getattr(intern!(py, "nbytes"))?.extract()?;
        if room == 0 {
            return Ok(0);
        }
        let view = view.call_method1(intern!(py, "cast"), (intern!(py, "B"),))?;
        let data = read(room)?;
        let end = isize::try_from(data.len())?;
        view.set_item(PySlice::new(py, 0, end, 1), bytes_of(py, &data)?)?;
        Ok(data.len())
    }
}

fn no_memory() -> PyErr {
    PyMemoryError::new_err("no memory for the request body")
}

/// Converts `data` to a Python object.
fn bytes_of<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if data.len() <= MAX_INFALLIBLE_SIZE {
        return Ok(PyBytes::new(py, data));
    }
    PyBytes::new_with(py, data.len(), |into| {
        into.copy_from_slice(data);
        Ok(())
    })
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let keeps = self.open(py)?.keeps();
        let Some(size) = limit(size).filter(|size| !keeps && DIRECT_READ_SIZES.contains(size))
        else {
            return bytes_of(py, &self.collect(py, limit(size), None)?);
        };
        let mut filled = 0;
        let bytes = PyBytes::new_with(py, size, |into| {
            filled = self.collect_into(py, into)?;
            Ok(())
        })?;
        Ok(if filled == size { bytes } else { PyBytes::new(py, &bytes.as_bytes()[..filled]) })
    }

    #[pyo3(signature = (size = None, /))]
    fn read1<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        bytes_of(py, &self.collect_some(py, limit(size).unwrap_or(usize::MAX))?)
    }

    #[pyo3(signature = (target, /))]
    fn readinto(&self, py: Python<'_>, target: &Bound<'_, PyAny>) -> PyResult<usize> {
        drop(self.open(py)?);
        Self::read_into(py, target, |room| self.collect(py, Some(room), None))
    }

    #[pyo3(signature = (target, /))]
    fn readinto1(&self, py: Python<'_>, target: &Bound<'_, PyAny>) -> PyResult<usize> {
        drop(self.open(py)?);
        Self::read_into(py, target, |room| self.collect_some(py, room))
    }

    /// The next bytes, without reading them.
    #[pyo3(signature = (_size = None, /))]
    fn peek<'py>(&self, py: Python<'py>, _size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.await_some(py)?;
        Ok(PyBytes::new(py, self.open(py)?.unread()))
    }

    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        drop(self.open(py)?);
        bytes_of(py, &self.collect(py, limit(size), Some(b'\n'))?)
    }

    /// Stops after the line that makes the lines together as long as `hint`, as files do.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let most = limit(hint).filter(|&hint| hint > 0).unwrap_or(usize::MAX);
        let lines = PyList::empty(py);
        let mut length = 0;
        while length < most {
            let line = self.collect(py, None, Some(b'\n'))?;
            if line.is_empty() {
                break;
            }
            length += line.len();
            lines.append(bytes_of(py, &line)?)?;
        }
        Ok(lines)
    }

    #[pyo3(signature = (offset, whence = 0, /))]
    fn seek(&self, py: Python<'_>, offset: i64, whence: i32) -> PyResult<u64> {
        let start = match whence {
            0 if offset < 0 => {
                return Err(PyValueError::new_err(format!("negative seek value {offset}")));
            }
            0 => 0,
            1 => self.tell(py)?,
            2 => self.find_end(py)?,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "invalid whence ({whence}, should be 0, 1 or 2)"
                )));
            }
        };
        let target = start.saturating_add_signed(offset);
        loop {
            let mut body = self.open(py)?;
            match body.seek(target) {
                SeekOutcome::Done => return Ok(target),
                SeekOutcome::Later => {
                    let _ = self.step(py, body, BufferedBody::fill)?;
                }
                SeekOutcome::Impossible => return Err(unsupported(py, "seek")),
            }
        }
    }

    fn tell(&self, py: Python<'_>) -> PyResult<u64> {
        self.open(py)?.place().ok_or_else(|| unsupported(py, "tell"))
    }

    fn seekable(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.open(py)?.is_seekable())
    }

    fn readable(&self, py: Python<'_>) -> PyResult<bool> {
        self.open(py).map(|_| true)
    }

    fn writable(&self, py: Python<'_>) -> PyResult<bool> {
        self.open(py).map(|_| false)
    }

    fn isatty(&self, py: Python<'_>) -> PyResult<bool> {
        self.open(py).map(|_| false)
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.open(py).map(drop)
    }

    /// The server still handles the unread rest of the body.
    fn close(&self, py: Python<'_>) {
        self.body(py).close();
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        let body = self.body(py);
        body.is_closed() || body.is_over()
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn fileno(&self, py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "fileno"))
    }

    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "detach"))
    }

    #[pyo3(signature = (_size = None, /))]
    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn truncate(&self, py: Python<'_>, _size: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        Err(unsupported(py, "truncate"))
    }

    #[pyo3(signature = (_data, /))]
    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn write(&self, py: Python<'_>, _data: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(unsupported(py, "write"))
    }

    #[pyo3(signature = (_lines, /))]
    #[expect(clippy::unused_self, reason = "a method of Python's stream protocol")]
    fn writelines(&self, py: Python<'_>, _lines: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(unsupported(py, "write"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        drop(slf.get().open(slf.py())?);
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __iter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        drop(slf.get().open(slf.py())?);
        Ok(slf)
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.readline(py, None)?;
        if line.as_bytes().is_empty() { Err(PyStopIteration::new_err(())) } else { Ok(line) }
    }
}

/// Negative sizes mean "all", as for files.
fn limit(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}
