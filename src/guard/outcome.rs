//! What a python that ended without a whole response means, for the client and for the log.

use std::{os::unix::process::ExitStatusExt as _, time::Duration};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use wire::report::{EXIT_DESCRIPTORS_LOST, StopReason};

use crate::{
    config::settings::Settings, guard::served_process::Outcome, python::engine, system::signals,
};

/// How python ended, and how far it had got.
pub(super) struct Ending<'a> {
    pub(super) settings: &'a Settings,
    pub(super) outcome: Outcome,
    /// How long it ran.
    pub(super) after: Duration,
    /// Why it was asked to stop, if it was.
    pub(super) stopped: Option<StopReason>,
    /// The engine was loaded.
    pub(super) ready: bool,
    /// The application is loaded, or cannot be.
    pub(super) loaded: bool,
    /// The application has closed what the response goes to, or what the engine reports by.
    pub(super) lost: bool,
    /// Why the engine could not be loaded, in Python's words.
    pub(super) unfit: Option<String>,
}

impl Ending<'_> {
    /// The entry for a response that had to be cut.
    pub(super) fn after_head(&self) -> LogMessage {
        match self.stopped {
            Some(StopReason::Timeout) => {
                return LogMessage::error(
                    Code::TimedOut,
                    format!(
                        "the request took longer than {} s, and the application did not react to \
                         SIGTERM",
                        self.timeout_seconds()
                    ),
                )
                .hint("the response was cut where it was; its stack may stand just above");
            }
            Some(stop) => {
                let sentence =
                    format!("{} amid its response, and python {}", stop.sentence(), self.how());
                return LogMessage::error(Code::Terminated, sentence).hint(stop.hint());
            }
            None => {}
        }
        if self.lost {
            return LogMessage::descriptors_lost("what came after the head of the response is cut");
        }
        LogMessage::error(
            Code::EndedAfterHeaders,
            format!("python {} after the head of the response had left", self.how()),
        )
        .hint(
            "the response was cut there; look for what ended it just above, and in the system's \
            log",
        )
    }

    /// Status and entry for a python that ended without a response.
    pub(super) fn before_head(&self) -> (Status, LogMessage) {
        let how = self.how();
        if let Some(stopped) = self.stopped {
            return match stopped {
                StopReason::Timeout if self.ready && !self.loaded => (
                    Status::GatewayTimeout,
                    LogMessage::error(
                        Code::LoadTimedOut,
                        format!(
                            "`{}` was not loaded within {} s",
                            self.settings.app,
                            self.load_seconds()
                        ),
                    )
                    .hint(
                        "loading it did not react to SIGTERM; its stack may stand just above. A \
                         file that starts a server when it is loaded has to do that under `if \
                         __name__ == \"__main__\":`",
                    ),
                ),
                StopReason::Timeout => (
                    Status::GatewayTimeout,
                    LogMessage::error(
                        Code::TimedOut,
                        format!("the request took longer than {} s", self.timeout_seconds()),
                    )
                    .hint(
                        "the application did not react to SIGTERM; its stack may stand just above",
                    ),
                ),
                stop => (
                    Status::ServiceUnavailable,
                    LogMessage::error(
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
        let python = self.settings.interpreter.program.display();
        if !self.ready {
            if let Some(entry) =
                engine::damaged(&self.settings.engine, &self.settings.interpreter.program)
            {
                return (Status::InternalServerError, entry);
            }
            return (
                Status::InternalServerError,
                LogMessage::error(
                    Code::PythonEnded,
                    format!("`{python}` {how} before the engine was loaded"),
                )
                .hint(format!(
                    "see what `{python} -c pass` says to the user that the request runs as"
                )),
            );
        }
        if self.lost
            || matches!(self.outcome, Outcome::Known(status) if status.code() == Some(EXIT_DESCRIPTORS_LOST))
        {
            let entry = LogMessage::descriptors_lost(
                "the response cannot be sent, or the gateway cannot hear of it",
            );
            return (Status::InternalServerError, entry);
        }
        let Outcome::Known(status) = self.outcome else {
            return (
                Status::BadGateway,
                LogMessage::error(
                    Code::ProcessEnded,
                    format!(
                        "python {how} before it \
                    replied"
                    ),
                )
                .hint(
                    "an entry just above, or W0701 in the log of its pool, says how it ended; look \
                     at the system's log, too",
                ),
            );
        };
        match status.signal() {
            Some(signal) => (
                Status::BadGateway,
                LogMessage::error(Code::ProcessKilled, format!("python {how} before it \
                    replied")).hint(
                    signals::cause(signal).unwrap_or(
                        "a C extension crashed, most likely; the Python stack stands just above",
                    ),
                ),
            ),
            None => (
                Status::InternalServerError,
                LogMessage::error(
                    Code::ProcessEnded,
                    format!(
                        "python {how} before it replied"
                    ),
                )
                .hint(match status.code() {
                    // As Python ends with when an exception has left all code, such as that of a
                    // trace function.
                    Some(1) => {
                        "a traceback just above says why; else the application, or a library it \
                         uses, called `os._exit`"
                    }
                    _ => "the application, or a library it uses, called `os._exit`",
                }),
            ),
        }
    }

    fn how(&self) -> String {
        let after = self.after.as_millis();
        let Outcome::Known(status) = self.outcome else {
            return format!("ended after {after} ms");
        };
        match status.signal() {
            Some(signal) => format!("was killed by {} after {after} ms", signals::name(signal)),
            None => format!("exited with status {} after {after} ms", status.code().unwrap_or(-1)),
        }
    }

    fn load_seconds(&self) -> u64 {
        let limits = self.settings.timeout.into_iter().chain(self.settings.load_timeout);
        limits.min().map_or(0, |limit| limit.as_secs())
    }

    fn timeout_seconds(&self) -> u64 {
        self.settings.timeout.map_or(0, |timeout| timeout.as_secs())
    }
}

/// The entry for a `close()` that had to be ended, after the response.
pub(super) fn close_ended(stop: StopReason, settings: &Settings) -> LogMessage {
    let seconds = settings.timeout.map_or(0, |timeout| timeout.as_secs());
    let (code, what) = match stop {
        StopReason::Timeout => {
            (Code::TimedOut, format!("the request took longer than {seconds} s"))
        }
        stop => (Code::Terminated, stop.sentence().to_owned()),
    };
    LogMessage::error(code, format!("{what}: `close()` of its response has not returned")).hint(
        "the client has the response; `close()` did not react to SIGTERM, and its stack may stand \
         just above",
    )
}
