//! Exceptions as text.

use pyo3::{
    prelude::*,
    types::{PyList, PyTraceback},
};

/// The traceback as Python prints it; if even that fails, the exception's own text.
pub(crate) fn format_exception(py: Python<'_>, error: &PyErr) -> String {
    let formatted = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1(
            "format_exception",
            (error.get_type(py), error.value(py), from_application(error.traceback(py))?),
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

/// The traceback without the frames of the import system that stand before the application's own.
fn from_application(traceback: Option<Bound<'_, PyTraceback>>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let mut rest = traceback.map(Bound::into_any);
    while let Some(step) = &rest {
        let file: String = step.getattr("tb_frame")?.getattr("f_code")?.getattr("co_filename")?.extract()?;
        if !file.starts_with("<frozen importlib") {
            break;
        }
        let next = step.getattr("tb_next")?;
        rest = (!next.is_none()).then_some(next);
    }
    Ok(rest)
}
