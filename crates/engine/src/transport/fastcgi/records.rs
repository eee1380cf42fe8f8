//! What was received on a connection and not used yet, and the records in it.

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

/// Bytes that are read at a time. A request without a body fits well.
pub(super) const BUFFER_SIZE: usize = 16 * 1024;

/// Received bytes, and the state of the protocol up to them.
pub(crate) struct Records {
    protocol: Protocol,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that the protocol has not taken.
    unread: Range<usize>,
    /// Bytes of `buffer` that belong to the body of the active request.
    content: Range<usize>,
    /// Has the request that is arriving a body?
    has_body: bool,
    /// Since when a request is there in part, by the clock of [`running_clock`].
    partial_since: Option<u64>,
}

/// What the next bytes mean for the active request.
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

    /// The records of another new connection, which has the same buffers.
    pub(super) fn reset(self) -> Self {
        let Self { mut protocol, buffer, .. } = self;
        protocol.reset();
        Self::empty(protocol, buffer)
    }

    fn empty(protocol: Protocol, buffer: Vec<u8>) -> Self {
        Self { protocol, buffer, unread: 0..0, content: 0..0, has_body: false, partial_since: None }
    }

    /// Since when a request is there in part, by the clock of [`running_clock`].
    pub(super) fn partial_since(&self) -> Option<u64> {
        self.partial_since
    }

    /// Bytes of parameters that are kept in memory until their end arrives.
    pub(super) fn held_bytes(&self) -> usize {
        self.protocol.held()
    }

    /// Were bytes received that the protocol has not taken?
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Is no request active, and nothing there of the next one?
    pub(super) fn is_idle(&self) -> bool {
        self.protocol.is_idle() && self.unread.is_empty()
    }

    /// Must the connection be closed, as the last request has asked (FastCGI 1.0, 3.5)?
    pub(super) fn must_close(&self) -> bool {
        self.protocol.must_close()
    }

    /// The active request `id` is over.
    pub(super) fn finish(&mut self, id: RequestId) {
        self.protocol.finish(id);
    }

    /// Takes the buffer of parameters back.
    pub(super) fn reuse(&mut self, params: Params) {
        self.protocol.reuse(params);
    }

    /// Drops what was received.
    pub(super) fn discard(&mut self) {
        self.unread = 0..0;
        self.content = 0..0;
    }

    /// Receives what has arrived, without waiting: the number of bytes, 0 at the end of the
    /// connection, or nothing if nothing has arrived. All received bytes must be used.
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

    /// Reads with a blocking socket's meaning: the number of bytes, 0 at the end of the connection,
    /// or nothing if the caller has to wait first. All received bytes must be used.
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

    /// Notes since when a request is there in part, now that all received bytes are used.
    pub(super) fn note_partial_request(&mut self) {
        self.partial_since = match self.partial_since {
            _ if self.protocol.is_idle() => None,
            None => Some(running_clock::recently()),
            since => since,
        };
    }

    /// Uses the received bytes, up to the parameters of the next request.
    ///
    /// # Errors
    /// If the peer breaks the protocol, or does not read what the protocol says by itself.
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
                // The rest of a body that was not read.
                Some(Event::Stdin { .. } | Event::StdinEnd { .. }) => {}
            }
        }
        self.unread = 0..0;
        Ok(None)
    }

    /// Uses one record of the received bytes, or a part of it, while the request `id` is active.
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

    /// Does the next record begin another request, as far as can be seen?
    pub(super) fn may_begin_request(&self) -> bool {
        // Version and type of the record. Content that looks the same costs no more than an abort
        // that is not seen.
        let next = &self.buffer[self.unread.clone()];
        next.len() < 2 || next.starts_with(&[1, 1])
    }

    /// Content of the body that was received and not taken.
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

    /// Bytes of a record of the body that are still to arrive, if that is known of the next bytes.
    pub(super) fn expected(&self, id: RequestId) -> Option<usize> {
        let expected = self.protocol.expected().filter(|expected| expected.id == id)?;
        Some(expected.remaining)
    }

    /// Reads content of the record of which `expected` bytes are still to arrive straight to
    /// `into`, and what follows the record to the buffer. Returns the number of bytes in `into`, 0
    /// at the end of the connection, or nothing if the caller has to wait first.
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

/// Sends what the protocol says by itself.
fn send_own(socket: &Descriptor, response: fastcgi_server::Response) -> io::Result<()> {
    let mut record = Vec::new();
    response.append_to(&mut record);
    send_at_once(socket, &record)
}
