//! The application's side of a connection, which turns bytes into events (FastCGI 1.0, 3.3, 4, 5
//! and 6).
//!
//! This module does no I/O. Records that the protocol requires are events, and `output` makes
//! responses. Where the specification is silent, this module decides:
//!
//! - A stream that begins too early is an error, because its bytes would be lost or misread. A
//!   stream that comes too late (after its own end, or for a role without this stream) is ignored.
//! - `FCGI_BEGIN_REQUEST` for an active id is an error: `FCGI_END_REQUEST` could not tell which of
//!   the two requests ends.
//! - Application records of unknown types, and of types that only applications send, are ignored. A
//!   management record with a type for requests counts as unknown.

use std::mem;

use crate::{
    bodies::{BeginRequest, ProtocolStatus},
    events::{Error, Event, Expected, Response, Step},
    limits::Limits,
    params::Params,
    reader::Reader,
    record::{Header, RecordType, RequestId},
    request::{ActiveRequest, Phase},
};

/// Maximum size of a buffer that is kept for the parameters of the next request, in bytes.
const KEPT: usize = 1 << 16;

/// The state of one connection from a web server.
///
/// Pass received bytes to [`Connection::receive`] until it returns no event. Send the record of
/// each [`Event::Response`]. Call [`Connection::finish`] after sending `FCGI_END_REQUEST`.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    reader: Reader,
    current: Current,
    requests: Vec<ActiveRequest>,
    /// An empty buffer for the parameters of the next request.
    spare: Vec<u8>,
    /// A request without `FCGI_KEEP_CONN` has ended.
    closing: bool,
    failed: Option<Error>,
}

/// The use of the current record's content.
#[derive(Clone, Copy, Debug)]
enum Current {
    Ignored,
    Begin(RequestId),
    GetValues,
    Params(RequestId),
    Body(RequestId),
}

