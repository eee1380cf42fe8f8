//! `wsgi.input`: one buffered reader over the body of the request (PEP 3333 *Input and Error Streams*).
//!
//! Every method is a few lines over [`State::fill`]. The source ends the stream where the request ends, so that no call can
//! block beyond it; a body that ends early raises, since an application must not take a part for the whole.

use std::{
    io,
    ops::RangeInclusive,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pyo3::{
    exceptions::{PyConnectionResetError, PyRuntimeError, PyStopIteration},
    prelude::*,
    sync::MutexExt,
    types::{PyBytes, PyList},
};

use super::BodySource;

/// Bytes that are asked of the source at a time.
const PIECE: usize = 64 * 1024;

/// Sizes for which the result itself is read into. A smaller one would cost a system call each; a greater one is a limit rather
/// than an expectation.
const DIRECT: RangeInclusive<usize> = 4 * 1024..=256 * 1024;

/// The stream that applications read.
#[pyclass(frozen, module = "wsgate")]
pub(super) struct Input {
    state: Mutex<State>,
}

struct State {
    /// Gone when the request is over: its descriptors may serve another by then.
    source: Option<Box<dyn BodySource>>,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    /// Reading failed: the body has not come whole.
    cut: bool,
}

/// What a reading step has come to.
enum Step {
    /// So many bytes have come; none if the body is over.
    Got(usize),
    /// A signal came; Python wants to see it before the next step.
    Signal,
    /// The request is over.
    Closed,
    Failed(io::Error),
}

impl State {
    fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Reads what comes next into `into`, past the buffer, which has to be empty.
    fn read(&mut self, into: &mut [u8]) -> Step {
        if self.ended {
            return Step::Got(0);
        }
        let Some(source) = &mut self.source else {
            return Step::Closed;
        };
        match source.read(into) {
            Ok(count) => {
                self.ended = count == 0;
                Step::Got(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Step::Signal,
            Err(error) => {
                self.cut = true;
                Step::Failed(error)
            }
        }
    }

    /// Reads what comes next into the buffer, which has to be empty.
    fn fill(&mut self) -> Step {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(PIECE, 0);
        let step = self.read(&mut buffer);
        buffer.truncate(if let Step::Got(count) = step { count } else { 0 });
        (self.buffer, self.start) = (buffer, 0);
        step
    }

    /// Moves bytes from the buffer to `taken`, at most `most` of them and none behind `until`. Tells whether `until` was met.
    fn take(&mut self, most: usize, until: Option<u8>, taken: &mut Vec<u8>) -> bool {
        let available = &self.buffered()[..self.buffered().len().min(most)];
        let end = until.and_then(|byte| available.iter().position(|&other| other == byte));
        let count = end.map_or(available.len(), |position| position + 1);
        taken.extend_from_slice(&available[..count]);
        self.start += count;
        end.is_some()
    }
}

impl Input {
    /// A stream over `source`.
    pub(super) fn new(source: Box<dyn BodySource>) -> Self {
        Self {
            state: Mutex::new(State { source: Some(source), buffer: Vec::new(), start: 0, ended: false, cut: false }),
        }
    }

    /// Ends the stream: what is kept of it beyond the request reads nothing more. Tells whether a read has failed.
    pub(super) fn close(&self, py: Python<'_>) -> bool {
        let mut state = self.state(py);
        state.source = None;
        state.cut
    }

    fn state(&self, py: Python<'_>) -> MutexGuard<'_, State> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads at most `most` bytes (all without it), and none behind the byte `until`.
    fn collect(&self, py: Python<'_>, most: Option<usize>, until: Option<u8>) -> PyResult<Vec<u8>> {
        let most = most.unwrap_or(usize::MAX);
        let mut taken = Vec::new();
        while taken.len() < most {
            let mut state = self.state(py);
            if !state.buffered().is_empty() {
                if state.take(most - taken.len(), until, &mut taken) {
                    break;
                }
            } else if self.step(py, state, State::fill)? == Some(0) {
                break;
            }
        }
        Ok(taken)
    }

    /// Fills `into` as far as the body reaches, and tells how far that is.
    fn collect_into(&self, py: Python<'_>, into: &mut [u8]) -> PyResult<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let mut state = self.state(py);
            let rest = &mut into[filled..];
            let count = state.buffered().len().min(rest.len());
            if count > 0 {
                rest[..count].copy_from_slice(&state.buffered()[..count]);
                state.start += count;
                filled += count;
                continue;
            }
            match self.step(py, state, |state| state.read(rest))? {
                Some(0) => break,
                count => filled += count.unwrap_or(0),
            }
        }
        Ok(filled)
    }

    /// Takes a step without the interpreter, and tells how many bytes that brought; nothing if a signal came first, which Python has
    /// seen then.
    fn step(
        &self,
        py: Python<'_>,
        mut state: MutexGuard<'_, State>,
        step: impl FnOnce(&mut State) -> Step + Send,
    ) -> PyResult<Option<usize>> {
        let reading: &mut State = &mut state;
        match py.detach(|| step(reading)) {
            Step::Got(count) => Ok(Some(count)),
            Step::Signal => {
                drop(state);
                py.check_signals()?;
                Ok(None)
            }
            Step::Closed => Err(PyRuntimeError::new_err("wsgi.input was read after its request was over")),
            Step::Failed(error) => Err(PyConnectionResetError::new_err(error.to_string())),
        }
    }
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let Some(size) = limit(size).filter(|size| DIRECT.contains(size)) else {
            return Ok(PyBytes::new(py, &self.collect(py, limit(size), None)?));
        };
        let mut filled = 0;
        let bytes = PyBytes::new_with(py, size, |into| {
            filled = self.collect_into(py, into)?;
            Ok(())
        })?;
        Ok(if filled == size { bytes } else { PyBytes::new(py, &bytes.as_bytes()[..filled]) })
    }

    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.collect(py, limit(size), Some(b'\n'))?))
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
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.readline(py, None)?;
        if line.as_bytes().is_empty() { Err(PyStopIteration::new_err(())) } else { Ok(line) }
    }
}

/// Sizes below zero mean "all", as for files.
fn limit(size: Option<isize>) -> Option<usize> {
    size.and_then(|size| usize::try_from(size).ok())
}
