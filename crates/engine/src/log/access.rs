//! Writes the access log, and reports lines that are lost.

use std::{io, sync::PoisonError};

use diagnostics::message::{Code, LogMessage};
use rustix::io::Errno;

use crate::log::{
    Log,
    access_sink::AccessLogTrouble,
    files::{AccessLog, access_log},
    reopen_rotated, write_all,
};

/// Writes one whole line, with its end, to the access log.
pub(crate) fn write_line(line: &[u8]) {
    let sink = match access_log() {
        None => return,
        Some(AccessLog::ErrorLog) => return write_all(line),
        Some(AccessLog::File(sink)) => sink,
    };
    reopen_rotated();
    let trouble = sink.lock().unwrap_or_else(PoisonError::into_inner).write(line);
    if let Some(trouble) = trouble {
        Log::without_request("access log").write(&message(trouble));
    }
}

fn message(trouble: AccessLogTrouble) -> LogMessage {
    match trouble {
        AccessLogTrouble::Losing(Errno::AGAIN) => LogMessage::new(
            Code::AccessNotLogged,
            "lines of the access log are lost: nobody reads it",
        )
        .hint("see what the program that reads it waits for; this is reported once a minute"),
        AccessLogTrouble::Losing(error) => LogMessage::new(
            Code::AccessNotLogged,
            format!("lines of the access log are lost: {}", io::Error::from(error)),
        )
        .hint("make room on its disk; this is reported once a minute"),
        AccessLogTrouble::Lost(count) => LogMessage::new(
            Code::AccessNotLogged,
            format!(
                "the access log is written again; lines of this process that were lost: {count}"
            ),
        )
        .hint("a log message above says why"),
    }
}
