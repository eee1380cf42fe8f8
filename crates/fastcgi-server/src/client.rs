//! The web server's side of a connection: requests out, responses in (FastCGI 1.0, 3.3, 4, 5).
//!
//! This module is for tools and tests that act as a web server. Like the rest of the crate, the
//! module does no I/O.

use std::{error, fmt};

use crate::{
    bodies::{BeginRequest, EndRequest, Role, UnknownType},
    frames::Frames,
    pairs::{self, Unwritable},
    reader::Reader,
    record::{Header, MAX_CONTENT, RecordType, RequestId, UnknownVersion},
    values::Values,
};

/// Makes the records of one request. The order is: begin, parameters, `FCGI_STDIN` and its end. An
/// authorizer has no `FCGI_STDIN` (FastCGI 1.0, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    id: RequestId,
}

/// The state of one connection to an application, which turns bytes of responses into events.
///
/// The connection does not track requests. Each event has the id of its request, and the caller
/// checks that this request was sent.
#[derive(Debug)]
pub struct ClientConnection {
    reader: Reader,
    current: ResponseContent,
    failed: Option<ClientError>,
}

/// The result of one call of [`ClientConnection::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientStep<'i> {
    /// Number of bytes of the input that were consumed. Pass the rest of the input again.
    pub consumed: usize,
    /// The event in these bytes. `None`: all of the input is consumed, and the next event needs
    /// more.
    pub event: Option<ClientEvent<'i>>,
}

/// An event from the application. Contents of streams point into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'i> {
    /// A piece of the response, never empty.
    Stdout {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The response has ended.
    StdoutEnd {
        /// The request.
        id: RequestId,
    },
    /// A piece of the application's log messages, never empty.
    Stderr {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The log messages have ended.
    StderrEnd {
        /// The request.
        id: RequestId,
    },
    /// The request has ended, and its id is inactive (FastCGI 1.0, 5.5).
    End {
        /// The request.
        id: RequestId,
        /// How the request ended.
        result: EndRequest,
    },
    /// The response to [`Values::append_query`] (FastCGI 1.0, 4.1).
    Values(Values),
    /// The application does not know management records of this type (FastCGI 1.0, 4.2).
    UnknownType(u8),
}

/// The peer has broken the protocol. Close the connection: later bytes cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// A record of another version of the protocol (FastCGI 1.0, 3.3).
    UnknownVersion(UnknownVersion),
    /// The content of a record with a fixed layout has the wrong length (FastCGI 1.0, 4.2 and 5.5).
    Length {
        /// The record.
        record_type: RecordType,
        /// Length of the content in bytes.
        length: u16,
    },
}

/// The use of the current record's content.
#[derive(Clone, Copy, Debug)]
enum ResponseContent {
    Ignored,
    Stdout(RequestId),
    Stderr(RequestId),
    End(RequestId),
    Values,
    UnknownType,
}

impl Request {
    /// The request with the id `id`.
    pub const fn new(id: RequestId) -> Self {
        Self { id }
    }

    /// Appends `FCGI_BEGIN_REQUEST` to `out` (FastCGI 1.0, 5.1).
    pub fn append_begin(&self, role: Role, keep_connection: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::new(RecordType::BeginRequest, Some(self.id), 8).to_bytes());
        out.extend_from_slice(&BeginRequest::new(role, keep_connection).to_bytes());
    }

    /// Appends all parameters and the end of their stream to `out` (FastCGI 1.0, 5.2).
    ///
    /// A pair that fits in one record is not split, because some applications cannot read a pair
    /// that spans two records.
    ///
    /// # Errors
    ///
    /// [`Unwritable`] if a name or value is longer than the protocol allows; `out` is then
    /// unchanged.
    pub fn append_params<N, V>(
        &self,
        params: impl IntoIterator<Item = (N, V)>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unwritable>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let start = out.len();
        let mut content = Vec::new();
        for (name, value) in params {
            let (name, value) = (name.as_ref(), value.as_ref());
            if content.len() + pairs::encoded_len(name, value) > MAX_CONTENT {
                self.append_stream(RecordType::Params, &content, out);
                content.clear();
            }
            if let Err(error) = pairs::append(name, value, &mut content) {
                out.truncate(start);
                return Err(error);
            }
        }
        self.append_stream(RecordType::Params, &content, out);
        self.append_end_of(RecordType::Params, out);
        Ok(())
    }

    /// The records for the next `length` bytes of the body; none if `length` is 0.
    pub const fn frames(&self, length: usize) -> Frames {
        Frames::new(RecordType::Stdin, self.id, false, length)
    }

    /// Appends the next `content` of the body to `out`, in as many records as necessary; nothing if
    /// `content` is empty.
    pub fn append_stdin(&self, content: &[u8], out: &mut Vec<u8>) {
        self.append_stream(RecordType::Stdin, content, out);
    }

    /// Appends the record that ends the body to `out`.
    pub fn append_end_of_stdin(&self, out: &mut Vec<u8>) {
        self.append_end_of(RecordType::Stdin, out);
    }

    /// Appends `FCGI_ABORT_REQUEST` to `out` (FastCGI 1.0, 5.4).
    pub fn append_abort(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::new(RecordType::AbortRequest, Some(self.id), 0).to_bytes());
    }

    fn append_stream(&self, record_type: RecordType, content: &[u8], out: &mut Vec<u8>) {
        Frames::new(record_type, self.id, false, content.len()).append(content, out);
    }

    fn append_end_of(&self, record_type: RecordType, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::new(record_type, Some(self.id), 0).to_bytes());
    }
}

