//! `wsgate.extend_timeout` in the environ: an application asks for more time for its request.

use pyo3::{exceptions::PyValueError, prelude::*};

use crate::{process::forks::is_child, wsgi::Interruptible};

/// The most seconds that an application can ask for.
const MAX_SECONDS: f64 = u32::MAX as f64;

/// Lets one request take longer.
#[pyclass(frozen, module = "wsgate", name = "extend_timeout")]
pub(super) struct ExtendTimeout(Option<Interruptible>);

impl ExtendTimeout {
    /// For `request`; without one, calls have no effect.
    pub(super) fn new(request: Option<Interruptible>) -> Self {
        Self(request)
    }
}

#[pymethods]
impl ExtendTimeout {
    /// Lets the request take at least `seconds` from now.
    fn __call__(&self, seconds: f64) -> PyResult<()> {
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(PyValueError::new_err(format!(
                "seconds must be from 0 to {MAX_SECONDS}, not {seconds}"
            )));
        }
        // A child of the application has no request.
        if let Some(request) = self.0.as_ref().filter(|_| !is_child()) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range was checked"
            )]
            request.extend((seconds * 1000.0).ceil() as u64);
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "called by Python")]
    fn __repr__(&self) -> &'static str {
        "<wsgate.extend_timeout>"
    }
}
