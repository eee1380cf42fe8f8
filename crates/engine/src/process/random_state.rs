//! Random number generators after a fork: some are reseeded, others repeat their numbers in each
//! process.
//!
//! Python itself reseeds the functions of `random` in each child. The kernel's generators
//! (`os.urandom`, `secrets`, `random.SystemRandom`, `uuid.uuid4`) and OpenSSL's have no state that
//! a child could repeat.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyString, PyType},
};
use wire::app::{App, Source};

use crate::process::python_modules::{
    ModuleFile, {self},
};

/// How many generators are listed.
const MAX_GENERATORS: usize = 20;

/// Reseeds the functions of `numpy.random` from the kernel's random numbers, if that module is
/// loaded. Must be called in a process that was just forked.
pub(crate) fn seed_again(py: Python<'_>) {
    if let Ok(Some(numpy)) = python_modules::loaded(py, "numpy.random.mtrand") {
        // The application may have installed another kind of generator, which cannot be reseeded
        // this way.
        let _ = numpy.call_method0("seed");
    }
}

/// Lists generators in globals of modules, and in attributes of these globals. Each repeats its
/// numbers in every forked process. The script of `app` is named by its file, since the engine
/// chooses its module name.
pub(crate) fn generators(py: Python<'_>, app: &App) -> PyResult<Vec<String>> {
    let search = GeneratorSearch::new(py)?;
    let mut found = Vec::new();
    for module in python_modules::with_files(py)? {
        let ModuleFile { name: Some(name), namespace, file } = module else { continue };
        let is_script =
            matches!(&app.source, Source::File(script) if *script == file.as_os_str().as_bytes());
        let name =
            file.file_name().filter(|_| is_script).map_or(name.into(), OsStr::to_string_lossy);
        if search.is_foreign(&file) {
            search.look(&name, &namespace, &mut found)?;
        }
    }
    found.sort();
    found.truncate(MAX_GENERATORS);
    Ok(found)
}

/// The own attributes of an object or class. Modules are excluded, since each is searched
/// separately.
fn attributes<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    if value.is_instance_of::<PyModule>() {
        return None;
    }
    let attributes = value.getattr("__dict__").ok()?;
    match attributes.cast_into::<PyDict>() {
        Ok(attributes) => Some(attributes),
        Err(other) => other.into_inner().call_method0("copy").ok()?.cast_into().ok(),
    }
}

/// The types to search for, and the modules to skip.
struct GeneratorSearch<'py> {
    /// Types of generators.
    types: Vec<Bound<'py, PyType>>,
    /// A subclass of these types without a state.
    system_random: Option<Bound<'py, PyType>>,
    /// Python's and numpy's own generators, which are reseeded.
    fresh: Vec<Bound<'py, PyAny>>,
    /// The directory of the standard library.
    stdlib: PathBuf,
}

impl<'py> GeneratorSearch<'py> {
    fn new(py: Python<'py>) -> PyResult<Self> {
        let object =
            |module: &str, name: &str| python_modules::loaded(py, module).ok()??.getattr(name).ok();
        let class = |module: &str, name: &str| object(module, name)?.cast_into::<PyType>().ok();
        let types = [
            ("_random", "Random"),
            ("numpy.random.mtrand", "RandomState"),
            ("numpy.random._generator", "Generator"),
            ("numpy.random.bit_generator", "BitGenerator"),
        ];
        let os: PathBuf = py.import("os")?.getattr("__file__")?.extract()?;
        Ok(Self {
            types: types.iter().filter_map(|(module, name)| class(module, name)).collect(),
            system_random: class("random", "SystemRandom"),
            fresh: [("random", "_inst"), ("numpy.random.mtrand", "_rand")]
                .iter()
                .filter_map(|(module, name)| object(module, name))
                .collect(),
            stdlib: os.parent().unwrap_or(Path::new("/")).to_owned(),
        })
    }

    /// Is this module outside the standard library and numpy?
    fn is_foreign(&self, file: &Path) -> bool {
        let mut parts = file.components().map(|part| part.as_os_str());
        let is_package = parts.any(|part| part == "site-packages" || part == "dist-packages");
        let is_numpy = is_package && parts.next().is_some_and(|part| part == "numpy");
        !is_numpy && (is_package || !file.starts_with(&self.stdlib))
    }

    /// Searches the values of `namespace`, and their attributes. Searches copies: reading the
    /// attributes of an object may run code of the application, which may set globals.
    fn look(
        &self,
        module: &str,
        namespace: &Bound<'py, PyDict>,
        found: &mut Vec<String>,
    ) -> PyResult<()> {
        for (name, value) in namespace.copy()? {
            if let Some(kind) = self.kind(&value) {
                found.push(format!("module `{module}` holds a `{kind}` as `{name}`"));
                continue;
            }
            let Some(attributes) = attributes(&value) else { continue };
            for (attribute, value) in attributes.copy()? {
                if let Some(kind) = self.kind(&value) {
                    let attribute = attribute
                        .cast::<PyString>()
                        .map_or_else(|_| "?".into(), ToString::to_string);
                    found.push(format!(
                        "module `{module}` holds a `{kind}` as `{name}.{attribute}`"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The name of the type, if `value` is a generator whose numbers repeat.
    fn kind(&self, value: &Bound<'py, PyAny>) -> Option<String> {
        let class = value.get_type();
        let is = |known: &Bound<'py, PyType>| class.is_subclass(known).unwrap_or(false);
        let repeats = self.types.iter().any(is)
            && !self.system_random.as_ref().is_some_and(is)
            && !self.fresh.iter().any(|fresh| fresh.is(value));
        repeats.then(|| class.fully_qualified_name().map(|name| name.to_string()).ok()).flatten()
    }
}
