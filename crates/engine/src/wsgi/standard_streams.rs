//! Restores `sys.stdin`, `sys.stdout` and `sys.stderr` after requests.
//!
//! During a request the application may replace a stream (`contextlib.redirect_stdout`), detach its
//! buffer, or leave a line unfinished. When no request is running, wsgate restores the streams that
//! loading left. With several threads this happens after the last of the simultaneous requests,
//! since the request that replaced a stream is unknown.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyDict};

use crate::wsgi::{
    ErrorSink,
    error_stream::{LineBuffer, stream_of},
};

/// Indexes and names of the streams in `sys`.
const STDIN: usize = 0;
const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];

static STREAMS: OnceLock<StandardStreams> = OnceLock::new();

/// The standard streams of this process.
struct StandardStreams {
    /// The attributes of `sys`.
    sys: Py<PyDict>,
    /// The line buffers of the engine's own `stdout` and `stderr`.
    lines: [Arc<LineBuffer>; 2],
    /// The number of running requests.
    serving: AtomicUsize,
    after_loading: Mutex<LoadedStreams>,
}

/// The streams that every request starts with.
struct LoadedStreams {
    streams: [Option<Py<PyAny>>; 3],
    /// The stream is the engine's own, not a replacement that loading made.
    is_ours: [bool; 3],
    /// The settings of `stdout` and `stderr`, as arguments of `reconfigure`. `None` for a stream
    /// that is not a text stream of Python.
    settings: [Option<Py<PyDict>>; 2],
    /// Loading has closed `stdin`.
    is_stdin_closed: bool,
    /// The use counts of the engine's own streams when they last worked.
    uses: [usize; 2],
}

/// Replaces Python's standard streams with streams that write to `sink`.
pub(crate) fn install(py: Python<'_>, sink: &Arc<dyn ErrorSink>) -> PyResult<()> {
    let sys = py.import("sys")?.dict();
    let lines = [(); 2].map(|()| Arc::new(LineBuffer::new(sink.clone())));
    for (name, lines) in NAMES[1..].iter().zip(&lines) {
        sys.set_item(name, stream_of(py, lines.clone())?)?;
    }
    let streams = present(&sys);
    let after_loading = LoadedStreams {
        streams,
        is_ours: [false, true, true],
        settings: [None, None],
        is_stdin_closed: false,
        uses: [0; 2],
    };
    // A process installs its streams once.
    let _ = STREAMS.set(StandardStreams {
        sys: sys.unbind(),
        lines,
        serving: AtomicUsize::new(0),
        after_loading: Mutex::new(after_loading),
    });
    Ok(())
}

/// Ends unfinished lines, and records the streams that loading leaves.
pub(crate) fn note(py: Python<'_>) {
    if let Some(streams) = STREAMS.get() {
        streams.lines.iter().for_each(|lines| lines.end_line());
        let now = present(streams.sys.bind(py));
        let settings = [1, 2].map(|number| settings_of(py, now[number].as_ref()?));
        let is_stdin_closed = is_closed(py, now[STDIN].as_ref());
        let mut known = streams.after_loading();
        known.settings = settings;
        known.is_stdin_closed = is_stdin_closed;
        for (number, stream) in now.into_iter().enumerate() {
            let is_same = is_same(stream.as_ref(), known.streams[number].as_ref());
            known.is_ours[number] &= is_same;
            known.streams[number] = stream;
        }
    }
}

/// Notes that a request begins.
pub(super) fn begin_request() {
    if let Some(streams) = STREAMS.get() {
        streams.serving.fetch_add(1, Ordering::Relaxed);
    }
}

/// Notes that a request has ended, and restores the streams if no other request is running.
pub(super) fn end_request(py: Python<'_>) {
    if let Some(streams) = STREAMS.get() {
        streams.end_lines();
        if streams.serving.fetch_sub(1, Ordering::Relaxed) == 1 {
            streams.restore(py);
        }
    }
}

/// Writes unfinished lines before this process exits.
pub(crate) fn end_lines() {
    STREAMS.get().into_iter().flat_map(|streams| &streams.lines).for_each(|lines| lines.end_all());
}

impl StandardStreams {
    fn after_loading(&self) -> MutexGuard<'_, LoadedStreams> {
        self.after_loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the unfinished lines of this thread, beginning with a line that was partly written.
    fn end_lines(&self) {
        self.lines.iter().for_each(|lines| lines.end_open_line());
        self.lines.iter().for_each(|lines| lines.end_line());
    }

