//! The environ dictionary (PEP 3333 *environ Variables*). Bytes become `str` here, once, as
//! latin-1.
//!
//! Requests resemble each other: a web server sends the same names in the same order, and most
//! values again. What was the same last time is the same `str` this time, and an environ with the
//! same names is made by copying the one before.

use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::process::python_api::latin1;
use crate::wsgi::{
    ServerSettings, Variables, file_wrapper::FileWrapper, input::Input, variables::Variable,
};

/// Names that Python may keep for ever, as it does those that are interned.
const MAX_INTERNED_NAMES: usize = 256;

/// Makes the environs of one thread.
pub(super) struct Environs {
    /// What does not come from the request.
    constant: Py<PyDict>,
    /// The last environ, as it was before the application had it.
    last: Py<PyDict>,
    /// Variables by their numbers.
    texts: Vec<Option<VariableTexts>>,
    /// Those whose value is another one than in `last`.
    changed: Vec<usize>,
    /// Of the variables with these numbers.
    generation: u64,
    /// Names the last request that an environ was made for.
    serial: u64,
    /// How many variables `last` was made of; 0 if it cannot be used.
    used: usize,
    /// How many names were interned.
    interned: usize,
}

/// A variable as Python has it.
struct VariableTexts {
    key: Py<PyString>,
    value: Py<PyString>,
    /// That of the value; 0 if it has none.
    version: u64,
    /// The last request that had it; 0 for none.
    serial: u64,
}

impl Environs {
    /// Environs of a thread for which `setting` and the error stream `errors` are true.
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
        Ok(Self {
            last: constant.copy()?.unbind(),
            constant: constant.unbind(),
            texts: Vec::new(),
            changed: Vec::new(),
            generation: 0,
            serial: 0,
            used: 0,
            interned: 0,
        })
    }

    /// The environ of one request.
    pub(super) fn make<'py>(
        &mut self,
        py: Python<'py>,
        variables: &Variables<'_>,
        request_id: &str,
        input: &Bound<'py, Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.make_of(py, variables).inspect_err(|_| self.used = 0)?;
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "wsgate.request_id"), request_id)?;
        if variables.scheme() == "https" {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        }
        Ok(environ)
    }

    fn make_of<'py>(
        &mut self,
        py: Python<'py>,
        variables: &Variables<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let same_names = self.remember(py, variables)?;
        if same_names {
            let last = self.last.bind(py);
            for texts in self.changed.iter().filter_map(|number| self.texts[*number].as_ref()) {
                last.set_item(&texts.key, &texts.value)?;
            }
            return last.copy();
        }
        let environ = self.constant.bind(py).copy()?;
        for texts in variables.pairs().iter().filter_map(|pair| self.texts[pair.number].as_ref()) {
            environ.set_item(&texts.key, &texts.value)?;
        }
        self.last = environ.copy()?.unbind();
        self.used = variables.pairs().len();
        Ok(environ)
    }

    /// Sees to it that there is a text for each variable. Tells whether their names are those of
    /// the request before.
    fn remember(&mut self, py: Python<'_>, variables: &Variables<'_>) -> PyResult<bool> {
        if variables.generation() != self.generation {
            self.texts.clear();
            self.used = 0;
            self.generation = variables.generation();
        }
        self.changed.clear();
        let before = self.serial;
        self.serial += 1;
        let mut same_names = variables.pairs().len() == self.used;
        for Variable { name, value, number, version } in variables.pairs() {
            if let Some(Some(texts)) = self.texts.get_mut(*number) {
                same_names &= texts.serial == before;
                texts.serial = self.serial;
                if *version == 0 || texts.version != *version {
                    texts.value = latin1(py, value)?.unbind();
                    texts.version = *version;
                    self.changed.push(*number);
                }
                continue;
            }
            same_names = false;
            let (key, value) = (self.key(py, name)?, latin1(py, value)?.unbind());
            if self.texts.len() <= *number {
                self.texts.resize_with(*number + 1, || None);
            }
            self.texts[*number] =
                Some(VariableTexts { key, value, version: *version, serial: self.serial });
        }
        Ok(same_names)
    }

    fn key(&mut self, py: Python<'_>, name: &[u8]) -> PyResult<Py<PyString>> {
        match std::str::from_utf8(name) {
            Ok(name) if name.is_ascii() && self.interned < MAX_INTERNED_NAMES => {
                self.interned += 1;
                Ok(PyString::intern(py, name).unbind())
            }
            _ => Ok(latin1(py, name)?.unbind()),
        }
    }
}
