//! Random number generators across a fork: which are seeded again, and which repeat in each
//! process.
//!
//! Python itself seeds the functions of `random` again in every child. Generators of the kernel
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

/// Most generators that are listed.
const MOST: usize = 20;

/// Seeds the functions of `numpy.random` again from the kernel's random numbers, in a process that
/// was just forked, if numpy's are loaded.
pub(crate) fn seed_again(py: Python<'_>) {
    let loaded = || -> PyResult<Bound<'_, PyAny>> {
        py.import("sys")?
            .getattr("modules")?
            .cast_into::<PyDict>()?
            .as_any()
            .get_item("numpy.random.mtrand")
    };
    if let Ok(numpy) = loaded() {
        // The application may have put a generator of another kind there, which cannot be seeded
        // so: that is its own then.
        let _ = numpy.call_method0("seed");
    }
}

/// Generators in globals of modules, and in attributes of what is there: each repeats in every
/// process that is forked from this one. The script of `app` is named by its file, since the engine
/// makes up its name as a module.
pub(crate) fn generators(py: Python<'_>, app: &App) -> PyResult<Vec<String>> {
    let sys = py.import("sys")?;
    let modules = sys.getattr("modules")?.cast_into::<PyDict>()?;
    let search = Search::new(py, &modules)?;
    let mut found = Vec::new();
    for (name, module) in modules.copy()? {
        // Modules may be any object, and their attributes may raise.
        let file = module.getattr("__file__").and_then(|file| file.extract::<PathBuf>());
        let namespace =
            module.getattr("__dict__").and_then(|namespace| Ok(namespace.cast_into::<PyDict>()?));
        let (Ok(file), Ok(namespace), Ok(name)) = (file, namespace, name.extract::<String>())
        else {
            continue;
        };
        let is_script =
            matches!(&app.source, Source::File(script) if *script == file.as_os_str().as_bytes());
        let name =
            file.file_name().filter(|_| is_script).map_or(name.into(), OsStr::to_string_lossy);
        if search.is_foreign(&file) {
            search.look(&name, &namespace, &mut found);
        }
    }
    found.sort();
    found.truncate(MOST);
    Ok(found)
}

/// Attributes that an object, or a class, has itself. A module has been looked at by itself.
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

/// What is searched for, and where not.
struct Search<'py> {
    /// Types of generators.
    types: Vec<Bound<'py, PyType>>,
    /// A subclass of those that has no state.
    kernels: Option<Bound<'py, PyType>>,
    /// Python's own and numpy's own, which are seeded again.
    fresh: Vec<Bound<'py, PyAny>>,
    /// Where modules that come with Python lie.
    stdlib: PathBuf,
}

impl<'py> Search<'py> {
    fn new(py: Python<'py>, modules: &Bound<'py, PyDict>) -> PyResult<Self> {
        let object = |module: &str, name: &str| modules.get_item(module).ok()??.getattr(name).ok();
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
            kernels: class("random", "SystemRandom"),
            fresh: [("random", "_inst"), ("numpy.random.mtrand", "_rand")]
                .iter()
                .filter_map(|(module, name)| object(module, name))
                .collect(),
            stdlib: os.parent().unwrap_or(Path::new("/")).to_owned(),
        })
    }

    /// Is this no module that comes with Python, nor one of numpy's own?
    fn is_foreign(&self, file: &Path) -> bool {
        let mut parts = file.components().map(|part| part.as_os_str());
        let is_package = parts.any(|part| part == "site-packages" || part == "dist-packages");
        let is_numpy = is_package && parts.next().is_some_and(|part| part == "numpy");
        !is_numpy && (is_package || !file.starts_with(&self.stdlib))
    }

    /// Looks at the values of `namespace`, and at the attributes of these.
    fn look(&self, module: &str, namespace: &Bound<'py, PyDict>, found: &mut Vec<String>) {
        let py = namespace.py();
        for (name, value) in namespace {
            if let Some(kind) = self.kind(&value) {
                found.push(format!("module `{module}` holds a `{kind}` as `{name}`"));
                continue;
            }
            for (attribute, value) in attributes(&value).unwrap_or_else(|| PyDict::new(py)) {
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
    }

    /// The name of the type, if this is a generator whose numbers repeat.
    fn kind(&self, value: &Bound<'py, PyAny>) -> Option<String> {
        let class = value.get_type();
        let is = |known: &Bound<'py, PyType>| class.is_subclass(known).unwrap_or(false);
        let repeats = self.types.iter().any(is)
            && !self.kernels.as_ref().is_some_and(is)
            && !self.fresh.iter().any(|fresh| fresh.is(value));
        repeats.then(|| class.fully_qualified_name().map(|name| name.to_string()).ok()).flatten()
    }
}
