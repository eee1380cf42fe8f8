//! What a connection tells the application that it belongs to.

use std::{error, fmt};

use crate::{
    bodies::{BeginRequest, EndRequest, ProtocolStatus, Role, UnknownType},
    params::{Params, ParamsError},
    record::{Header, RecordType, RequestId, UnknownVersion},
    values::Values,
};

/// What came of one call of [`Connection::receive`](crate::Connection::receive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'i> {
    /// How many bytes of the input are dealt with. What follows them has to be given again.
    pub consumed: usize,
    /// What the bytes meant. `None`: all of the input is consumed, and more is needed before
    /// anything can be said.
    pub event: Option<Event<'i>>,
}

/// Something that the application has to know or do. Contents of streams point into the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'i> {
    /// A request begins and its id is active (FastCGI 1.0, 5.1), until
    /// [`Connection::finish`](crate::Connection::finish) says otherwise. Nothing may be sent yet
    /// (6.2).
    Begin {
        /// Its name on this connection.
        id: RequestId,
        /// What is wanted.
        role: Role,
        /// The connection stays open after the request;
        /// [`Connection::must_close`](crate::Connection::must_close) keeps account of this.
        keep_connection: bool,
    },
    /// All parameters have arrived, and the response may begin (FastCGI 1.0, 5.2 and 6.2). For an
    /// authorizer the input is over (6.3).
    Params {
        /// The request.
        id: RequestId,
        /// Its parameters.
        params: Params,
    },
    /// All parameters have come and they are of no use. Answer with an error page and finish the
    /// request: nothing more of it follows but [`Event::Abort`].
    BadParams {
        /// The request.
        id: RequestId,
        /// What is wrong with them.
        error: ParamsError,
    },
    /// A piece of the request's body (FastCGI 1.0, 5.3), never empty.
    Stdin {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The request's body is over. Fewer bytes than `CONTENT_LENGTH` mean that the client died
    /// (FastCGI 1.0, 6.2).
    StdinEnd {
        /// The request.
        id: RequestId,
        /// Bytes that the body had.
        length: u64,
    },
    /// The web server wants the request to end (FastCGI 1.0, 5.4). Send `FCGI_END_REQUEST` as soon
    /// as possible, and finish it; until then it counts as active. Comes at most once, also before
    /// the parameters, and no input follows.
    Abort {
        /// The request.
        id: RequestId,
    },
    /// Bytes to be sent before anything else is received; they may stand between any two records of
    /// a response. The application proper has no part in them.
    Response(Response),
}

/// What the protocol makes a connection say by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// `FCGI_GET_VALUES_RESULT`, an answer to `FCGI_GET_VALUES` (FastCGI 1.0, 4.1).
    Values(Values),
    /// `FCGI_UNKNOWN_TYPE`, an answer to a management record of this type (FastCGI 1.0, 4.2).
    UnknownType(u8),
    /// `FCGI_END_REQUEST`, which refuses a request (FastCGI 1.0, 5.5). Its id is not active, and
    /// the rest of it is ignored.
    Refused {
        /// The request.
        id: RequestId,
        /// Why.
        status: ProtocolStatus,
    },
}

/// The rest of an `FCGI_STDIN` record of which a part has arrived; see
/// [`Connection::expected`](crate::Connection::expected).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The request.
    pub id: RequestId,
    /// Bytes of the record's content that are still to come, at least 1. Padding and further
    /// records follow.
    pub remaining: usize,
}

impl Response {
    /// Writes the record behind `out`.
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

/// The peer does not speak the protocol. Nothing that it says can be trusted any more: close the
/// connection and log the reason (FastCGI 1.0, 7). What it has sent before stays valid, so complete
/// requests may still be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A record of another version of the protocol (FastCGI 1.0, 3.3), often because the peer
    /// speaks HTTP.
    UnknownVersion(UnknownVersion),
    /// The content of `FCGI_BEGIN_REQUEST` is not as long as the specification has it (FastCGI 1.0,
    /// 5.1).
    BeginLength {
        /// The request.
        id: RequestId,
        /// Bytes of the content.
        length: u16,
    },
    /// A request begins under an id that is still active (FastCGI 1.0, 3.3). Whatever was sent for
    /// that id from now on could reach the wrong client.
    AlreadyActive {
        /// The id.
        id: RequestId,
    },
    /// A stream begins before the one that has to precede it is over (FastCGI 1.0, 6.1).
    OutOfOrder {
        /// The request.
        id: RequestId,
        /// The stream that is too early.
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
