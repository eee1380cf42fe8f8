//! The request that is being served, and the progress of its body.

use std::{io, time::Duration};

use fastcgi_server::RequestId;
use rustix::event::PollFlags;

use crate::{
    process::forks::Descriptor,
    transport::{
        body_count::BodyCount,
        fastcgi::{
            records::{BUFFER_SIZE, BodyEvent, Records},
            request::FastCgiRequest,
            socket::wait_for_socket,
        },
        spool::Spool,
    },
    wsgi::{BodyLength, Interruptible},
};

/// Minimum size of a read that bypasses the buffer, in bytes.
const MIN_DIRECT_READ: usize = 4096;

/// A request that is being served.
pub(super) struct ActiveRequest {
    id: RequestId,
    count: BodyCount,
    has_ended: bool,
    is_aborted: bool,
    /// The body is longer than CONTENT_LENGTH.
    has_surplus: bool,
    /// The part of the body that was read before the application asked for it.
    spool: Spool,
    interruptible: Interruptible,
}

impl ActiveRequest {
    /// Begins `request`, whose body has the length `length`.
    pub(super) fn new(
        request: &FastCgiRequest,
        length: BodyLength,
        interruptible: Interruptible,
    ) -> Self {
        // An authorizer never has a body, even with CONTENT_LENGTH (FastCGI 1.0, 6.3).
        let length = if request.has_body() { length } else { BodyLength::UntilEnd };
        Self {
            id: request.id(),
            count: BodyCount::new(length),
            has_ended: !request.has_body(),
            is_aborted: false,
            has_surplus: false,
            spool: Spool::default(),
            interruptible,
        }
    }

    pub(super) fn id(&self) -> RequestId {
        self.id
    }

    pub(super) fn interruptible(&self) -> &Interruptible {
        &self.interruptible
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted
    }

    /// Has the end of the body arrived?
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Is the body longer than CONTENT_LENGTH?
    pub(super) fn has_surplus(&self) -> bool {
        self.has_surplus
    }

    /// Length of the whole body in bytes, if known.
    pub(super) fn length(&mut self, records: &mut Records, socket: &Descriptor) -> Option<u64> {
        // For a request without a body, the end of the stream often arrives with the parameters.
        let announced = self.count.announced();
        announced.or_else(|| self.is_empty(records, socket).then_some(0))
    }

    /// Do the received bytes end an empty body? Call this before reading the body.
    fn is_empty(&mut self, records: &mut Records, socket: &Descriptor) -> bool {
        // The next read returns the same error.
        let _ = self.may_continue(records, socket);
        records.content().is_empty() && self.spool.is_empty() && self.has_ended && !self.is_aborted
    }

    /// May more of the body arrive? Processes the received bytes up to the end of the body.
    ///
    /// # Errors
    /// If the peer breaks the protocol.
    pub(super) fn may_continue(
        &mut self,
        records: &mut Records,
        socket: &Descriptor,
    ) -> io::Result<bool> {
        while self.is_open() && records.content().is_empty() && records.has_unread() {
            self.step(records, socket)?;
        }
        Ok(self.is_open())
    }

    /// Reads a part of the body. `limit` is the timeout of one wait.
    ///
    /// # Errors
    /// `UnexpectedEof` if the body is shorter than announced, `TimedOut` at the limit or the
    /// deadline of the request, `Interrupted` if a signal came first.
    pub(super) fn read(
        &mut self,
        records: &mut Records,
        socket: &Descriptor,
        limit: Option<Duration>,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let spooled = self.spool.pop(into)?;
        if spooled > 0 {
            return Ok(spooled);
        }
        loop {
            let allowed = self.count.allowed(into.len());
            if allowed == 0 {
                return Ok(0);
            }
            if !records.content().is_empty() {
                let count = records.take_content_into(&mut into[..allowed]);
                self.count.add(count);
                return Ok(count);
            }
            if !self.is_open() {
                return self.end();
            }
            if records.has_unread() {
                self.step(records, socket)?;
                continue;
            }
            let expected = records.expected(self.id);
            match expected.filter(|&expected| allowed.min(expected) >= MIN_DIRECT_READ) {
                Some(expected) => {
                    match records.read_content(socket, expected, &mut into[..allowed])? {
                        Some(0) => self.is_aborted = true,
                        Some(count) => {
                            self.count.add(count);
                            return Ok(count);
                        }
                        None => self.wait(socket, limit)?,
                    }
                }
                None => match records.read(socket)? {
                    Some(0) => self.is_aborted = true,
                    Some(_) => {}
                    None => self.wait(socket, limit)?,
                },
            }
        }
    }

