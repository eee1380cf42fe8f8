//! Exceptions that the engine raises in the application.

use pyo3::{
    create_exception,
    exceptions::{PySystemExit, PyTypeError, PyValueError},
    prelude::*,
};
use wire::report::StopReason;

create_exception!(
    wsgate,
    Interrupted,
    PySystemExit,
    "Raised in the application when the gateway ends its request: the argument is `timeout`, \
     `response timeout`, `terminated`, `interrupted` or `hung up`."
);

create_exception!(
    wsgate,
    InvalidResponse,
    PyValueError,
    "The application's response breaks PEP 3333."
);

create_exception!(
    wsgate,
    ResponseTypeError,
    PyTypeError,
    "The application passed an object whose type breaks PEP 3333."
);

/// Is `error` about a response that breaks PEP 3333?
pub(super) fn is_invalid_response(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<InvalidResponse>(py) || error.is_instance_of::<ResponseTypeError>(py)
}

/// Why the gateway interrupted the application, if `error` is that interruption.
pub(super) fn stop_of(py: Python<'_>, error: &PyErr) -> Option<StopReason> {
    if !error.is_instance_of::<Interrupted>(py) {
        return None;
    }
    let reason: Option<String> =
        error.value(py).getattr("code").and_then(|code| code.extract()).ok();
    Some(reason.as_deref().and_then(StopReason::parse).unwrap_or(StopReason::Timeout))
}

/// Is `error` the interruption at a deadline of the request?
pub(super) fn is_timeout(py: Python<'_>, error: &PyErr) -> bool {
    stop_of(py, error).is_some_and(StopReason::is_timeout)
}
