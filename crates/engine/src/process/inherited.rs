//! What a forked process has from its template: exit handlers, which are the template's to run, and
//! streams, to which both may write.

use std::collections::HashSet;

use pyo3::{
    intern,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use super::{
    exit::{end_of_own_handlers, loaded},
    finalisation::{Kind, Search, objects},
};

/// Streams that were there when the template had loaded the application, in the order in which they
/// are written out. Each process writes out what it has written itself.
pub(crate) struct Inherited {
    streams: Vec<(Kind, Py<PyAny>)>,
}

impl Inherited {
    /// Looks for the streams, in the template, before its heap is frozen. What they hold so far is
    /// written, so that no forked process writes the same again.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn collect(py: Python<'_>) -> PyResult<Self> {
        let mut search = Search::new(py)?;
        let mut streams = Vec::new();
        for object in objects(py)? {
            match search.kind(&object)? {
                Some(Kind::Finalizer | Kind::Database) | None => {}
                Some(kind) => streams.push((kind, object)),
            }
        }
        streams.sort_by_key(|(kind, _)| *kind);
        // What a compressor has begun belongs to whoever writes on, and is left where it is.
        let compressors = streams.iter().filter(|(kind, _)| *kind == Kind::Compressor);
        let compressed = attributes(py, compressors.map(|(_, stream)| stream));
        let plain =
            streams.iter().filter(|(kind, stream)| *kind != Kind::Compressor && !compressed.contains(&stream.as_ptr()));
        plain.for_each(|(_, stream)| flush(stream));
        Ok(Self { streams: streams.into_iter().map(|(kind, stream)| (kind, stream.unbind())).collect() })
    }

    /// Separates the exit handlers of this process, which was just forked, from those of its
    /// template.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn separate_exit_handlers(py: Python<'_>) -> PyResult<()> {
        let register = py.import("atexit")?.getattr("register")?;
        // Handlers run in the reverse order of their registration. Taking away those that are there
        // would destroy what they alone refer to, and with that a temporary directory, say.
        let mark = PyCFunction::new_closure(
            py,
            Some(c"end_of_own_handlers"),
            None,
            |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| end_of_own_handlers(arguments.py()),
        )?;
        register.call1((mark,))?;
        // What the library of Python registers for all users of a module, when that is loaded, is
        // for those of this process, too.
        if let Some(logging) = loaded(py, "logging")? {
            register.call1((logging.getattr("shutdown")?,))?;
        }
        if let Some(weakref) = loaded(py, "weakref")? {
            let finalize = weakref.getattr("finalize")?;
            for info in finalize.getattr("_registry")?.call_method0("values")?.try_iter()? {
                info?.setattr("atexit", false)?;
            }
            if finalize.getattr("_registered_with_atexit")?.is_truthy()? {
                register.call1((finalize.getattr("_exitfunc")?,))?;
            }
        }
        if let Some(util) = loaded(py, "multiprocessing.util")? {
            // Those of another process do nothing: they know whose they are.
            register.call1((util.getattr("_exit_function")?,))?;
        }
        if let Some(threading) = loaded(py, "threading")? {
            keep_handlers_of_executors(&threading)?;
        }
        Ok(())
    }

    /// Writes what this process has written to the streams of its template.
    pub(super) fn write_out(&self, py: Python<'_>) {
        for (kind, stream) in &self.streams {
            let stream = stream.bind(py);
            if *kind != Kind::Compressor {
                flush(stream);
            } else if let Err(error) = stream.call_method0(intern!(py, "close")) {
                error.write_unraisable(py, Some(stream));
            }
        }
    }
}

/// Of what runs when the main thread ends, keeps what ends the threads of `concurrent.futures`.
fn keep_handlers_of_executors(threading: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(handlers) = threading.getattr("_threading_atexits") else {
        return Ok(());
    };
    for handler in handlers.call_method0("copy")?.try_iter()? {
        let handler = handler?;
        if !is_of_executors(&handler) {
            handlers.call_method1("remove", (handler,))?;
        }
    }
    Ok(())
}

/// Does `handler` call a function of `concurrent.futures`? Until Python 3.12 a handler is a
/// `functools.partial`, later it is a closure.
fn is_of_executors(handler: &Bound<'_, PyAny>) -> bool {
    let of_partial = handler.getattr("func").ok();
    let cells = handler.getattr("__closure__").and_then(|cells| cells.extract::<Vec<Bound<'_, PyAny>>>());
    let of_closure = cells.unwrap_or_default().into_iter().filter_map(|cell| cell.getattr("cell_contents").ok());
    of_partial.into_iter().chain(of_closure).any(|function| {
        let module = function.getattr("__module__").and_then(|module| module.extract::<String>());
        module.is_ok_and(|module| module.starts_with("concurrent.futures."))
    })
}

/// All objects that are attributes of `owners`.
fn attributes<'a, 'py: 'a>(
    py: Python<'py>,
    owners: impl Iterator<Item = &'a Bound<'py, PyAny>>,
) -> HashSet<*mut pyo3::ffi::PyObject> {
    let dictionaries = owners.filter_map(|owner| owner.getattr(intern!(py, "__dict__")).ok());
    let dictionaries = dictionaries.filter_map(|attributes| attributes.cast_into::<PyDict>().ok());
    dictionaries.flat_map(|attributes| attributes.values()).map(|value| value.as_ptr()).collect()
}

/// Writes what `stream` holds, unless it is closed or cannot be written to.
fn flush(stream: &Bound<'_, PyAny>) {
    let py = stream.py();
    let is_closed = stream.getattr(intern!(py, "closed")).and_then(|closed| closed.is_truthy());
    if is_closed.unwrap_or(true) {
        return;
    }
    if let Err(error) = stream.call_method0(intern!(py, "flush")) {
        error.write_unraisable(py, Some(stream));
    }
}
