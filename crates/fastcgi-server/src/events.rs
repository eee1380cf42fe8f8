//! The events of a connection, for the application.

use std::{error, fmt};

use crate::{
    bodies::{BeginRequest, EndRequest, ProtocolStatus, Role, UnknownType},
    params::{Params, ParamsError},
    record::{Header, RecordType, RequestId, UnknownVersion},
    values::Values,
};

/// The result of one call of [`Connection::receive`](crate::Connection::receive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'i> {
    /// Number of bytes of the input that were consumed. Pass the rest of the input again.
    pub consumed: usize,
    /// The event in these bytes. `None`: all of the input is consumed, and the next event needs
    /// more.
    pub event: Option<Event<'i>>,
}

/// An event that the application handles. Contents of streams point into the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A request begins (FastCGI 1.0, 5.1). Its id is active until the call of
    /// [`Connection::finish`](crate::Connection::finish). Send nothing for this request yet (6.2).
    Begin {
        /// The request's id on this connection.
        id: RequestId,
        /// The role of the application.
        role: Role,
        /// Does the connection stay open after the request?
        /// [`Connection::must_close`](crate::Connection::must_close) respects this flag.
        keep_connection: bool,
    },
    /// All parameters have arrived, and the response may begin (FastCGI 1.0, 5.2 and 6.2). An
    /// authorizer gets no further input (6.3).
    Params {
        /// The request.
        id: RequestId,
        /// Its parameters.
        params: Params,
    },
    /// All parameters have arrived, and they are invalid. Send an error page and finish the
    /// request. The only event that can follow for this request is [`Event::Abort`].
    BadParams {
        /// The request.
        id: RequestId,
        /// Why the parameters are invalid.
        error: ParamsError,
    },
    /// A piece of the request's body (FastCGI 1.0, 5.3), never empty.
    Stdin {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The request body has ended. Fewer bytes than `CONTENT_LENGTH` mean that the client has
    /// disconnected (FastCGI 1.0, 6.2).
    StdinEnd {
        /// The request.
        id: RequestId,
        /// Length of the body in bytes.
        length: u64,
    },
    /// The web server aborts the request (FastCGI 1.0, 5.4). Send `FCGI_END_REQUEST` as soon as
    /// possible and finish the request, which stays active until then. A request has at most one
    /// abort, possibly before its parameters, and no input after the abort.
    Abort {
        /// The request.
        id: RequestId,
    },
    /// A record to send before receiving more. The record may be sent between any two records of a
    /// response, and the application need not know its content.
    Response(Response),
}

/// A record that the protocol requires, independent of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// `FCGI_GET_VALUES_RESULT`, the response to `FCGI_GET_VALUES` (FastCGI 1.0, 4.1).
    Values(Values),
    /// `FCGI_UNKNOWN_TYPE`, the response to a management record of this type (FastCGI 1.0, 4.2).
    UnknownType(u8),
    /// `FCGI_END_REQUEST`, which refuses a request (FastCGI 1.0, 5.5). The request's id is not
    /// active, and the rest of the request is ignored.
    Refused {
        /// The request.
        id: RequestId,
        /// Why the request is refused.
        status: ProtocolStatus,
    },
}

/// The rest of an `FCGI_STDIN` record that has arrived in part; see
/// [`Connection::expected`](crate::Connection::expected).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The request.
    pub id: RequestId,
    /// Bytes of the record's content that have not arrived, at least 1. Padding and further records
    /// follow.
    pub remaining: usize,
}

impl Response {
    /// Appends the record to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Values(values) => values.append_result(out),
            Self::UnknownType(record_type) => {
                out.extend_from_slice(&Header::new(RecordType::UnknownType, None, 8).to_bytes());
                out.extend_from_slice(&UnknownType { record_type: *record_type }.to_bytes());
            }
            Self::Refused { id, status } => {
                out.extend_from_slice(
                    &Header::new(RecordType::EndRequest, Some(*id), 8).to_bytes(),
                );
                out.extend_from_slice(
                    &EndRequest { app_status: 0, protocol_status: *status }.to_bytes(),
                );
            }
        }
    }
}

/// The peer has broken the protocol. Close the connection and log the reason (FastCGI 1.0, 7),
/// because later bytes cannot be trusted. Requests that were complete before may still get a
/// response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A record of another version of the protocol (FastCGI 1.0, 3.3), often because the peer
    /// speaks HTTP.
    UnknownVersion(UnknownVersion),
    /// The content of `FCGI_BEGIN_REQUEST` has the wrong length (FastCGI 1.0, 5.1).
    BeginLength {
        /// The request.
        id: RequestId,
        /// Length of the content in bytes.
        length: u16,
    },
    /// A request begins with an id that is still active (FastCGI 1.0, 3.3). A response to that id
    /// could reach the wrong client.
    AlreadyActive {
        /// The id.
        id: RequestId,
    },
    /// A stream begins before the preceding stream has ended (FastCGI 1.0, 6.1).
    OutOfOrder {
        /// The request.
        id: RequestId,
        /// The stream that began too early.
        record_type: RecordType,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(error) => error.fmt(f),
            Self::BeginLength { id, length } => {
                write!(f, "`{length}` bytes begin request `{id}` where `{}` do", BeginRequest::LEN)
            }
            Self::AlreadyActive { id } => {
                write!(f, "request `{id}` begins while another of that id is active")
            }
            Self::OutOfOrder { id, record_type } => {
                write!(f, "`{record_type}` of request `{id}` comes too early")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::UnknownVersion(error) => Some(error),
            Self::BeginLength { .. } | Self::AlreadyActive { .. } | Self::OutOfOrder { .. } => None,
        }
    }
}

impl From<UnknownVersion> for Error {
    fn from(error: UnknownVersion) -> Self {
        Self::UnknownVersion(error)
    }
}
