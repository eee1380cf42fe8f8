//! `start_response`, `write`, and the state of a response (PEP 3333 *The start_response()
//! Callable*).
//!
//! `arguments` checks the application's arguments, `state` records the progress of the response,
//! and `sending` decides which bytes are sent.

mod arguments;
mod sending;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diagnostics::{
    error_page::{Page, Status},
    message::{Code, LogMessage},
};
use pyo3::{exceptions::PyConnectionError, intern, prelude::*, sync::MutexExt, types::PyBytes};
use wire::{offload::Offload, request::ResponseFormat, scoreboard::OneTimeWarning};

use crate::{
    log::Log,
    wsgi::{
        ClientWait, Interruptible, ResponseSink, ServerSettings,
        error::ServeError,
        exceptions::{InvalidResponse, ResponseTypeError},
        response::{
            arguments::{checked_headers, exception_of},
            state::{ResponseStage, ResponseState},
        },
        variables::Variables,
    },
};

pub(super) use crate::wsgi::response::state::BodyFlow;

/// The response to one request. The application gets its methods.
#[pyclass(frozen, module = "wsgate")]
pub(crate) struct Response {
    state: Mutex<ResponseState>,
    form: ResponseFormat,
    /// The response to a `HEAD` request.
    head_only: bool,
    /// The client's connection must not outlive a body that may end before its Content-Length.
    /// Otherwise the client would take the next response for the rest of the body.
    closes_if_incomplete: bool,
    /// The files that the web server can send in place of the application.
    offload: Option<Arc<Offload>>,
    log: Log,
    interruptible: Interruptible,
}

#[pymethods]
impl Response {
    /// The PEP has positional arguments. Some applications name the last argument, which other
    /// servers allow.
    #[pyo3(signature = (status, headers, exc_info = None))]
    fn start_response<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        slf.get().start(py, status, headers, exc_info)?;
        slf.getattr(intern!(py, "write"))
    }

    #[pyo3(signature = (data, /))]
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(block) = data.cast::<PyBytes>() else {
            return Err(ResponseTypeError::new_err(format!(
                "write() takes bytes, not `{}`",
                type_name(data)
            )));
        };
        if self.send(py, block, None).map_err(ServeError::into_error)? == BodyFlow::Cut {
            return Err(InvalidResponse::new_err(
                "write() was given more bytes than Content-Length announces",
            ));
        }
        Ok(())
    }
}

impl Response {
    /// A response that has not begun, to be sent to `sink`.
    pub(crate) fn new(
        sink: Box<dyn ResponseSink>,
        form: ResponseFormat,
        head_only: bool,
        log: Log,
        interruptible: Interruptible,
    ) -> Self {
        Self {
            state: Mutex::new(ResponseState::new(sink)),
            form,
            head_only,
            closes_if_incomplete: false,
            offload: None,
            log,
            interruptible,
        }
    }

    /// Makes this object the response to the request of `variables`. The web server may have to
    /// close the client's connection after the response. A whole HTTP response goes through the
    /// web server unread, and a file is the response to GET or HEAD.
    pub(super) fn for_request(self, variables: &Variables<'_>, setting: &ServerSettings) -> Self {
        let may_offload = self.form != ResponseFormat::NonParsed && variables.is_get_or_head();
        Self {
            closes_if_incomplete: variables.web_server_ignores_short_bodies(self.form),
            offload: setting.offload.clone().filter(|_| may_offload),
            ..self
        }
    }

    /// The status whose headers were sent; `None` before.
    pub(super) fn status(&self, py: Python<'_>) -> Option<u16> {
        Some(self.state(py).status).filter(|&status| status > 0)
    }