impl ClientConnection {
    /// A connection that has received nothing yet.
    pub const fn new() -> Self {
        Self { reader: Reader::new(), current: ResponseContent::Ignored, failed: None }
    }

    /// Consumes bytes from the application up to the next event. Records of unknown types, and
    /// records that only web servers send, are ignored.
    ///
    /// Call this function again with the rest of the input until [`ClientStep::event`] is `None`.
    /// All of the input is consumed then.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the application breaks the protocol. Every later call returns the same
    /// error.
    pub fn receive<'i>(&mut self, input: &'i [u8]) -> Result<ClientStep<'i>, ClientError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = input;
        match self.advance(&mut rest) {
            Ok(event) => Ok(ClientStep { consumed: input.len() - rest.len(), event }),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn advance<'i>(
        &mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<ClientEvent<'i>>, ClientError> {
        loop {
            let event = if self.reader.remaining() == 0 {
                match self.reader.header(input)? {
                    Some(header) => self.open(header)?,
                    None => return Ok(None),
                }
            } else {
                match self.reader.content(input) {
                    [] => return Ok(None),
                    content => self.content(content),
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn open<'i>(&mut self, header: Header) -> Result<Option<ClientEvent<'i>>, ClientError> {
        let Header { record_type, request_id, content_length: length, .. } = header;
        self.current = match (record_type, request_id) {
            (RecordType::Stdout, Some(id)) if length == 0 => {
                return Ok(Some(ClientEvent::StdoutEnd { id }));
            }
            (RecordType::Stderr, Some(id)) if length == 0 => {
                return Ok(Some(ClientEvent::StderrEnd { id }));
            }
            (RecordType::GetValuesResult, None) if length == 0 => {
                return Ok(Some(ClientEvent::Values(Values::default())));
            }
            (RecordType::EndRequest, Some(_)) | (RecordType::UnknownType, None) if length != 8 => {
                return Err(ClientError::Length { record_type, length });
            }
            (RecordType::Stdout, Some(id)) => ResponseContent::Stdout(id),
            (RecordType::Stderr, Some(id)) => ResponseContent::Stderr(id),
            (RecordType::EndRequest, Some(id)) => ResponseContent::End(id),
            (RecordType::GetValuesResult, None) => ResponseContent::Values,
            (RecordType::UnknownType, None) => ResponseContent::UnknownType,
            _ => ResponseContent::Ignored,
        };
        Ok(None)
    }

    fn content<'i>(&mut self, content: &'i [u8]) -> Option<ClientEvent<'i>> {
        match self.current {
            ResponseContent::Ignored => None,
            ResponseContent::Stdout(id) => Some(ClientEvent::Stdout { id, bytes: content }),
            ResponseContent::Stderr(id) => Some(ClientEvent::Stderr { id, bytes: content }),
            ResponseContent::End(id) => {
                // `open` has checked the length of this content and of the next one.
                let body = *self.reader.gather(content)?.first_chunk()?;
                Some(ClientEvent::End { id, result: EndRequest::from_bytes(&body) })
            }
            ResponseContent::Values => {
                Some(ClientEvent::Values(Values::answered(&self.reader.gather(content)?)))
            }
            ResponseContent::UnknownType => {
                let body = *self.reader.gather(content)?.first_chunk()?;
                Some(ClientEvent::UnknownType(UnknownType::from_bytes(&body).record_type))
            }
        }
    }
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(error) => error.fmt(f),
            Self::Length { record_type, length } => {
                write!(f, "`{record_type}` of `{length}` bytes where 8 belong")
            }
        }
    }
}

impl error::Error for ClientError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::UnknownVersion(error) => Some(error),
            Self::Length { .. } => None,
        }
    }
}

impl From<UnknownVersion> for ClientError {
    fn from(error: UnknownVersion) -> Self {
        Self::UnknownVersion(error)
    }
}
