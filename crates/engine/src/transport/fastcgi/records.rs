//! The received bytes of a connection that were not processed yet, and the records in them.

use std::{io, mem, ops::Range};

use fastcgi_server::{
    Connection as Protocol, Event, Limits, Output, Params, RequestId, bodies::ProtocolStatus,
};
use rustix::{
    io::{Errno, read, readv},
    net::{RecvFlags, recv},
};
use wire::running_clock;

use crate::{
    process::forks::Descriptor,
    transport::fastcgi::{
        request::FastCgiRequest,
        socket::send_at_once,
        violations::{refuse_params, violation},
    },
};

/// Maximum size of one read in bytes. A request without a body fits easily.
pub(super) const BUFFER_SIZE: usize = 16 * 1024;

/// Received bytes, and the state of the protocol up to them.
pub(crate) struct Records {
    protocol: Protocol,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that the protocol has not consumed.
    unread: Range<usize>,
    /// Bytes of `buffer` that belong to the body of the active request.
    content: Range<usize>,
    /// Does the arriving request have a body?
    has_body: bool,
    /// When the first bytes of an incomplete request arrived, by the clock of [`running_clock`].
    partial_since: Option<u64>,
}

/// The meaning of the next bytes for the active request.
pub(super) enum BodyEvent {
    /// Content of the body, which [`Records::content`] returns.
    Content,
    /// The end of the body.
    End,
    /// The web server has aborted the request.
    Abort,
    /// Nothing.
    Other,
}

impl Records {
    /// The records of a new connection.
    pub(super) fn new(limits: Limits) -> Self {
        Self::empty(Protocol::new(limits), vec![0; BUFFER_SIZE])
    }

    /// Resets the state for a new connection, and keeps the buffers.
    pub(super) fn reset(self) -> Self {
        let Self { mut protocol, buffer, .. } = self;
        protocol.reset();
        Self::empty(protocol, buffer)
    }

    fn empty(protocol: Protocol, buffer: Vec<u8>) -> Self {
        Self { protocol, buffer, unread: 0..0, content: 0..0, has_body: false, partial_since: None }
    }

    /// When the first bytes of an incomplete request arrived, by the clock of [`running_clock`].
    pub(super) fn partial_since(&self) -> Option<u64> {
        self.partial_since
    }

