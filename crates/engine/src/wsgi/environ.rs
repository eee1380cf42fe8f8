//! The environ dictionary (PEP 3333 *environ Variables*). This module decodes bytes to `str` as
//! latin-1, once.

use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::process::python_api::latin1;
use crate::wsgi::{
    Interruptible, ServerSettings, Variables, extend_timeout::ExtendTimeout,
    file_wrapper::FileWrapper, input::Input, variables::Variable,
};

/// The number of variables cached between requests, and the maximum length of a cached value.
const MAX_KEPT_VARIABLES: usize = 256;
const MAX_KEPT_VALUE_BYTES: usize = 1024;

/// Creates the environs of one thread.
pub(super) struct Environs {
    /// The keys that are the same in all requests.
    constant: Py<PyDict>,
    /// The variables of the last request, by position. A web server sends the same names in the
    /// same order, and mostly the same values.
    last: Vec<KeptVariable>,
}

/// A variable with its name and value as `str`.
struct KeptVariable {
    name: Box<[u8]>,
    key: Py<PyString>,
    /// Empty if the value is too long for the cache.
    value: Vec<u8>,
    text: Py<PyString>,
}

impl Environs {
    /// The environs of a thread with `setting` and the error stream `errors`.
    pub(super) fn new(
        py: Python<'_>,
        setting: &ServerSettings,
        errors: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let constant = PyDict::new(py);
        constant.set_item(intern!(py, "wsgi.version"), (1, 0))?;
        constant.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "http"))?;
        constant.set_item(intern!(py, "wsgi.input"), py.None())?;
        constant.set_item(intern!(py, "wsgi.input_terminated"), true)?;
        constant.set_item(intern!(py, "wsgi.errors"), errors)?;
        constant.set_item(intern!(py, "wsgi.multithread"), setting.multithread)?;
        constant.set_item(intern!(py, "wsgi.multiprocess"), setting.multiprocess)?;
        constant.set_item(intern!(py, "wsgi.run_once"), setting.run_once)?;
        constant.set_item(intern!(py, "wsgi.file_wrapper"), py.get_type::<FileWrapper>())?;
        constant.set_item(intern!(py, "wsgate.version"), env!("CARGO_PKG_VERSION"))?;
        constant.set_item(intern!(py, "wsgate.request_id"), py.None())?;
        let extend_timeout = Bound::new(py, ExtendTimeout::new(None))?;
        constant.set_item(intern!(py, "wsgate.extend_timeout"), extend_timeout)?;
        Ok(Self { constant: constant.unbind(), last: Vec::new() })
    }

    /// The environ of one request.
    pub(super) fn make<'py>(
        &mut self,
        py: Python<'py>,
        variables: &Variables<'_>,
        request_id: &str,
        input: &Bound<'py, Input>,
        interruptible: &Interruptible,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.constant.bind(py).copy()?;
        for (position, variable) in variables.pairs().iter().enumerate() {
            self.set(&environ, position, variable)?;
        }
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "wsgate.request_id"), request_id)?;
        if interruptible.is_extensible() {
            let extend_timeout = Bound::new(py, ExtendTimeout::new(Some(interruptible.clone())))?;
            environ.set_item(intern!(py, "wsgate.extend_timeout"), extend_timeout)?;
        }
        if variables.scheme() == "https" {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        }
        Ok(environ)
    }

    /// Adds the variable at `position`.
    fn set(
        &mut self,
        environ: &Bound<'_, PyDict>,
        position: usize,
        Variable { name, value }: &Variable<'_>,
    ) -> PyResult<()> {
        let py = environ.py();
        if let Some(kept) = self.last.get_mut(position).filter(|kept| *kept.name == **name) {
            if value.is_empty() || kept.value != **value {
                kept.text = latin1(py, value)?.unbind();
                kept.value.clear();
                if value.len() <= MAX_KEPT_VALUE_BYTES {
                    kept.value.extend_from_slice(value);
                }
            }
            return environ.set_item(&kept.key, &kept.text);
        }
        let (key, text) = (latin1(py, name)?, latin1(py, value)?);
        environ.set_item(&key, &text)?;
        let kept = KeptVariable {
            name: (*name).into(),
            key: key.unbind(),
            value: if value.len() <= MAX_KEPT_VALUE_BYTES { value.to_vec() } else { Vec::new() },
            text: text.unbind(),
        };
        match self.last.get_mut(position) {
            Some(last) => *last = kept,
            None if position < MAX_KEPT_VARIABLES => self.last.push(kept),
            None => {}
        }
        Ok(())
    }
}