impl Connection {
    /// A connection that has received nothing yet. Creating a connection allocates no memory.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            reader: Reader::new(),
            current: Current::Ignored,
            requests: Vec::new(),
            spare: Vec::new(),
            closing: false,
            failed: None,
        }
    }

    /// Resets the state to that of a new connection with the same limits, and keeps the buffers.
    pub fn reset(&mut self) {
        let requests = mem::take(&mut self.requests);
        let spare = mem::take(&mut self.spare);
        *self = Self { requests, spare, ..Self::new(self.limits) };
        self.requests.clear();
    }

    /// Consumes bytes from the peer up to the next event.
    ///
    /// Call this function again with the rest of the input until [`Step::event`] is `None`. All of
    /// the input is consumed then, and the caller need not keep it. The division of bytes among
    /// calls changes only the pieces of a stream's content.
    ///
    /// # Errors
    ///
    /// [`Error`] if the peer breaks the protocol. Every later call returns the same error.
    #[inline]
    pub fn receive<'i>(&mut self, input: &'i [u8]) -> Result<Step<'i>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut rest = input;
        match self.advance(&mut rest) {
            Ok(event) => Ok(Step { consumed: input.len() - rest.len(), event }),
            Err(error) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    /// The rest of the current record's content, if the record is an `FCGI_STDIN` record that has
    /// arrived in part.
    ///
    /// An application that has passed all of its input to [`Connection::receive`] may read up to
    /// this many bytes from the socket into its own buffer. The application then calls
    /// [`Connection::took`].
    pub fn expected(&self) -> Option<Expected> {
        let remaining = self.reader.remaining();
        match self.current {
            Current::Body(id) if remaining > 0 => Some(Expected { id, remaining }),
            _ => None,
        }
    }

    /// Counts `length` bytes of the content that [`Connection::expected`] announces as received,
    /// without an event.
    ///
    /// # Panics
    ///
    /// If `length` is more than `expected` announces.
    pub fn took(&mut self, length: usize) {
        let Some(expected) = self.expected() else {
            assert!(length == 0, "`{length}` bytes taken where none are expected");
            return;
        };
        assert!(
            length <= expected.remaining,
            "`{length}` bytes taken where `{}` are expected",
            expected.remaining
        );
        self.reader.took(length);
        self.count(expected.id, length);
    }

    /// Makes `id` inactive after `FCGI_END_REQUEST` has been sent: later records of the request are
    /// ignored (FastCGI 1.0, 3.3). An inactive id changes nothing.
    pub fn finish(&mut self, id: RequestId) {
        let Some(position) = self.requests.iter().position(|request| request.id == id) else {
            return;
        };
        let request = self.requests.swap_remove(position);
        self.closing |= !request.keep_connection;
        self.keep_buffer(request.params);
        if let Current::Params(current) | Current::Body(current) = self.current
            && current == id
        {
            self.current = Current::Ignored;
        }
    }

    /// Refuses a request after [`Event::Begin`], and makes its id inactive. Send the returned
    /// response. `status` is [`ProtocolStatus::Overloaded`], or [`ProtocolStatus::UnknownRole`] for
    /// a role that the application does not support (FastCGI 1.0, 5.5).
    #[must_use]
    pub fn refuse(&mut self, id: RequestId, status: ProtocolStatus) -> Response {
        self.finish(id);
        Response::Refused { id, status }
    }

    /// Keeps the buffer of unused parameters for the next request.
    pub fn reuse(&mut self, params: Params) {
        self.keep_buffer(params.into_buffer());
    }

    /// Must the connection be closed now? A request without `FCGI_KEEP_CONN` has ended, and no
    /// other request is active (FastCGI 1.0, 3.5 and 5.1).
    pub fn must_close(&self) -> bool {
        self.closing && self.requests.is_empty()
    }

    /// The active ids. If the peer closes the connection, these requests are aborted (FastCGI 1.0,
    /// 5.4).
    pub fn active(&self) -> impl ExactSizeIterator<Item = RequestId> {
        self.requests.iter().map(|request| request.id)
    }

    /// Is `id` active?
    pub fn is_active(&self, id: RequestId) -> bool {
        self.requests.iter().any(|request| request.id == id)
    }

    /// Can either side close the connection without losing data? No request is active, and no
    /// record has arrived in part.
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.reader.is_between_records()
    }

    /// Size of the buffers for incomplete parameters and queries in bytes.
    pub fn held(&self) -> usize {
        let params = self.requests.iter().map(|request| request.params.capacity());
        params.sum::<usize>() + self.reader.gathered()
    }

    fn advance<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Event<'i>>, Error> {
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

    /// Handles the header of a record; `Some` if the header alone is an event.
    fn open<'i>(&mut self, header: Header) -> Result<Option<Event<'i>>, Error> {
        self.current = Current::Ignored;
        let Some(id) = header.request_id else { return Ok(self.open_management(header)) };
        match header.record_type {
            RecordType::Params => Ok(self.open_params(id, header)),
            RecordType::Stdin => self.open_body(id, header),
            RecordType::BeginRequest if self.is_active(id) => Err(Error::AlreadyActive { id }),
            RecordType::BeginRequest if usize::from(header.content_length) != BeginRequest::LEN => {
                Err(Error::BeginLength { id, length: header.content_length })
            }
            RecordType::BeginRequest => {
                self.current = Current::Begin(id);
                Ok(None)
            }
            RecordType::AbortRequest => Ok(self.abort(id)),
            // Only applications send these, no role has the stream, or this version does not know
            // the type.
            RecordType::Data
            | RecordType::EndRequest
            | RecordType::Stdout
            | RecordType::Stderr
            | RecordType::GetValues
            | RecordType::GetValuesResult
            | RecordType::UnknownType
            | RecordType::Other(_) => Ok(None),
        }
    }

    fn open_management<'i>(&mut self, header: Header) -> Option<Event<'i>> {
        match header.record_type {
            RecordType::GetValues if header.content_length == 0 => {
                Some(Event::Response(Response::Values(self.limits.values().requested(&[]))))
            }
            RecordType::GetValues => {
                self.current = Current::GetValues;
                None
            }
            // Responses without a query are ignored. If each got a response, two connected
            // applications would exchange records forever.
            RecordType::GetValuesResult | RecordType::UnknownType => None,
            unknown => Some(Event::Response(Response::UnknownType(unknown.to_byte()))),
        }
    }

    fn open_params<'i>(&mut self, id: RequestId, header: Header) -> Option<Event<'i>> {
        let request = self.requests.iter_mut().find(|request| request.id == id)?;
        match request.phase {
            Phase::Params | Phase::Overlong if header.content_length == 0 => {
                Some(request.end_params(self.limits))
            }
            Phase::Params => {
                self.current = Current::Params(id);
                None
            }
            Phase::Overlong | Phase::Body | Phase::Over => None,
        }
    }

    fn open_body<'i>(&mut self, id: RequestId, header: Header) -> Result<Option<Event<'i>>, Error> {
        let Some(request) =
            self.requests.iter_mut().find(|request| request.id == id && request.role.has_stdin())
        else {
            return Ok(None);
        };
        match request.phase {
            Phase::Params | Phase::Overlong => {
                Err(Error::OutOfOrder { id, record_type: header.record_type })
            }
            Phase::Over => Ok(None),
            Phase::Body if header.content_length == 0 => Ok(Some(request.end_body())),
            Phase::Body => {
                self.current = Current::Body(id);
                Ok(None)
            }
        }
    }

    fn abort<'i>(&mut self, id: RequestId) -> Option<Event<'i>> {
        let request =
            self.requests.iter_mut().find(|request| request.id == id && !request.aborted)?;
        request.aborted = true;
        request.phase = Phase::Over;
        let params = mem::take(&mut request.params);
        self.keep_buffer(params);
        Some(Event::Abort { id })
    }

    /// Takes a piece of the current record's content.
    fn content<'i>(&mut self, content: &'i [u8]) -> Option<Event<'i>> {
        match self.current {
            Current::Ignored => None,
            Current::Params(id) => {
                self.add_params(id, content);
                None
            }
            Current::Body(id) => {
                self.count(id, content.len());
                Some(Event::Stdin { id, bytes: content })
            }
            Current::Begin(id) => {
                if let Ok(body) = content.try_into() {
                    return Some(self.begin(id, BeginRequest::from_bytes(body)));
                }
                let body = self.reader.gather(content)?;
                // `open` has checked the length.
                let body = body.as_slice().try_into().ok()?;
                Some(self.begin(id, BeginRequest::from_bytes(body)))
            }
            Current::GetValues => {
                let query = self.reader.gather(content)?;
                Some(Event::Response(Response::Values(self.limits.values().requested(&query))))
            }
        }
    }

    fn begin<'i>(&mut self, id: RequestId, body: BeginRequest) -> Event<'i> {
        let keep_connection = body.flags.keep_connection();
        let status = match body.role() {
            Some(role) if self.requests.len() < self.limits.active_requests.max(1) => {
                let params = mem::take(&mut self.spare);
                self.requests.push(ActiveRequest::new(id, role, keep_connection, params));
                return Event::Begin { id, role, keep_connection };
            }
            Some(_) if self.limits.multiplex() => ProtocolStatus::Overloaded,
            Some(_) => ProtocolStatus::CantMpxConn,
            None => ProtocolStatus::UnknownRole,
        };
        self.closing |= !keep_connection;
        Event::Response(Response::Refused { id, status })
    }

    fn add_params(&mut self, id: RequestId, content: &[u8]) {
        let Some(request) = self.requests.iter_mut().find(|request| request.id == id) else {
            return;
        };
        if content.len() <= self.limits.params_bytes - request.params.len() {
            request.params.extend_from_slice(content);
        } else {
            request.phase = Phase::Overlong;
            self.current = Current::Ignored;
            let params = mem::take(&mut request.params);
            self.keep_buffer(params);
        }
    }

    fn count(&mut self, id: RequestId, length: usize) {
        if let Some(request) = self.requests.iter_mut().find(|request| request.id == id) {
            request.length += length as u64;
        }
    }

    /// Keeps a buffer for the next request, unless the spare buffer is larger or this one is above
    /// the limit.
    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEPT && buffer.capacity() > self.spare.capacity() {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f52_parameters_above_the_limit_are_not_kept_even_within_their_record() {
        let mut connection = Connection::new(Limits { params_bytes: 4, ..Limits::default() });
        connection.receive(b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0").unwrap();
        for piece in [&b"\x01\x04\0\x01\0\x0b\0\0"[..], b"abc", b"def", b"ghi", b"j"] {
            connection.receive(piece).unwrap();
        }
        assert_eq!(connection.requests[0].phase, Phase::Overlong);
        assert_eq!(connection.requests[0].params, b"");
    }

    #[test]
    fn f52_a_large_buffer_is_not_kept_for_the_next_request() {
        let mut connection = Connection::new(Limits::default());
        connection.keep_buffer(Vec::with_capacity(KEPT + 1));
        assert_eq!(connection.spare.capacity(), 0);
        connection.keep_buffer(Vec::with_capacity(KEPT));
        assert_eq!(connection.spare.capacity(), KEPT);
    }
}
