//! Exceptions as text.

use pyo3::{prelude::*, types::PyList};

/// The traceback as Python prints it; if even that fails, the exception's own text.
pub(crate) fn format_exception(py: Python<'_>, error: &PyErr) -> String {
    let formatted = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1(
            "format_exception",
            (error.get_type(py), error.value(py), error.traceback(py)),
        )?;
        let lines = lines.cast_into::<PyList>()?;
        let mut text = String::new();
        for line in lines {
            // A message may hold lone surrogates, which UTF-8 cannot.
            let line = line.call_method1("encode", ("utf-8", "backslashreplace"))?;
            text.push_str(&String::from_utf8_lossy(line.extract::<&[u8]>()?));
        }
        Ok(text)
    };
    formatted().unwrap_or_else(|_| error.to_string())
}
