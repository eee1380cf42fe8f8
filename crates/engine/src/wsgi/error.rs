//! Errors that end a request early, and their log messages.

use std::io;

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::{exceptions::PySystemExit, prelude::*};
use wire::{launch::EXIT_TIMEOUT_SECONDS, report::StopReason};

use crate::{
    advice,
    process::forks,
    wsgi::{
        ClientWait, ServerSettings,
        exceptions::{InvalidResponse, is_invalid_response, stop_of},
        traceback::{ExceptionText, format_exception},
    },
};

/// Why a request gets an error page in place of the application's response.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The message for the log.
    pub(crate) message: LogMessage,
    /// The status of the error page.
    pub(crate) status: Status,
}

impl Refusal {
    /// The request is malformed.
    pub(crate) fn bad_request(message: LogMessage) -> Self {
        Self { message, status: Status::BadRequest }
    }
}

impl From<LogMessage> for Refusal {
    /// The application is at fault.
    fn from(message: LogMessage) -> Self {
        Self { message, status: Status::InternalServerError }
    }
}

/// Why a request was not served completely.
#[derive(Debug)]
pub(super) enum ServeError {
    /// The application raised an exception, or the engine raised one in it.
    Raised(PyErr),
    /// The response breaks PEP 3333.
    BadResponse {
        /// The violation.
        sentence: String,
        /// How to fix the application.
        hint: &'static str,
    },
    /// The client has closed the connection.
    ClientDisconnected,
    /// The response could not be written for another reason.
    NotWritten(io::Error),
}

impl From<PyErr> for ServeError {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl ServeError {
    /// A response that breaks PEP 3333.
    pub(super) fn bad_response(sentence: impl Into<String>, hint: &'static str) -> Self {
        Self::BadResponse { sentence: sentence.into(), hint }
    }

    /// The error of a failed write of the response.
    pub(super) fn of_write(error: io::Error) -> Self {
        if is_disconnect(&error) { Self::ClientDisconnected } else { Self::NotWritten(error) }
    }

    /// The exception that `write()` raises in the application.
    pub(super) fn into_error(self) -> PyErr {
        match self {
            Self::Raised(error) => error,
            Self::BadResponse { sentence, hint } => {
                InvalidResponse::new_err(format!("{sentence} ({hint})"))
            }
            Self::ClientDisconnected => io::Error::from(io::ErrorKind::BrokenPipe).into(),
            Self::NotWritten(error) => error.into(),
        }
    }

    /// Was the process asked to stop, by the web server or another sender?
    pub(super) fn is_termination(&self, py: Python<'_>) -> bool {
        match self {
            Self::Raised(error) => stop_of(py, error).is_some_and(|stop| !stop.is_timeout()),
            _ => false,
        }
    }

    /// The status of the error page.
    pub(super) fn status(&self, py: Python<'_>) -> Status {
        match self {
            Self::Raised(error) => {
                stop_of(py, error).map_or(Status::InternalServerError, status_of)
            }
            _ => Status::InternalServerError,
        }
    }

    /// The exception as text.
    pub(super) fn describe(&self, py: Python<'_>) -> Option<ExceptionText> {
        if let Self::Raised(error) = self { Some(ExceptionText::of(py, error)) } else { None }
    }