    /// Restores the streams as loading left them.
    fn restore(&self, py: Python<'_>) {
        let sys = self.sys.bind(py);
        let names = [intern!(py, "stdin"), intern!(py, "stdout"), intern!(py, "stderr")];
        let now = names.map(|name| sys.get_item(name).ok().flatten().map(Bound::unbind));
        let is_stdin_closed = is_closed(py, now[STDIN].as_ref());
        // No Python code runs while this lock is held.
        let (streams, doubtful) = {
            let mut known = self.after_loading();
            let mut doubtful = [false; 3];
            for (number, stream) in now.iter().enumerate() {
                let is_there = is_same(stream.as_ref(), known.streams[number].as_ref());
                let is_used = number.checked_sub(1).is_some_and(|number| {
                    let uses = self.lines[number].uses();
                    let is_used = known.uses[number] != uses;
                    if is_used {
                        // Flushing counts as a use.
                        known.uses[number] = uses.wrapping_add(1);
                    }
                    is_used
                });
                let is_theirs = number != STDIN && !known.is_ours[number];
                doubtful[number] = !is_there || is_used || is_theirs;
            }
            doubtful[STDIN] |= is_stdin_closed && !known.is_stdin_closed;
            if doubtful == [false; 3] {
                return;
            }
            (
                known
                    .streams
                    .each_ref()
                    .map(|stream| stream.as_ref().map(|stream| stream.clone_ref(py))),
                doubtful,
            )
        };
        for (number, stream) in streams.iter().enumerate().filter(|(number, _)| doubtful[*number]) {
            let restored = match stream {
                Some(stream) if self.works(py, number, stream) => sys
                    .set_item(names[number], stream)
                    .and_then(|()| self.reset(py, number, stream)),
                Some(_) => self.renew(py, number),
                None => sys.del_item(names[number]),
            };
            if let Err(error) = restored {
                error.print(py);
            }
        }
        // Streams of the application may have held back output until now.
        self.end_lines();
    }

    /// Is `stream` usable? Flushes an output stream.
    fn works(&self, py: Python<'_>, number: usize, stream: &Py<PyAny>) -> bool {
        if stream.is_none(py) {
            return true;
        }
        if number == STDIN {
            return !is_closed(py, Some(stream));
        }
        stream.call_method0(py, intern!(py, "flush")).is_ok()
    }

    /// Restores the settings of `stream` that a request changed by `reconfigure`.
    fn reset(&self, py: Python<'_>, number: usize, stream: &Py<PyAny>) -> PyResult<()> {
        let Some(number) = number.checked_sub(1) else { return Ok(()) };
        let known =
            self.after_loading().settings[number].as_ref().map(|settings| settings.clone_ref(py));
        let (Some(known), Some(now)) = (known, settings_of(py, stream)) else { return Ok(()) };
        if !now.bind(py).eq(&known)? {
            stream.call_method(py, intern!(py, "reconfigure"), (), Some(known.bind(py)))?;
        }
        Ok(())
    }

    /// Replaces a stream that a request has closed or detached.
    fn renew(&self, py: Python<'_>, number: usize) -> PyResult<()> {
        let stream = match number.checked_sub(1) {
            Some(number) => stream_of(py, self.lines[number].clone())?,
            None => py.import("builtins")?.getattr("open")?.call1(("/dev/null",))?,
        };
        self.sys.bind(py).set_item(NAMES[number], &stream)?;
        let stream = stream.unbind();
        self.reset(py, number, &stream)?;
        let mut known = self.after_loading();
        known.streams[number] = Some(stream);
        known.is_ours[number] = number != STDIN;
        Ok(())
    }
}

fn present(sys: &Bound<'_, PyDict>) -> [Option<Py<PyAny>>; 3] {
    NAMES.map(|name| sys.get_item(name).ok().flatten().map(Bound::unbind))
}

/// The settings of `stream`, if it is a text stream of Python.
fn settings_of(py: Python<'_>, stream: &Py<PyAny>) -> Option<Py<PyDict>> {
    let settings = PyDict::new(py);
    let names = [
        intern!(py, "encoding"),
        intern!(py, "errors"),
        intern!(py, "line_buffering"),
        intern!(py, "write_through"),
    ];
    for name in names {
        settings.set_item(name, stream.getattr(py, name).ok()?).ok()?;
    }
    Some(settings.unbind())
}

/// Is `stream` closed or detached?
fn is_closed(py: Python<'_>, stream: Option<&Py<PyAny>>) -> bool {
    let Some(stream) = stream.filter(|stream| !stream.is_none(py)) else { return false };
    match stream.getattr(py, intern!(py, "closed")) {
        Ok(closed) => closed.is_truthy(py).unwrap_or(true),
        // A stream of the application may lack the attribute.
        Err(error) => error.is_instance_of::<PyValueError>(py),
    }
}

fn is_same(one: Option<&Py<PyAny>>, other: Option<&Py<PyAny>>) -> bool {
    one.map(Py::as_ptr) == other.map(Py::as_ptr)
}