    /// The log of the request.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    fn state(&self, py: Python<'_>) -> MutexGuard<'_, ResponseState> {
        // No panic under this lock leaves an inconsistent state.
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let exception = exc_info.map(exception_of).transpose()?;
        {
            let mut state = self.state(py);
            let called_before = std::mem::replace(&mut state.called, true);
            match (&state.stage, exception) {
                (ResponseStage::HeadersSent { .. } | ResponseStage::Done, Some(exception)) => {
                    return Err(exception);
                }
                (ResponseStage::Nothing | ResponseStage::Started(_), Some(_)) => {
                    state.stage = ResponseStage::Nothing
                }
                (_, None) if called_before => {
                    return Err(InvalidResponse::new_err(
                        "start_response() was called a second time without exc_info",
                    ));
                }
                (_, None) => {}
            }
        }
        // The check runs no code of the application, but may raise.
        let headers = checked_headers(self.form, status, headers)?;
        self.state(py).stage = ResponseStage::Started(headers);
        Ok(())
    }

    /// Has the application called `start_response` without an exception, or was a response sent?
    pub(super) fn is_started(&self, py: Python<'_>) -> bool {
        !matches!(self.state(py).stage, ResponseStage::Nothing)
    }

    /// Can an error page still be sent?
    pub(super) fn may_be_replaced(&self, py: Python<'_>) -> bool {
        matches!(self.state(py).stage, ResponseStage::Nothing | ResponseStage::Started(_))
    }

    /// Have the response headers been sent, and the response not ended?
    pub(super) fn headers_sent(&self, py: Python<'_>) -> bool {
        matches!(self.state(py).stage, ResponseStage::HeadersSent { .. })
    }

    /// Is the body shorter than the Content-Length that was sent?
    pub(super) fn is_short(&self, py: Python<'_>) -> bool {
        self.state(py).is_short
    }

    /// Notes that nothing more will be sent: the response is `complete`, or has to be cut.
    pub(super) fn sending_ended(&self, py: Python<'_>, complete: bool) {
        self.end_sending(py, &mut self.state(py), complete);
    }

    /// Was the whole response sent?
    pub(super) fn is_complete(&self, py: Python<'_>) -> bool {
        self.state(py).outcome == Some(true)
    }

    /// Has the client closed the connection? Called when this process was asked to stop.
    pub(super) fn is_abandoned(&self, py: Python<'_>) -> bool {
        let mut state = self.state(py);
        state.outcome.is_none() && state.sink.as_mut().is_some_and(|sink| sink.is_abandoned(py))
    }

    /// Disables interruption of the request. Returns whether the deadline could have interrupted
    /// the request until now.
    pub(super) fn end_interruption(&self, py: Python<'_>) -> bool {
        self.interruptible.end(py)
    }

    /// Lets the deadline interrupt the following `close()`.
    pub(super) fn resume_interruption(&self) {
        self.interruptible.resume();
    }

    /// The wait for the client that was running at the deadline.
    pub(super) fn awaited(&self) -> Option<ClientWait> {
        self.interruptible.awaited()
    }

    /// Ends the response, which is `complete` or was cut.
    pub(super) fn finish(&self, py: Python<'_>, complete: bool) {
        let mut state = self.state(py);
        state.stage = ResponseStage::Done;
        let Some(mut sink) = state.sink.take() else {
            return;
        };
        if let Err(error) = sink.finish(py, complete) {
            // The caller learns of a timeout from `awaited`.
            drop(self.write_error(py, error));
        }
        if sink.had_surplus() {
            self.log.write_once(OneTimeWarning::SurplusBody, || {
                LogMessage::new(
                    Code::SurplusBody,
                    "more of a request body came than CONTENT_LENGTH says, and was dropped",
                )
                .hint(
                    "a filter of the web server's changes the body after it was counted, as \
                     Apache's `SetInputFilter DEFLATE` does; switch that off for the application; \
                     a pool logs this once",
                )
            });
        }
    }

    /// The error of a write that failed with `error`.
    fn write_error(&self, py: Python<'_>, error: std::io::Error) -> ServeError {
        match error.kind() {
            std::io::ErrorKind::TimedOut => {
                ServeError::Raised(self.interruptible.expire(py, ClientWait::ResponseRead))
            }
            _ => ServeError::of_write(error),
        }
    }

    /// Sends an error page instead of the application's response, unless headers have been sent.
    /// Returns whether the page was sent.
    pub(super) fn replace(&self, py: Python<'_>, status: Status, detail: Option<&str>) -> bool {
        if !self.may_be_replaced(py) {
            return false;
        }
        let page =
            Page { status, request_id: self.log.request_id(), detail, head_only: self.head_only };
        let response = page.render(self.form.around_status());
        let mut state = self.state(py);
        state.stage = ResponseStage::HeadersSent { limit: None, bodiless: true };
        state.status = status.code();
        state.sink.iter_mut().for_each(|sink| sink.headers_leave());
        self.transmit(py, state, &response, b"", true).is_ok()
    }

    /// The cause of `error`. An application may learn from `write()`, or from an incomplete request
    /// body (`cut`), that the client closed the connection. Its exception only passes that
    /// on.
    pub(super) fn cause_of(&self, py: Python<'_>, error: ServeError, cut: bool) -> ServeError {
        let client_disconnected = self.state(py).client_disconnected;
        match error {
            ServeError::Raised(error)
                if error.is_instance_of::<PyConnectionError>(py)
                    && (client_disconnected || (cut && self.is_abandoned(py))) =>
            {
                ServeError::ClientDisconnected
            }
            // Web servers stop a CGI program when its client closes the connection.
            error if error.is_termination(py) && self.is_abandoned(py) => {
                ServeError::ClientDisconnected
            }
            error => error,
        }
    }
}

/// The name of an object's type, for messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().qualname().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}
