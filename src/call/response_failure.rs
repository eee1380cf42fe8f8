//! Log messages about a FastCGI server that sends no response, or not a complete one.

use std::fmt;

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

/// The log message about bytes that are not a response.
pub(super) fn not_a_response() -> LogMessage {
    LogMessage::new(
        Code::NoResponse,
        "the response has no headers: lines `Name: value` and an empty line",
    )
    .hint("the program printed something else first; a web server would answer 500 or 502")
}

/// The log message about bytes that are not FastCGI.
pub(super) fn no_fastcgi(error: &dyn fmt::Display) -> LogMessage {
    LogMessage::new(Code::NoResponse, format!("the response is not FastCGI: {error}"))
        .hint("check which server listens there; HTTP and uwsgi are other protocols")
}

/// The log message about a response that was cut, for the reason `how`.
pub(super) fn cut(how: &str) -> LogMessage {
    LogMessage::new(
        Code::ResponseCut,
        format!("the response ended before the request did: {how}, without `FCGI_END_REQUEST`"),
    )
    .hint(
        "look at the error log of the server: the process that served the request may have crashed",
    )
}

/// The log message about a request that the server ended as a failure.
pub(super) fn failure_of(end: &EndRequest) -> Option<LogMessage> {
    let hint = match end.protocol_status {
        ProtocolStatus::RequestComplete if end.app_status == 0 => return None,
        ProtocolStatus::RequestComplete => {
            let sentence =
                format!("the application reports failure, with status `{}`", end.app_status);
            return Some(
                LogMessage::new(Code::ResponseCut, sentence)
                    .hint("look at the error log of the server"),
            );
        }
        ProtocolStatus::Overloaded => {
            "all its workers are busy: try again, or give it more workers"
        }
        ProtocolStatus::CantMpxConn => {
            "the server accepts one request at a time on a connection, and got no other: look at \
                its \
             error log"
        }
        ProtocolStatus::UnknownRole => {
            "the server is an authorizer or a filter, and takes no request of a responder"
        }
        ProtocolStatus::Other(_) => {
            "FastCGI 1.0 has no such status: look at the error log of the server"
        }
    };
    Some(
        LogMessage::new(
            Code::Refused,
            format!("the server refused the request: `{}`", end.protocol_status),
        )
        .hint(hint),
    )
}
