//! Requests and records that break the protocol: the log message, and the response if there is one.

use std::io;

use diagnostics::{
    error_page::{Page, Status},
    message::{Code, LogMessage},
    request_id,
};
use fastcgi_server::{Output, ParamsError, RequestId, Stream};
use wire::request::ResponseFormat;

use crate::log::{Log, rate_limit::LimitedMessage};

/// A breach of the protocol as an error of a connection.
pub(super) fn violation(error: fastcgi_server::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Logs `error` if the peer broke the protocol. A peer that closed the connection is not logged.
pub(super) fn log_violation(error: &io::Error) {
    if error.kind() != io::ErrorKind::InvalidData {
        return;
    }
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    inner.map_or(LimitedMessage::OtherVersion, kind_of_record).write(
        &Log::without_request("connection"),
        || {
            LogMessage::new(
            Code::BadRecord,
            format!("a connection was closed: the received bytes are not FastCGI: {error}"),
        )
        .hint(
            "check which client connects; configure the web server for FastCGI, not HTTP or uwsgi",
        )
        },
    );
}

/// Logs that the parameters of the request `id` are invalid. Returns the response.
pub(super) fn refuse_params(id: RequestId, error: &ParamsError) -> Vec<u8> {
    let log = Log::new(&request_id::new(), "- -");
    kind_of_params(error).write(&log, || {
        LogMessage::new(
            Code::BadRequest,
            format!("the parameters of a request cannot be used: {error}"),
        )
        .hint("the request was answered with 400")
    });
    let page = Page {
        status: Status::BadRequest,
        request_id: log.request_id(),
        detail: None,
        head_only: false,
    };
    let (output, mut response) = (Output::new(id), Vec::new());
    output.append(Stream::Stdout, &page.render(ResponseFormat::Cgi.around_status()), &mut response);
    response.extend_from_slice(&output.ending(0, false));
    response
}

fn kind_of_record(error: &fastcgi_server::Error) -> LimitedMessage {
    match error {
        fastcgi_server::Error::UnknownVersion(_) => LimitedMessage::OtherVersion,
        fastcgi_server::Error::BeginLength { .. } => LimitedMessage::BeginLength,
        fastcgi_server::Error::AlreadyActive { .. } => LimitedMessage::AlreadyActive,
        fastcgi_server::Error::OutOfOrder { .. } => LimitedMessage::OutOfOrder,
    }
}

fn kind_of_params(error: &ParamsError) -> LimitedMessage {
    match error {
        ParamsError::TooLong { .. } => LimitedMessage::LongParams,
        ParamsError::TooMany { .. } => LimitedMessage::ManyParams,
        ParamsError::Truncated { .. } => LimitedMessage::CutParams,
    }
}
