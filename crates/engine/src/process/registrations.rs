//! Fork hooks and exit handlers that an application registers while it is loaded.
//!
//! An installed package that prepares itself for a forked process by a hook, such as OpenTelemetry
//! or Sentry, also expects its exit handlers to run there: they send what the process has
//! collected. Python does not list what is registered, so both functions are replaced while the
//! application is loaded.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

use crate::process::python_modules::loaded;

/// An exit handler with its arguments.
struct ExitHandler {
    package: Option<String>,
    arguments: Py<PyTuple>,
    keywords: Option<Py<PyDict>>,
}

/// What was registered.
#[derive(Default)]
pub(crate) struct Registrations {
    /// Packages that have registered a hook for forked processes.
    packages: BTreeSet<String>,
    handlers: Vec<ExitHandler>,
}

impl Registrations {
    /// Runs `load`, and records what is registered meanwhile.
    ///
    /// # Errors
    /// If Python raises an error for which `load` is not responsible.
    pub(crate) fn during<T>(py: Python<'_>, load: impl FnOnce() -> T) -> PyResult<(T, Self)> {
        let found = Arc::new(Mutex::new(Self::default()));
        let hooks = Replaced::new(py, "os", "register_at_fork", &found, |found, _, keywords| {
            let hook = keywords.and_then(|it| it.get_item("after_in_child").ok().flatten());
            found.packages.extend(hook.and_then(|hook| package(&hook)));
        })?;
        let handlers =
            Replaced::new(py, "atexit", "register", &found, |found, given, keywords| {
                let function = given.get_item(0).ok();
                found.handlers.push(ExitHandler {
                    package: function.and_then(|function| package(&function)),
                    arguments: given.clone().unbind(),
                    keywords: keywords.map(|keywords| keywords.clone().unbind()),
                });
            })?;
        let loaded = load();
        hooks.restore(py)?;
        handlers.restore(py)?;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((loaded, found))
    }

    /// Registers the exit handlers of packages with a fork hook for this forked process.
    ///
    /// # Errors
    /// If Python raises.
    pub(super) fn register_again(&self, py: Python<'_>) -> PyResult<()> {
        let register = py.import("atexit")?.getattr("register")?;
        for handler in &self.handlers {
            if handler.package.as_ref().is_some_and(|package| self.packages.contains(package)) {
                let keywords = handler.keywords.as_ref().map(|keywords| keywords.bind(py));
                register.call(handler.arguments.bind(py), keywords)?;
            }
        }
        Ok(())
    }
}

/// A function of a module that was replaced by one that records its calls.
struct Replaced {
    module: &'static str,
    name: &'static str,
    original: Py<PyAny>,
}

impl Replaced {
    fn new(
        py: Python<'_>,
        module: &'static str,
        name: &'static str,
        found: &Arc<Mutex<Registrations>>,
        record: fn(&mut Registrations, &Bound<'_, PyTuple>, Option<&Bound<'_, PyDict>>),
    ) -> PyResult<Self> {
        let original = py.import(module)?.getattr(name)?.unbind();
        let (called, found) = (original.clone_ref(py), found.clone());
        let replacement = PyCFunction::new_closure(
            py,
            None,
            None,
            move |arguments: &Bound<'_, PyTuple>, keywords: Option<&Bound<'_, PyDict>>| {
                let result = called.call(arguments.py(), arguments, keywords)?;
                record(
                    &mut found.lock().unwrap_or_else(PoisonError::into_inner),
                    arguments,
                    keywords,
                );
                Ok::<_, PyErr>(result)
            },
        )?;
        py.import(module)?.setattr(name, replacement)?;
        Ok(Self { module, name, original })
    }

    fn restore(self, py: Python<'_>) -> PyResult<()> {
        py.import(self.module)?.setattr(self.name, self.original)
    }
}

/// The installed package of a function; `None` for code of the application or of Python.
fn package(function: &Bound<'_, PyAny>) -> Option<String> {
    let function = function.getattr("func").unwrap_or_else(|_| function.clone());
    let name: String = function.getattr("__module__").ok()?.extract().ok()?;
    let module = loaded(function.py(), &name).ok()??;
    let file: String = module.getattr("__file__").ok()?.extract().ok()?;
    let is_installed = file.contains("/site-packages/") || file.contains("/dist-packages/");
    name.split('.').next().filter(|_| is_installed).map(str::to_owned)
}