    fn wait(&self, socket: &Descriptor, limit: Option<Duration>) -> io::Result<()> {
        wait_for_socket(socket, PollFlags::IN, Some(&self.interruptible), limit).map(drop)
    }

    /// Checks for an abort, without waiting. The part of the body before the abort is spooled if it
    /// fits into memory, or with `may_spool`.
    ///
    /// # Errors
    /// If the request is aborted, or the web server has closed the connection.
    pub(super) fn check_abort(
        &mut self,
        records: &mut Records,
        socket: &Descriptor,
        may_spool: bool,
    ) -> io::Result<()> {
        if !self.has_ended && (may_spool || self.spool.has_room(BUFFER_SIZE)) {
            self.spool_available(records, socket)?;
        } else {
            if !records.has_unread()
                && records.content().is_empty()
                && records.receive(socket)? == Some(0)
            {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // A following request is processed after this one.
            while records.has_unread()
                && records.content().is_empty()
                && !self.is_aborted
                && !(self.has_ended && records.may_begin_request())
            {
                self.step(records, socket)?;
            }
        }
        if self.is_aborted { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Spools the part of the body that has arrived, without waiting.
    ///
    /// # Errors
    /// If the peer breaks the protocol, or the spool cannot be written.
    pub(super) fn spool_available(
        &mut self,
        records: &mut Records,
        socket: &Descriptor,
    ) -> io::Result<()> {
        if !records.has_unread()
            && records.content().is_empty()
            && records.receive(socket)? == Some(0)
        {
            self.is_aborted = true;
        }
        loop {
            self.spool_content(records)?;
            if !records.has_unread() || self.has_ended {
                return Ok(());
            }
            self.step(records, socket)?;
        }
    }

    fn spool_content(&mut self, records: &mut Records) -> io::Result<()> {
        let content = records.take_content();
        let count = self.count.allowed(content.len());
        self.has_surplus |= count < content.len();
        self.spool.push(&content[..count])?;
        self.count.add(count);
        Ok(())
    }

    /// Drops the received part of the body after the end of the response.
    pub(super) fn discard_received(&mut self, records: &mut Records, socket: &Descriptor) {
        self.spool = Spool::default();
        // The rest of an incomplete record is surplus, too.
        let has_rest = records.expected(self.id).is_some() || !records.content().is_empty();
        self.has_surplus |= self.count.is_complete() && has_rest;
        // The end of the body often arrives with its last bytes.
        records.take_content();
        while records.has_unread() && !self.has_ended {
            if self.step(records, socket).is_err() {
                break;
            }
        }
        records.take_content();
    }

    /// Processes one record of the received bytes, or a part of it.
    fn step(&mut self, records: &mut Records, socket: &Descriptor) -> io::Result<()> {
        match records.body_event(socket, self.id)? {
            BodyEvent::Content => self.has_surplus |= self.count.is_complete(),
            BodyEvent::End => self.has_ended = true,
            BodyEvent::Abort => self.is_aborted = true,
            BodyEvent::Other => {}
        }
        Ok(())
    }

    /// May more of the body arrive?
    fn is_open(&self) -> bool {
        !self.has_ended && !self.is_aborted
    }

    /// The result of a read at the end of the body: an error if the body is too short.
    fn end(&self) -> io::Result<usize> {
        let is_whole = self.has_ended && self.count.announced().is_none();
        if is_whole { Ok(0) } else { Err(self.count.ended_early()) }
    }
}
