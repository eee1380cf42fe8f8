//! What can end a request before it is done.

use std::io;

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use pyo3::{
    create_exception,
    exceptions::{PySystemExit, PyValueError},
    prelude::*,
};
use wire::{launch::EXIT_TIMEOUT_SECONDS, report::StopReason};

use crate::process::forks;

use crate::wsgi::{
    Awaited, Setting,
    traceback::{Described, format_exception},
};

create_exception!(
    wsgate,
    Interrupted,
    PySystemExit,
    "Raised in the application when the gateway ends its request: the argument is `timeout`, \
     `terminated`, `interrupted` or `hung up`."
);

create_exception!(
    wsgate,
    InvalidResponse,
    PyValueError,
    "The application's response breaks PEP 3333."
);

/// Why a request could not be served to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The application raised an exception, or was made to.
    Raised(PyErr),
    /// The response is none that PEP 3333 allows.
    BadResponse {
        /// What is wrong with it.
        sentence: String,
        /// How to mend it.
        hint: &'static str,
    },
    /// Nobody reads the response any more.
    ClientGone,
    /// The response could not be written, and not because the client had gone.
    NotWritten(io::Error),
}

impl From<PyErr> for Fault {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Fault {
    /// A response that PEP 3333 does not allow.
    pub(super) fn bad_response(sentence: impl Into<String>, hint: &'static str) -> Self {
        Self::BadResponse { sentence: sentence.into(), hint }
    }

    /// What writing a response has come to, if not to its end.
    pub(super) fn of_write(error: io::Error) -> Self {
        if is_clients_end(&error) { Self::ClientGone } else { Self::NotWritten(error) }
    }

    /// As the application sees it, out of `write()`.
    pub(super) fn into_error(self) -> PyErr {
        match self {
            Self::Raised(error) => error,
            Self::BadResponse { sentence, hint } => {
                InvalidResponse::new_err(format!("{sentence} ({hint})"))
            }
            Self::ClientGone => io::Error::from(io::ErrorKind::BrokenPipe).into(),
            Self::NotWritten(error) => error.into(),
        }
    }

    /// Was the process asked to stop, by the web server or from elsewhere?
    pub(super) fn is_termination(&self, py: Python<'_>) -> bool {
        matches!(self, Self::Raised(error) if stop_of(py, error).is_some_and(|stop| stop != StopReason::Timeout))
    }

    /// Status of the stand-in response, if one can still be sent.
    pub(super) fn status(&self, py: Python<'_>) -> Status {
        match self {
            Self::Raised(error) => {
                stop_of(py, error).map_or(Status::InternalServerError, status_of)
            }
            _ => Status::InternalServerError,
        }
    }

    /// What the application raised, as text.
    pub(super) fn describe(&self, py: Python<'_>) -> Option<Described> {
        if let Self::Raised(error) = self { Some(Described::of(py, error)) } else { None }
    }

