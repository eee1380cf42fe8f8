//! The environ dictionary (PEP 3333 *environ Variables*). Bytes become `str` here, once, as latin-1.
//!
//! Requests resemble each other: a web server sends the same names in the same order, and most values again. What was the same
//! last time is the same `str` this time, and an environ with the same names is made by copying the one before.

use pyo3::{
    ffi, intern,
    prelude::*,
    types::{PyDict, PyString},
};

use super::{Setting, Variables, file_wrapper::FileWrapper, input::Input};

/// Variables that are remembered. An attacker who makes up names gains no more than this.
const MOST_ENTRIES: usize = 256;

/// Longest value that is remembered, in bytes.
const LONGEST_VALUE: usize = 1024;

/// Makes the environs of one thread.
pub(super) struct Environs {
    /// What does not come from the request.
    constant: Py<PyDict>,
    /// The last environ, as it was before the application had it.
    last: Py<PyDict>,
    entries: Vec<Entry>,
    /// Names the request that entries were used by.
    serial: u64,
    /// How many entries `last` was made of.
    used: usize,
    /// How many names were interned; Python may keep these for ever.
    interned: usize,
}

/// A variable that was sent before.
struct Entry {
    name: Vec<u8>,
    key: Py<PyString>,
    value: Vec<u8>,
    /// `value` is all of it.
    remembered: bool,
    text: Py<PyString>,
    /// The last request that had it; 0 for none.
    serial: u64,
    /// Its value is another one than at the request before.
    changed: bool,
}

impl Environs {
    /// Environs of a thread for which `setting` and the error stream `errors` are true.
    pub(super) fn new(py: Python<'_>, setting: &Setting, errors: &Bound<'_, PyAny>) -> PyResult<Self> {
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
            entries: Vec::new(),
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
        let made = self.make_of(py, variables);
        if made.is_err() || self.entries.len() > MOST_ENTRIES {
            self.forget();
        }
        let environ = made?;
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "wsgate.request_id"), request_id)?;
        if variables.scheme() == "https" {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        }
        Ok(environ)
    }

    fn make_of<'py>(&mut self, py: Python<'py>, variables: &Variables<'_>) -> PyResult<Bound<'py, PyDict>> {
        let same_names = self.remember(py, variables)?;
        if same_names {
            let last = self.last.bind(py);
            for entry in self.entries.iter().filter(|entry| entry.serial == self.serial && entry.changed) {
                last.set_item(&entry.key, &entry.text)?;
            }
            return last.copy();
        }
        let environ = self.constant.bind(py).copy()?;
        for entry in self.entries.iter().filter(|entry| entry.serial == self.serial) {
            environ.set_item(&entry.key, &entry.text)?;
        }
        self.last = environ.copy()?.unbind();
        Ok(environ)
    }

    /// Takes note of the variables. Tells whether their names are those of the request before.
    fn remember(&mut self, py: Python<'_>, variables: &Variables<'_>) -> PyResult<bool> {
        let before = self.serial;
        self.serial += 1;
        let (mut same, mut used, mut at) = (true, 0, 0);
        for (name, value) in variables.iter() {
            used += 1;
            let found = self.entries[at..].iter().position(|entry| entry.name == name);
            let place = match found {
                Some(distance) => at + distance,
                None => {
                    let entry = Entry {
                        name: name.to_vec(),
                        key: self.key(py, name)?,
                        value: Vec::new(),
                        remembered: false,
                        text: intern!(py, "").clone().unbind(),
                        serial: 0,
                        changed: true,
                    };
                    self.entries.insert(at, entry);
                    at
                }
            };
            let entry = &mut self.entries[place];
            same &= entry.serial == before && before > 0;
            entry.serial = self.serial;
            entry.changed = !entry.remembered || entry.value != value;
            if entry.changed {
                entry.text = latin1(py, value)?.unbind();
                entry.value.clear();
                entry.remembered = value.len() <= LONGEST_VALUE;
                if entry.remembered {
                    entry.value.extend_from_slice(value);
                }
            }
            at = place + 1;
        }
        same &= used == self.used;
        self.used = used;
        Ok(same)
    }

    fn key(&mut self, py: Python<'_>, name: &[u8]) -> PyResult<Py<PyString>> {
        match std::str::from_utf8(name) {
            Ok(name) if name.is_ascii() && self.interned < MOST_ENTRIES => {
                self.interned += 1;
                Ok(PyString::intern(py, name).unbind())
            }
            _ => Ok(latin1(py, name)?.unbind()),
        }
    }

    fn forget(&mut self) {
        self.entries.clear();
        self.used = 0;
    }
}

/// Bytes as the PEP's native strings: each byte one character (*Unicode Issues*).
fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: pointer and length are those of a live slice, whose length fits `Py_ssize_t` as every slice's does; the call
    // copies, and returns a new reference to a `str` or null with an exception set.
    let string = unsafe {
        Bound::from_owned_ptr_or_err(
            py,
            ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len().cast_signed(), std::ptr::null()),
        )
    }?;
    Ok(string.cast_into()?)
}
