//! The web server's side of a connection: requests out, responses in (FastCGI 1.0, 3.3, 4, 5).
//!
//! For tools and tests that talk to an application as a web server does. Knows nothing of sockets
//! either.

use std::{error, fmt};

use crate::{
    bodies::{BeginRequest, EndRequest, Role, UnknownType},
    frames::Frames,
    pairs::{self, Unwritable},
    reader::Reader,
    record::{Header, MAX_CONTENT, RecordType, RequestId, UnknownVersion},
    values::Values,
};

/// Makes the records of one request, in this order: begin, parameters, and `FCGI_STDIN` and its end
/// unless the role is authorizer (FastCGI 1.0, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    id: RequestId,
}

/// The state of one connection to an application: bytes of responses in, events out.
///
/// It keeps no account of requests: an event says which one it belongs to, and whether that one was
/// ever sent is for the caller to know.
#[derive(Debug)]
pub struct ClientConnection {
    reader: Reader,
    current: ResponseContent,
    failed: Option<ClientError>,
}

/// What came of one call of [`ClientConnection::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientStep<'i> {
    /// How many bytes of the input are dealt with. What follows them has to be given again.
    pub consumed: usize,
    /// What the bytes meant. `None`: all of the input is consumed, and more is needed before
    /// anything can be said.
    pub event: Option<ClientEvent<'i>>,
}

/// Something that the application said. Contents of streams point into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'i> {
    /// A piece of the response, never empty.
    Stdout {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The response is over.
    StdoutEnd {
        /// The request.
        id: RequestId,
    },
    /// A piece of what the application has for the log, never empty.
    Stderr {
        /// The request.
        id: RequestId,
        /// The piece.
        bytes: &'i [u8],
    },
    /// The messages for the log are over.
    StderrEnd {
        /// The request.
        id: RequestId,
    },
    /// The request is over, and its id is inactive (FastCGI 1.0, 5.5).
    End {
        /// The request.
        id: RequestId,
        /// How it ended.
        result: EndRequest,
    },
    /// The answer to [`Values::append_query`] (FastCGI 1.0, 4.1).
    Values(Values),
    /// The application does not know management records of this type (FastCGI 1.0, 4.2).
    UnknownType(u8),
}

/// The peer does not speak the protocol; nothing that it says can be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// A record of another version of the protocol (FastCGI 1.0, 3.3).
    UnknownVersion(UnknownVersion),
    /// The content of a record of fixed layout is not as long as the specification has it (FastCGI
    /// 1.0, 4.2 and 5.5).
    Length {
        /// The record.
        record_type: RecordType,
        /// Bytes of its content.
        length: u16,
    },
}

/// What the content of the current record is for.
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
    /// The request that is called `id` on its connection.
    pub const fn new(id: RequestId) -> Self {
        Self { id }
    }

    /// Writes `FCGI_BEGIN_REQUEST` behind `out` (FastCGI 1.0, 5.1).
    pub fn append_begin(&self, role: Role, keep_connection: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&Header::new(RecordType::BeginRequest, Some(self.id), 8).to_bytes());
        out.extend_from_slice(&BeginRequest::new(role, keep_connection).to_bytes());
    }

    /// Writes all parameters and the end of their stream behind `out` (FastCGI 1.0, 5.2).
    ///
    /// Pairs stay whole where one record can hold them, since not every application reads one that
    /// straddles two.
    ///
    /// # Errors
    ///
    /// [`Unwritable`] if a name or value is longer than the protocol can say; `out` is then as it
    /// was.
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

    /// The records that the next `length` bytes of the body take; none if there are no bytes.
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

    /// Writes `FCGI_ABORT_REQUEST` behind `out` (FastCGI 1.0, 5.4).
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
    /// A connection over which nothing has come yet.
    pub const fn new() -> Self {
        Self { reader: Reader::new(), current: ResponseContent::Ignored, failed: None }
    }

    /// Takes bytes from the application, up to the first of them that mean something. Records of
    /// types that are not known, and those that only web servers send, are ignored.
    ///
    /// Call it again with the rest of the input until [`ClientStep::event`] is `None`; all is
    /// consumed then.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the application breaks the protocol. Every later call fails in the same
    /// way.
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
                // As long as `open` has seen to, and so below.
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