    /// The log message; nothing for a client that went away, which is its right. `described` is
    /// what [`Self::describe`] has given, if it was asked.
    pub(super) fn entry(
        &self,
        py: Python<'_>,
        setting: &Setting,
        head_left: bool,
        awaited: Option<Awaited>,
        described: Option<Described>,
    ) -> Option<LogMessage> {
        let entry = match self {
            Self::Raised(error) => {
                let described = described.unwrap_or_else(|| Described::of(py, error));
                match awaited.filter(|_| is_timeout(py, error)) {
                    Some(awaited) => stalled(awaited, setting).detail(described.trace),
                    None => raised(py, error, described, setting, head_left),
                }
            }
            Self::BadResponse { sentence, hint } => {
                LogMessage::error(Code::BadResponse, sentence.clone()).hint(*hint)
            }
            Self::ClientGone => return None,
            Self::NotWritten(error) if is_lost(error) => {
                forks::mark_lost(true);
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
                LogMessage::error(
                    Code::NotWritten,
                    format!("the response could not be written: {error}"),
                )
                .hint(hint)
            }
        };
        Some(entry)
    }
}

fn raised(
    py: Python<'_>,
    error: &PyErr,
    described: Described,
    setting: &Setting,
    head_left: bool,
) -> LogMessage {
    let Described { line, trace } = described;
    if error.is_instance_of::<InvalidResponse>(py) {
        return LogMessage::error(Code::BadResponse, line)
            .detail(trace)
            .hint("the last lines of the traceback name the call to mend");
    }
    if let Some((entry, _)) = interruption(py, error, setting) {
        return entry;
    }
    let what = if error.is_instance_of::<PySystemExit>(py) {
        format!("the application called `sys.exit`: `{line}`")
    } else {
        format!("the application raised `{line}`")
    };
    if head_left {
        LogMessage::error(
            Code::RaisedAfterHeaders,
            format!("{what} after the head of its response had left"),
        )
        .detail(trace)
        .hint("the response was cut there; the last lines of the traceback name the place")
    } else {
        LogMessage::error(Code::ApplicationRaised, what).detail(trace).hint(
            "the last lines of the traceback name the place; `wsgate call` repeats a request from \
             a shell",
        )
    }
}

/// The entry and the status for a request that the gateway ended, if that is what `error` says.
pub(crate) fn interruption(
    py: Python<'_>,
    error: &PyErr,
    setting: &Setting,
) -> Option<(LogMessage, Status)> {
    let stop = stop_of(py, error)?;
    let entry = match stop {
        StopReason::Timeout => LogMessage::error(
            Code::TimedOut,
            format!("the request took longer than {} s", setting.timeout_seconds),
        )
        .hint(
            "the last lines of the traceback are where it was; make that faster, or raise \
             `--timeout`",
        ),
        stop => LogMessage::error(
            Code::Terminated,
            format!("{} while the application worked on it", stop.sentence()),
        )
        .hint(format!("the traceback says where the application was; {}", stop.hint())),
    };
    Some((entry.detail(format_exception(py, error)), status_of(stop)))
}

/// The log message for `close()` of a response body that the gateway interrupted, if that is what
/// `error` says.
pub(super) fn closing_interrupted(
    py: Python<'_>,
    error: &PyErr,
    setting: &Setting,
) -> Option<LogMessage> {
    let stop = stop_of(py, error)?;
    let entry = if stop == StopReason::Timeout {
        let limit = match setting.timeout_seconds {
            0 => EXIT_TIMEOUT_SECONDS,
            seconds => seconds,
        };
        let sentence = format!(
            "the request took longer than {limit} s: `close()` of its response has not returned"
        );
        LogMessage::error(Code::TimedOut, sentence)
    } else {
        let sentence = format!("{}: `close()` of its response has not returned", stop.sentence());
        LogMessage::error(Code::Terminated, sentence)
    };
    let hint =
        "the client has the response; the last lines of the traceback are where `close()` was";
    Some(entry.detail(format_exception(py, error)).hint(hint))
}

/// The entry for a request that waited for its client for too long.
pub(crate) fn stalled(awaited: Awaited, setting: &Setting) -> LogMessage {
    let (whole, piece) = (setting.timeout_seconds, setting.socket_timeout_seconds);
    let (sentence, option, what) = match awaited {
        Awaited::Body => (
            format!("the request took longer than {whole} s: its body did not come in time"),
            "--timeout",
            "request bodies",
        ),
        Awaited::Reader => (
            format!(
                "the request took longer than {whole} s: its client did not read the response in \
                 time"
            ),
            "--timeout",
            "responses",
        ),
        Awaited::NextPiece => (
            format!("nothing of the request body came for {piece} s"),
            "--socket-timeout",
            "request bodies",
        ),
        Awaited::NextRead => (
            format!("nothing of the response was read for {piece} s"),
            "--socket-timeout",
            "responses",
        ),
    };
    LogMessage::error(Code::TimedOut, sentence).hint(format!(
        "raise `{option}` if clients may be that slow, or have the web server buffer {what}"
    ))
}

fn status_of(stop: StopReason) -> Status {
    match stop {
        StopReason::Timeout => Status::GatewayTimeout,
        StopReason::Terminated | StopReason::Interrupted | StopReason::HungUp => {
            Status::ServiceUnavailable
        }
    }
}

/// Does `error` say that the request has taken too long?
pub(super) fn is_timeout(py: Python<'_>, error: &PyErr) -> bool {
    stop_of(py, error) == Some(StopReason::Timeout)
}

/// Why the gateway interrupted the application, if that is what `error` says.
fn stop_of(py: Python<'_>, error: &PyErr) -> Option<StopReason> {
    if !error.is_instance_of::<Interrupted>(py) {
        return None;
    }
    let reason: Option<String> =
        error.value(py).getattr("code").and_then(|code| code.extract()).ok();
    Some(reason.as_deref().and_then(StopReason::parse).unwrap_or(StopReason::Timeout))
}

/// Does `error` say that a descriptor is closed, or another file's?
fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| [libc::EBADF, libc::ENOTSOCK].contains(&number))
}

/// Does `error` say that the other end of the connection is closed?
pub(crate) fn is_clients_end(error: &io::Error) -> bool {
    // The last ones: the machine of the web server is not reached any more.
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