    /// The log message; `None` if the client closed the connection. `described` is the result of
    /// [`Self::describe`], if that was called.
    pub(super) fn log_message(
        &self,
        py: Python<'_>,
        setting: &ServerSettings,
        headers_sent: bool,
        awaited: Option<ClientWait>,
        described: Option<ExceptionText>,
    ) -> Option<LogMessage> {
        let message = match self {
            Self::Raised(error) => {
                let described = described.unwrap_or_else(|| ExceptionText::of(py, error));
                match (awaited, stop_of(py, error).filter(|stop| stop.is_timeout())) {
                    (Some(awaited), Some(stop)) => {
                        client_wait_timed_out(awaited, stop, setting).traceback(described.trace)
                    }
                    _ => raised(py, error, described, setting, headers_sent),
                }
            }
            Self::BadResponse { sentence, hint } => {
                LogMessage::new(Code::BadResponse, sentence.clone()).hint(*hint)
            }
            Self::ClientDisconnected => return None,
            Self::NotWritten(error) if is_lost(error) => {
                forks::mark_descriptors_lost(true);
                LogMessage::descriptors_lost(&format!("the response cannot be written, {error}"))
            }
            Self::NotWritten(error) => {
                let hint = if error.kind() == io::ErrorKind::UnexpectedEof {
                    "put a new file in the place of an old one by renaming it, and never write \
                     into one that is sent"
                } else if setting.is_cgi {
                    "look at what the standard output of the gateway is connected to"
                } else {
                    "look at the connection to the web server, and at its log"
                };
                LogMessage::new(
                    Code::NotWritten,
                    format!("the response could not be written: {error}"),
                )
                .hint(hint)
            }
        };
        Some(message)
    }
}

fn raised(
    py: Python<'_>,
    error: &PyErr,
    described: ExceptionText,
    setting: &ServerSettings,
    headers_sent: bool,
) -> LogMessage {
    let ExceptionText { line, trace } = described;
    if is_invalid_response(py, error) {
        return LogMessage::new(Code::BadResponse, line)
            .traceback(trace)
            .hint("the last lines of the traceback name the call to fix");
    }
    if let Some(refusal) = interruption(py, error, setting) {
        return refusal.message;
    }
    let what = if error.is_instance_of::<PySystemExit>(py) {
        format!("the application called `sys.exit`: `{line}`")
    } else {
        format!("the application raised `{line}`")
    };
    let advice = advice::for_exception(py, error);
    if headers_sent {
        LogMessage::new(
            Code::RaisedAfterHeaders,
            format!("{what} after its response headers were sent"),
        )
        .traceback(trace)
        .hint(advice.unwrap_or_else(|| {
            "the response was cut there; the last lines of the traceback name the place".to_owned()
        }))
    } else {
        LogMessage::new(Code::ApplicationRaised, what).traceback(trace).hint(advice.unwrap_or_else(
            || {
                "the last lines of the traceback name the place; `wsgate call` repeats a request \
                 from a shell"
                    .to_owned()
            },
        ))
    }
}

/// The refusal of a request that the gateway ended; `None` for another `error`.
pub(crate) fn interruption(
    py: Python<'_>,
    error: &PyErr,
    setting: &ServerSettings,
) -> Option<Refusal> {
    let stop = stop_of(py, error)?;
    let message = match stop {
        StopReason::Timeout | StopReason::ResponseTimeout => {
            let (sentence, option) = exceeded(stop, setting);
            LogMessage::new(Code::TimedOut, sentence).hint(format!(
                "the last lines of the traceback are where it was; make that faster, or raise \
                 `{option}`"
            ))
        }
        stop => LogMessage::new(
            Code::Terminated,
            format!("{} while the application worked on it", stop.sentence()),
        )
        .hint(format!("the traceback says where the application was; {}", stop.hint())),
    };
    let message = message.traceback(format_exception(py, error));
    Some(Refusal { message, status: status_of(stop) })
}

/// The sentence about the time limit of the request that was exceeded, and the option that sets it.
fn exceeded(stop: StopReason, setting: &ServerSettings) -> (String, &'static str) {
    if stop == StopReason::ResponseTimeout {
        let limit = setting.response_timeout_seconds;
        (format!("the request got no response within {limit} s"), "--response-timeout")
    } else {
        (format!("the request took longer than {} s", setting.timeout_seconds), "--timeout")
    }
}

/// The log message for a `close()` that the gateway interrupted; `None` for another `error`.
pub(super) fn closing_interrupted(
    py: Python<'_>,
    error: &PyErr,
    setting: &ServerSettings,
) -> Option<LogMessage> {
    let stop = stop_of(py, error)?;
    let message = if stop == StopReason::Timeout {
        let limit = match setting.timeout_seconds {
            0 => EXIT_TIMEOUT_SECONDS,
            seconds => seconds,
        };
        let sentence = format!(
            "the request took longer than {limit} s: `close()` of its response has not returned"
        );
        LogMessage::new(Code::TimedOut, sentence)
    } else {
        let sentence = format!("{}: `close()` of its response has not returned", stop.sentence());
        LogMessage::new(Code::Terminated, sentence)
    };
    let hint =
        "the client has the response; the last lines of the traceback are where `close()` was";
    Some(message.traceback(format_exception(py, error)).hint(hint))
}

/// The log message for a request whose client was too slow.
pub(crate) fn client_wait_timed_out(
    awaited: ClientWait,
    stop: StopReason,
    setting: &ServerSettings,
) -> LogMessage {
    let piece = setting.socket_timeout_seconds;
    let (whole, whole_option) = exceeded(stop, setting);
    let (sentence, option, what) = match awaited {
        ClientWait::RequestBody => {
            (format!("{whole}: its body did not come in time"), whole_option, "request bodies")
        }
        ClientWait::ResponseRead => (
            format!("{whole}: its client did not read the response in time"),
            whole_option,
            "responses",
        ),
        ClientWait::NextBodyPiece => (
            format!("nothing of the request body came for {piece} s"),
            "--socket-timeout",
            "request bodies",
        ),
        ClientWait::NextResponseRead => (
            format!("nothing of the response was read for {piece} s"),
            "--socket-timeout",
            "responses",
        ),
    };
    LogMessage::new(Code::TimedOut, sentence).hint(format!(
        "raise `{option}` if clients may be that slow, or have the web server buffer {what}"
    ))
}

fn status_of(stop: StopReason) -> Status {
    match stop {
        StopReason::Timeout | StopReason::ResponseTimeout => Status::GatewayTimeout,
        StopReason::Terminated
        | StopReason::Interrupted
        | StopReason::HungUp
        | StopReason::OtherSignal => Status::ServiceUnavailable,
    }
}

/// Does `error` say that a descriptor was closed, or replaced by another file?
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| [libc::EBADF, libc::ENOTSOCK].contains(&number))
}

/// Does `error` say that the other end closed the connection or is unreachable?
pub(crate) fn is_disconnect(error: &io::Error) -> bool {
    // The host of the web server cannot be reached any more.
    let is_unreachable = || {
        let errors = [
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
            libc::ENETRESET,
        ];
        error.raw_os_error().is_some_and(|number| errors.contains(&number))
    };
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
    ) || is_unreachable()
}
