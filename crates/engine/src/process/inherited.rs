//! Objects that a worker inherits from its template: exit handlers, which only the template runs,
//! and streams, which both may write to.

use std::collections::HashSet;

use pyo3::{
    intern,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use crate::process::{
    finalisation::{ObjectKind, ObjectSearch, objects},
    python_modules::loaded,
    registrations::Registrations,
};

/// The objects that existed when the template had loaded the application.
pub(crate) struct InheritedObjects {
    /// Streams in flushing order. Each process flushes its own writes.
    streams: Vec<(ObjectKind, Py<PyAny>)>,
    /// `weakref.finalize` objects.
    finalizers: Vec<Py<PyAny>>,
    /// Functions that `threading` calls when the main thread ends.
    of_threading: Vec<Py<PyAny>>,
    /// Exit handlers that workers need, too.
    of_packages: Registrations,
}

impl InheritedObjects {
    /// Collects the objects in the template, before its heap is frozen. Flushes the streams, so
    /// that no worker writes the same bytes again. Exit handlers that are registered from now on
    /// belong to the workers. `end_of_own_handlers` runs between these handlers and those of the
    /// template.
    ///
    /// # Errors
    /// If Python raises.
    pub(super) fn collect(
        py: Python<'_>,
        of_packages: Registrations,
        end_of_own_handlers: fn(Python<'_>),
    ) -> PyResult<Self> {
        // Handlers run in the reverse order of their registration. Unregistering the template's
        // handlers would destroy objects that only they refer to, such as a temporary directory.
        let mark = PyCFunction::new_closure(
            py,
            Some(c"end_of_own_handlers"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                end_of_own_handlers(arguments.py())
            },
        )?;
        py.import("atexit")?.call_method1("register", (mark,))?;
        let finalizers = match loaded(py, "weakref")? {
            None => Vec::new(),
            Some(weakref) => elements(&weakref.getattr("finalize")?.getattr("_registry")?)?,
        };
        let of_threading = match loaded(py, "threading")?
            .and_then(|module| module.getattr("_threading_atexits").ok())
        {
            None => Vec::new(),
            Some(handlers) => elements(&handlers)?,
        };
        Ok(Self { streams: streams(py)?, finalizers, of_threading, of_packages })
    }

    /// Leaves the template's exit handlers to the template, except for those of packages with a
    /// fork hook. Must be called in a new worker.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn leave_to_template(&self, py: Python<'_>) -> PyResult<()> {
        for finalizer in &self.finalizers {
            finalizer.bind(py).setattr("atexit", false)?;
        }
        for handler in &self.of_threading {
            let handler = handler.bind(py);
            if !is_of_executors(handler) {
                py.import("threading")?
                    .getattr("_threading_atexits")?
                    .call_method1("remove", (handler,))?;
            }
        }
        self.of_packages.register_again(py)
    }

    /// Runs the exit handlers that modules of the standard library register when they are loaded. A
    /// worker also needs these handlers.
    pub(super) fn run_library_handlers(py: Python<'_>) {
        // Each handler affects only objects of this process.
        for (module, path) in [
            ("multiprocessing.util", "_exit_function"),
            ("weakref", "finalize._exitfunc"),
            ("logging", "shutdown"),
        ] {
            let run = || -> PyResult<()> {
                let Some(module) = loaded(py, module)? else {
                    return Ok(());
                };
                path.split('.')
                    .try_fold(module, |object, name| object.getattr(name))?
                    .call0()
                    .map(drop)
            };
            if let Err(error) = run() {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Flushes what this process has written to the streams of its template.
    pub(super) fn write_out(&self, py: Python<'_>) {
        for (kind, stream) in &self.streams {
            let stream = stream.bind(py);
            if *kind != ObjectKind::Compressor {
                flush(stream);
            } else if let Err(error) = stream.call_method0(intern!(py, "close")) {
                error.write_unraisable(py, Some(stream));
            }
        }
    }
}

/// Flushes and returns the open streams.
fn streams(py: Python<'_>) -> PyResult<Vec<(ObjectKind, Py<PyAny>)>> {
    let mut search = ObjectSearch::new(py)?;
    let mut streams = Vec::new();
    for object in objects(py)? {
        match search.kind(&object)? {
            Some(ObjectKind::Finalizer | ObjectKind::Database) | None => {}
            Some(kind) => streams.push((kind, object)),
        }
    }
    streams.sort_by_key(|(kind, _)| *kind);
    // A compressor's buffered data stays with the process that continues to write.
    let compressors = streams.iter().filter(|(kind, _)| *kind == ObjectKind::Compressor);
    let compressed = attributes(py, compressors.map(|(_, stream)| stream));
    let plain = streams.iter().filter(|(kind, stream)| {
        *kind != ObjectKind::Compressor && !compressed.contains(&stream.as_ptr())
    });
    plain.for_each(|(_, stream)| flush(stream));
    Ok(streams.into_iter().map(|(kind, stream)| (kind, stream.unbind())).collect())
}

/// The elements of `iterable`.
fn elements(iterable: &Bound<'_, PyAny>) -> PyResult<Vec<Py<PyAny>>> {
    let mut elements = Vec::new();
    // `collect` would import `operator` to learn the count.
    for element in iterable.try_iter()? {
        elements.push(element?.unbind());
    }
    Ok(elements)
}

/// Does `handler` call a function of `concurrent.futures`? The handler is a `functools.partial`
/// until Python 3.12, later a closure.
fn is_of_executors(handler: &Bound<'_, PyAny>) -> bool {
    let of_partial = handler.getattr("func").ok();
    let cells =
        handler.getattr("__closure__").and_then(|cells| cells.extract::<Vec<Bound<'_, PyAny>>>());
    let of_closure =
        cells.unwrap_or_default().into_iter().filter_map(|cell| cell.getattr("cell_contents").ok());
    of_partial.into_iter().chain(of_closure).any(|function| {
        let module = function.getattr("__module__").and_then(|module| module.extract::<String>());
        module.is_ok_and(|module| module.starts_with("concurrent.futures."))
    })
}

/// The attributes of all `owners`.
fn attributes<'a, 'py: 'a>(
    py: Python<'py>,
    owners: impl Iterator<Item = &'a Bound<'py, PyAny>>,
) -> HashSet<*mut pyo3::ffi::PyObject> {
    let dictionaries = owners.filter_map(|owner| owner.getattr(intern!(py, "__dict__")).ok());
    let dictionaries = dictionaries.filter_map(|attributes| attributes.cast_into::<PyDict>().ok());
    dictionaries.flat_map(|attributes| attributes.values()).map(|value| value.as_ptr()).collect()
}

/// Flushes `stream`, unless it is closed.
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
