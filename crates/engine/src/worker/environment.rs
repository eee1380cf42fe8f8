//! The environment of a process that serves requests of others' environments.

use std::{collections::HashMap, env, ffi::OsString, os::unix::ffi::OsStrExt as _};

use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};

/// Makes `variables` the environment of this process, for Python and for libraries in C. What is there already is not touched: each
/// change runs Python code, and costs a process that was just forked pages of memory.
pub(super) fn take_environment(py: Python<'_>, variables: &[(Vec<u8>, Vec<u8>)]) -> PyResult<()> {
    let environment = py.import("os")?.getattr("environb")?;
    let old = environment.call_method0("copy")?.cast_into::<PyDict>()?;
    for (name, value) in variables {
        let (name, value) = (PyBytes::new(py, name), PyBytes::new(py, value));
        let is_there = old.get_item(&name)?.is_some_and(|old| old.eq(&value).unwrap_or(false));
        if !is_there {
            environment.set_item(&name, &value)?;
        }
        if old.contains(&name)? {
            old.del_item(&name)?;
        }
    }
    for name in old.keys() {
        // Python itself sets it at its start where no locale is set (PEP 538), and programs that it starts are to have it.
        if !name.eq(PyBytes::new(py, b"LC_CTYPE"))? {
            environment.del_item(name)?;
        }
    }
    Ok(())
}

/// The environment of this process, as Python knows it.
pub(super) fn variables(py: Python<'_>) -> PyResult<Vec<(Vec<u8>, Vec<u8>)>> {
    let copy = py.import("os")?.getattr("environb")?.call_method0("copy")?.cast_into::<PyDict>()?;
    copy.iter().map(|(name, value)| Ok((name.extract()?, value.extract()?))).collect()
}

/// An environment that is to be there again after a request, whatever the application has done to it.
pub(super) struct Kept {
    /// What `os.environ` and `os.environb` are; each shows the same dictionary.
    views: [(&'static str, Py<PyAny>); 2],
    /// What stands in that.
    variables: Vec<(Vec<u8>, Vec<u8>)>,
    /// What libraries in C find, and programs that are started.
    of_process: HashMap<OsString, OsString>,
}

impl Kept {
    /// What is there now.
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let os = py.import("os")?;
        let view = |name: &'static str| Ok::<_, PyErr>((name, os.getattr(name)?.unbind()));
        Ok(Self {
            views: [view("environ")?, view("environb")?],
            variables: variables(py)?,
            of_process: env::vars_os().collect(),
        })
    }

    /// Makes it so again.
    pub(super) fn restore(&self, py: Python<'_>) -> PyResult<()> {
        let os = py.import("os")?;
        for (name, view) in &self.views {
            os.setattr(*name, view)?;
        }
        take_environment(py, &self.variables)?;
        // `os.putenv` and libraries in C go past what Python knows.
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
        Ok(())
    }
}
