//! The process environment: each request has its own, which this module sets and restores.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use pyo3::{
    intern,
    prelude::*,
    types::{PyBytes, PyDict},
};

/// Names and values of environment variables.
pub(crate) type EnvironmentPairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Python sets this variable at its start if no locale is set (PEP 538).
const LOCALE_VARIABLE: &[u8] = b"LC_CTYPE";

/// The changes that loading the application made to the process environment.
#[derive(Debug, Default)]
pub(crate) struct EnvironmentChanges {
    /// Variables that loading set.
    set: HashMap<Vec<u8>, ChangedVariable>,
    /// Names of variables that loading removed.
    removed: HashSet<Vec<u8>>,
}

/// A variable that loading has set.
#[derive(Debug)]
struct ChangedVariable {
    value: Vec<u8>,
    /// The variable replaced another value, which every request of the pool also has.
    has_replaced: bool,
}

impl EnvironmentChanges {
    /// The changes that lead from `before` to `after`.
    pub(crate) fn between(before: EnvironmentPairs, after: EnvironmentPairs) -> Self {
        let mut before: HashMap<_, _> = before.into_iter().collect();
        let mut set = HashMap::new();
        for (name, value) in after {
            let old = before.remove(&name);
            if old.as_ref() != Some(&value) {
                set.insert(name, ChangedVariable { value, has_replaced: old.is_some() });
            }
        }
        Self { set, removed: before.into_keys().collect() }
    }

    /// The environment of a request with `variables`, after these changes. A variable that was
    /// missing while the application was loaded keeps the request's value.
    pub(crate) fn applied_to<'a>(
        &self,
        variables: &'a EnvironmentPairs,
    ) -> Cow<'a, EnvironmentPairs> {
        if self.set.is_empty() && self.removed.is_empty() {
            return Cow::Borrowed(variables);
        }
        let mut carried = HashSet::new();
        let mut merged = Vec::with_capacity(variables.len() + self.set.len());
        for (name, value) in variables {
            carried.insert(name);
            match self.set.get(name).filter(|set| set.has_replaced) {
                Some(set) => merged.push((name.clone(), set.value.clone())),
                None if self.removed.contains(name) => {}
                None => merged.push((name.clone(), value.clone())),
            }
        }
        let added = self.set.iter().filter(|(name, _)| !carried.contains(name));
        merged.extend(added.map(|(name, set)| (name.clone(), set.value.clone())));
        Cow::Owned(merged)
    }
}

/// Sets the process environment to `variables`, for Python and for C libraries. Skips unchanged
/// variables: each change costs a forked process copied pages.
pub(crate) fn take_environment(py: Python<'_>, variables: &[(Vec<u8>, Vec<u8>)]) -> PyResult<()> {
    let environment = Environment::of(py)?;
    let old = environment.copy()?;
    for (name, value) in variables {
        let (name, value) = (PyBytes::new(py, name), PyBytes::new(py, value));
        let is_there = old.get_item(&name)?.is_some_and(|old| old.eq(&value).unwrap_or(false));
        if !is_there {
            environment.set(&name, &value)?;
        }
        if old.contains(&name)? {
            old.del_item(&name)?;
        }
    }
    for name in old.keys() {
        // Programs that Python starts need `LC_CTYPE`.
        if !name.eq(PyBytes::new(py, LOCALE_VARIABLE))? {
            environment.remove(&name)?;
        }
    }
    Ok(())
}

/// `os.environb`.
struct Environment<'py> {
    view: Bound<'py, PyAny>,
    /// The dictionary behind the view. The view itself runs Python code for each name and value,
    /// about a tenth of a millisecond in each request.
    data: Option<Bound<'py, PyDict>>,
}

impl<'py> Environment<'py> {
    fn of(py: Python<'py>) -> PyResult<Self> {
        let view = py.import(intern!(py, "os"))?.getattr(intern!(py, "environb"))?;
        // The attribute is undocumented. If it is missing, the view is used.
        let data =
            view.getattr(intern!(py, "_data")).ok().and_then(|data| data.cast_into_exact().ok());
        Ok(Self { view, data })
    }

    fn copy(&self) -> PyResult<Bound<'py, PyDict>> {
        match &self.data {
            Some(data) => data.copy(),
            None => Ok(self.view.call_method0("copy")?.cast_into()?),
        }
    }

    fn set(&self, name: &Bound<'py, PyBytes>, value: &Bound<'py, PyBytes>) -> PyResult<()> {
        let py = self.view.py();
        match &self.data {
            Some(data) => {
                py.import(intern!(py, "posix"))?
                    .call_method1(intern!(py, "putenv"), (name, value))?;
                data.set_item(name, value)
            }
            None => self.view.set_item(name, value),
        }
    }

    fn remove(&self, name: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.view.py();
        match &self.data {
            Some(data) => {
                py.import(intern!(py, "posix"))?.call_method1(intern!(py, "unsetenv"), (name,))?;
                data.del_item(name)
            }
            None => self.view.del_item(name),
        }
    }
}

/// The process environment as Python knows it.
pub(crate) fn variables(py: Python<'_>) -> PyResult<EnvironmentPairs> {
    Environment::of(py)?
        .copy()?
        .iter()
        .map(|(name, value)| Ok((name.extract()?, value.extract()?)))
        .collect()
}

/// A saved environment, which [`SavedEnvironment::restore`] brings back after a request.
pub(crate) struct SavedEnvironment {
    /// The objects `os.environ` and `os.environb`, which share one dictionary.
    views: [(&'static str, Py<PyAny>); 2],
    /// The variables in that dictionary.
    variables: EnvironmentPairs,
    /// The variables that C libraries and started programs see.
    of_process: HashMap<OsString, OsString>,
}

impl SavedEnvironment {
    /// Saves the present environment.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let os = py.import("os")?;
        let view = |name: &'static str| Ok::<_, PyErr>((name, os.getattr(name)?.unbind()));
        Ok(Self {
            views: [view("environ")?, view("environb")?],
            variables: variables(py)?,
            of_process: env::vars_os().collect(),
        })
    }

    /// Restores the environment, and the time zone that the C library derives from the environment.
    pub(crate) fn restore(&self, py: Python<'_>) -> PyResult<()> {
        let os = py.import("os")?;
        for (name, view) in &self.views {
            os.setattr(*name, view)?;
        }
        let time_zone = env::var_os("TZ");
        take_environment(py, &self.variables)?;
        if !self.variables.iter().any(|(name, _)| name == LOCALE_VARIABLE) {
            os.getattr("environb")?
                .call_method1("pop", (PyBytes::new(py, LOCALE_VARIABLE), py.None()))?;
        }
        // `os.putenv` and C libraries change variables without Python's knowledge.
        let posix = py.import("posix")?;
        let bytes = |text: &OsString| PyBytes::new(py, text.as_bytes()).unbind();
        let mut left: HashMap<OsString, OsString> = env::vars_os().collect();
        for (name, value) in &self.of_process {
            if left.remove(name).as_ref() != Some(value) {
                posix.call_method1("putenv", (bytes(name), bytes(value)))?;
            }
        }
        for name in left.keys() {
            posix.call_method1("unsetenv", (bytes(name),))?;
        }
        if time_zone.as_ref() != self.of_process.get(OsStr::new("TZ")) {
            py.import("time")?.call_method0("tzset")?;
        }
        Ok(())
    }
}
