//! The arguments of `start_response`, checked.

use std::borrow::Cow;

use pyo3::{
    intern,
    prelude::*,
    types::{PyList, PyString, PyTuple},
};
use wire::request::ResponseFormat;

use crate::{
    process::python_api::utf8,
    wsgi::{
        exceptions::{InvalidResponse, ResponseTypeError},
        headers::{InvalidHeaders, ResponseHeaders},
        response::type_name,
    },
};

/// The exception of an `exc_info` tuple, ready to be raised again. Keeps no reference to the tuple.
pub(super) fn exception_of(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let wrong = || {
        ResponseTypeError::new_err(
            "exc_info must be a tuple of type, exception and traceback, as sys.exc_info() gives",
        )
    };
    let tuple = exc_info.cast::<PyTuple>().map_err(|_| wrong())?;
    let (_, exception, traceback): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
        tuple.extract().map_err(|_| wrong())?;
    if exception.is_none() {
        return Err(wrong());
    }
    let exception =
        exception.call_method1(intern!(exc_info.py(), "with_traceback"), (traceback,))?;
    Ok(PyErr::from_value(exception))
}

/// Checks status and headers.
pub(super) fn checked_headers(
    form: ResponseFormat,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<ResponseHeaders> {
    let invalid = |bad: InvalidHeaders| InvalidResponse::new_err(bad.to_string());
    let status = status.cast::<PyString>().map_err(|_| {
        ResponseTypeError::new_err(format!("status must be str, not `{}`", type_name(status)))
    })?;
    let headers = headers.cast::<PyList>().map_err(|_| {
        ResponseTypeError::new_err(format!("headers must be a list, not `{}`", type_name(headers)))
    })?;
    let mut checked = ResponseHeaders::new(form, &latin1(status, "status")?).map_err(invalid)?;
    for field in headers {
        let wrong =
            || ResponseTypeError::new_err("each header must be a tuple of two str: name and value");
        let pair = field.cast::<PyTuple>().map_err(|_| wrong())?;
        if pair.len() != 2 {
            return Err(wrong());
        }
        let text = |index| pair.get_item(index)?.cast_into::<PyString>().map_err(|_| wrong());
        let (name, value) = (text(0)?, text(1)?);
        checked.add(&latin1(&name, "a header")?, &latin1(&value, "a header")?).map_err(invalid)?;
    }
    Ok(checked)
}

/// A native string of the PEP as bytes (*Unicode Issues*).
fn latin1<'a>(text: &'a Bound<'_, PyString>, what: &str) -> PyResult<Cow<'a, [u8]>> {
    // Lone surrogates are neither UTF-8 nor latin-1.
    let bytes = utf8(text).and_then(|utf8| {
        if utf8.is_ascii() {
            return Some(Cow::Borrowed(utf8.as_bytes()));
        }
        utf8.chars()
            .map(|character| u8::try_from(u32::from(character)).ok())
            .collect::<Option<Vec<u8>>>()
            .map(Cow::Owned)
    });
    bytes.ok_or_else(|| {
        InvalidResponse::new_err(format!(
            "{what} holds characters outside latin-1: {text:?}; encode them first, as \
             urllib.parse.quote does"
        ))
    })
}