    /// Bytes of incomplete parameters in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.protocol.held()
    }

    /// Are received bytes left that the protocol has not consumed?
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Is no request active, and has no byte of the next one arrived?
    pub(super) fn is_idle(&self) -> bool {
        self.protocol.is_idle() && self.unread.is_empty()
    }

    /// Must the connection be closed, because the last request had no FCGI_KEEP_CONN (FastCGI 1.0,
    /// 3.5)?
    pub(super) fn must_close(&self) -> bool {
        self.protocol.must_close()
    }

    /// Ends the active request `id`.
    pub(super) fn finish(&mut self, id: RequestId) {
        self.protocol.finish(id);
    }

    /// Keeps the buffer of unused parameters.
    pub(super) fn reuse(&mut self, params: Params) {
        self.protocol.reuse(params);
    }

    /// Drops the received bytes.
    pub(super) fn discard(&mut self) {
        self.unread = 0..0;
        self.content = 0..0;
    }

    /// Receives bytes without waiting. Returns their number, 0 at the end of the connection, or
    /// `None` if no bytes have arrived. All previous bytes must have been processed.
    pub(super) fn receive(&mut self, socket: &Descriptor) -> io::Result<Option<usize>> {
        match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, count)) => {
                self.unread = 0..count;
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives bytes. Returns their number, 0 at the end of the connection, or `None` if the
    /// caller has to wait first. All previous bytes must have been processed.
    ///
    /// # Errors
    /// `Interrupted` if a signal came first.
    pub(super) fn read(&mut self, socket: &Descriptor) -> io::Result<Option<usize>> {
        match read(socket, &mut self.buffer[..]) {
            Ok(count) => {
                self.unread = 0..count;
                Ok(Some(count))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Records when an incomplete request began, after all received bytes were processed.
    pub(super) fn note_partial_request(&mut self) {
        self.partial_since = match self.partial_since {
            _ if self.protocol.is_idle() => None,
            None => Some(running_clock::recently()),
            since => since,
        };
    }

    /// Processes the received bytes up to the parameters of the next request.
    ///
    /// # Errors
    /// If the peer breaks the protocol, or does not read records of the protocol itself.
    pub(super) fn next_request(
        &mut self,
        socket: &Descriptor,
    ) -> io::Result<Option<FastCgiRequest>> {
        while !self.unread.is_empty() {
            let step =
                self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(violation)?;
            self.unread.start += step.consumed;
            match step.event {
                None => break,
                Some(Event::Begin { role, .. }) => self.has_body = role.has_stdin(),
                Some(Event::Params { id, params }) => {
                    self.partial_since = None;
                    return Ok(Some(FastCgiRequest::new(id, params, self.has_body)));
                }
                Some(Event::BadParams { id, error }) => {
                    send_at_once(socket, &refuse_params(id, &error))?;
                    self.protocol.finish(id);
                    self.partial_since = None;
                }
                Some(Event::Abort { id }) => {
                    let end = Output::new(id).end_request(0, ProtocolStatus::RequestComplete);
                    send_at_once(socket, &end)?;
                    self.protocol.finish(id);
                    self.partial_since = None;
                }
                Some(Event::Response(response)) => send_own(socket, response)?,
                // The unread rest of a body.
                Some(Event::Stdin { .. } | Event::StdinEnd { .. }) => {}
            }
        }
        self.unread = 0..0;
        Ok(None)
    }

    /// Processes one record of the received bytes, or a part of it, while the request `id` is
    /// active.
    ///
    /// # Errors
    /// As [`Records::next_request`].
    pub(super) fn body_event(
        &mut self,
        socket: &Descriptor,
        id: RequestId,
    ) -> io::Result<BodyEvent> {
        let step = self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(violation)?;
        self.unread.start += step.consumed;
        match step.event {
            Some(Event::Stdin { id: of, bytes }) if of == id => {
                self.content = self.unread.start - bytes.len()..self.unread.start;
                return Ok(BodyEvent::Content);
            }
            Some(Event::StdinEnd { id: of, .. }) if of == id => return Ok(BodyEvent::End),
            Some(Event::Abort { id: of }) if of == id => return Ok(BodyEvent::Abort),
            Some(Event::Response(response)) => send_own(socket, response)?,
            Some(_) => {}
            None => self.unread = 0..0,
        }
        Ok(BodyEvent::Other)
    }

    /// Does the next record seem to begin another request?
    pub(super) fn may_begin_request(&self) -> bool {
        // Version and type of the record. If content looks the same, the only cost is an unnoticed
        // abort.
        let next = &self.buffer[self.unread.clone()];
        next.len() < 2 || next.starts_with(&[1, 1])
    }

    /// Received content of the body that was not taken.
    pub(super) fn content(&self) -> &[u8] {
        &self.buffer[self.content.clone()]
    }

    /// Takes all of the content.
    pub(super) fn take_content(&mut self) -> &[u8] {
        &self.buffer[mem::take(&mut self.content)]
    }

    /// Takes the first bytes of the content, as many as `into` holds.
    pub(super) fn take_content_into(&mut self, into: &mut [u8]) -> usize {
        let count = into.len().min(self.content.len());
        into[..count].copy_from_slice(&self.buffer[self.content.start..][..count]);
        self.content.start += count;
        count
    }

    /// Bytes of the current body record that have not arrived, if such a record is next.
    pub(super) fn expected(&self, id: RequestId) -> Option<usize> {
        let expected = self.protocol.expected().filter(|expected| expected.id == id)?;
        Some(expected.remaining)
    }

    /// Reads the `expected` remaining bytes of the record directly into `into`, and later bytes
    /// into the buffer. Returns the number of bytes in `into`, 0 at the end of the connection, or
    /// `None` if the caller has to wait first.
    ///
    /// # Errors
    /// `Interrupted` if a signal came first.
    pub(super) fn read_content(
        &mut self,
        socket: &Descriptor,
        expected: usize,
        into: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let wanted = into.len().min(expected);
        let rest = if wanted == expected { &mut self.buffer[..] } else { &mut [] };
        let mut slices = [io::IoSliceMut::new(&mut into[..wanted]), io::IoSliceMut::new(rest)];
        let count = match readv(socket, &mut slices) {
            Err(Errno::AGAIN) => return Ok(None),
            count => count?,
        };
        let content = count.min(wanted);
        self.protocol.took(content);
        self.unread = 0..count - content;
        Ok(Some(content))
    }
}

/// Sends a record of the protocol itself.
fn send_own(socket: &Descriptor, response: fastcgi_server::Response) -> io::Result<()> {
    let mut record = Vec::new();
    response.append_to(&mut record);
    send_at_once(socket, &record)
}
