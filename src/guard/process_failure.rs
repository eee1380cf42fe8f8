//! A python that exited without a complete response: the error page, and the log message.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use diagnostics::{
    error_page::Status,
    limit_hints,
    message::{Code, LogMessage},
    process_exit::ExitText,
};
use wire::report::{EXIT_DESCRIPTORS_LOST, StopReason};

use crate::{
    config::settings::Settings,
    guard::serving_process::ProcessExit,
    python::{engine, identify},
    system::signals,
};

/// The exit of python and the progress of its request.
pub(super) struct ProcessFailure<'a> {
    pub(super) settings: &'a Settings,
    pub(super) exit: ProcessExit,
    /// The time from the start of the process to its exit.
    pub(super) after: Duration,
    /// Why the request was stopped, if it was.
    pub(super) stopped: Option<StopReason>,
    /// The engine was loaded.
    pub(super) engine_loaded: bool,
    /// The application was loaded, or could not be.
    pub(super) app_loaded: bool,
    /// The application has closed the file descriptors of the response or of the reports.
    pub(super) descriptors_lost: bool,
    /// Python's message why the engine could not be loaded.
    pub(super) unfit: Option<String>,
}

impl ProcessFailure<'_> {
    /// The log message about a response that was cut.
    pub(super) fn after_headers(&self) -> LogMessage {
        match self.stopped {
            Some(stop) if stop.is_timeout() => {
                return LogMessage::new(
                    Code::TimedOut,
                    format!(
                        "{}, and the application did not react to SIGTERM",
                        self.exceeded(stop)
                    ),
                )
                .hint("the response was cut; the stack of the application may be just above");
            }
            Some(stop) => {
                let sentence = format!(
                    "{} during its response, and python {}",
                    stop.sentence(),
                    self.how_it_exited()
                );
                return LogMessage::new(Code::Terminated, sentence).hint(stop.hint());
            }
            None => {}
        }
        if self.descriptors_lost {
            return LogMessage::descriptors_lost("the rest of the response is cut");
        }
        LogMessage::new(
            Code::EndedAfterHeaders,
            format!("python {} after the response headers were sent", self.how_it_exited()),
        )
        .hint("the response was cut; look for the reason just above, and in the log of the system")
    }

    /// The error page and log message for a python that exited before the response headers.
    pub(super) fn before_headers(&self) -> (Status, LogMessage) {
        let how = self.how_it_exited();
        if let Some(stopped) = self.stopped {
            return match stopped {
                stop if stop.is_timeout() && !self.engine_loaded => (
                    Status::GatewayTimeout,
                    self.engine_not_loaded(&format!(
                        "runs, and has not loaded the engine within {} s",
                        self.load_seconds()
                    )),
                ),
                stop if stop.is_timeout() && self.engine_loaded && !self.app_loaded => (
                    Status::GatewayTimeout,
                    LogMessage::new(
                        Code::LoadTimedOut,
                        format!(
                            "`{}` was not loaded within {} s",
                            self.settings.app,
                            self.load_seconds()
                        ),
                    )
                    .hint(
                        "the import did not react to SIGTERM; its stack may be just above. A file \
                         that starts a server must do so under `if __name__ == \"__main__\":`",
                    ),
                ),
                stop if stop.is_timeout() => (
                    Status::GatewayTimeout,
                    LogMessage::new(Code::TimedOut, self.exceeded(stop)).hint(
                        "the application did not react to SIGTERM; its stack may be just above",
                    ),
                ),
                stop => (
                    Status::ServiceUnavailable,
                    LogMessage::new(
                        Code::Terminated,
                        format!("{}, and python {how}", stop.sentence()),
                    )
                    .hint(stop.hint()),
                ),
            };
        }
        if let Some(reason) = &self.unfit {
            return (
                Status::InternalServerError,
                engine::unfit(&self.settings.engine, &self.settings.interpreter.program, reason),
            );
        }
        if !self.engine_loaded {
            if let Some(message) =
                engine::damaged(&self.settings.engine, &self.settings.interpreter.program)
            {
                return (Status::InternalServerError, message);
            }
            let how = format!("{how} before the engine was loaded");
            return (Status::InternalServerError, self.engine_not_loaded(&how));
        }
        let code = match self.exit {
            ProcessExit::Known(status) => status.code(),
            ProcessExit::Unknown => None,
        };
        if self.descriptors_lost || code == Some(EXIT_DESCRIPTORS_LOST) {
            let message = LogMessage::descriptors_lost(
                "the response cannot be sent, or not reported to the gateway",
            );
            return (Status::InternalServerError, message);
        }
        let ProcessExit::Known(status) = self.exit else {
            return (
                Status::BadGateway,
                LogMessage::new(
                    Code::ProcessEnded,
                    format!("python {how} before it sent a response"),
                )
                .hint(
                    "look for the reason just above, in the log of its pool (W0701), and in the \
                     log of the system",
                ),
            );
        };
        match status.signal() {
            Some(signal) => (
                Status::BadGateway,
                LogMessage::new(
                    Code::ProcessKilled,
                    format!("python {how} before it sent a response"),
                )
                .hint(signals::cause(signal).map_or_else(
                    || {
                        limit_hints::or_memory(
                            "most likely a C extension crashed; the Python stack is just above",
                        )
                    },
                    str::to_owned,
                )),
            ),
            None => (
                Status::InternalServerError,
                LogMessage::new(
                    Code::ProcessEnded,
                    format!("python {how} before it sent a response"),
                )
                .hint(match status.code() {
                    // The status of Python after an uncaught exception, such as one of a trace
                    // function.
                    Some(1) => {
                        "look for a traceback just above; without one, the application or a \
                         library called `os._exit`"
                    }
                    _ => "the application or a library called `os._exit`",
                }),
            ),
        }
    }

    /// The log message about a program that `how` ("exited before the engine was loaded").
    fn engine_not_loaded(&self, how: &str) -> LogMessage {
        let program = &self.settings.interpreter.program;
        identify::not_python(program, how).unwrap_or_else(|| {
            let python = program.display();
            let hint = format!("run `{python} -c pass` as the user that the request runs as");
            LogMessage::new(Code::PythonEnded, format!("`{python}` {how}"))
                .hint(limit_hints::or_memory(&hint))
        })
    }

    fn how_it_exited(&self) -> String {
        let after = self.after.as_millis();
        let ProcessExit::Known(status) = self.exit else {
            return format!("exited after {after} ms");
        };
        format!("{} after {after} ms", ExitText(status))
    }

    fn load_seconds(&self) -> u64 {
        let settings = self.settings;
        let limits = [settings.timeout, settings.load_timeout, settings.response_timeout];
        limits.into_iter().flatten().min().map_or(0, |limit| limit.as_secs())
    }

    /// The sentence about the time limit that was exceeded.
    fn exceeded(&self, stop: StopReason) -> String {
        let seconds = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_secs());
        if stop == StopReason::ResponseTimeout {
            let limit = seconds(self.settings.response_timeout);
            return format!("the request got no response within {limit} s");
        }
        // Python may hang before it has loaded the engine.
        let limit =
            if self.app_loaded { seconds(self.settings.timeout) } else { self.load_seconds() };
        format!("the request took longer than {limit} s")
    }
}

/// The log message about a `close()` that was stopped after a complete response.
pub(super) fn close_stopped(stop: StopReason, settings: &Settings) -> LogMessage {
    let seconds = settings.timeout.map_or(0, |timeout| timeout.as_secs());
    let (code, what) = match stop {
        StopReason::Timeout => {
            (Code::TimedOut, format!("the request took longer than {seconds} s"))
        }
        stop => (Code::Terminated, stop.sentence().to_owned()),
    };
    LogMessage::new(code, format!("{what}: `close()` of its response has not returned")).hint(
        "the client has the response; `close()` did not react to SIGTERM, and its stack may be \
         just above",
    )
}
