//! What has come on a connection and is not dealt with yet.

use std::{io, ops::Range, os::fd::AsFd as _, time::Duration};

use diagnostics::{
    error_page::{Page, ResponseFormat, Status},
    message::{Code, LogMessage},
    request_id,
};
use fastcgi_server::{
    Connection, Event, Limits, Output, ParamsError, RequestId, Response as OwnResponse, Stream,
    bodies::ProtocolStatus,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read, readv},
    net::{RecvFlags, SendFlags, recv, send},
};
use wire::running_clock;

use crate::{
    log::{Log, rate_limit::Kind},
    process::forks::Descriptor,
    transport::{
        fastcgi::{FastCgiRequest, Progress, lingering_close::LingeringClose},
        spool::Spool,
    },
    wsgi::Interruptible,
};

/// Bytes that are read at a time. A request without a body fits well.
const BUFFER: usize = 16 * 1024;

/// Reads of a body that ask for this much or more go past the buffer.
const DIRECT: usize = 4096;

/// What has come.
pub(super) struct Incoming {
    pub(super) protocol: Connection,
    pub(super) buffer: Vec<u8>,
    pub(super) unread: Range<usize>,
    /// FastCgiBody content at the front of the buffer that the application has not taken.
    pub(super) content: Range<usize>,
    /// FastCgiBody content that came before that, while a response could not be sent.
    pub(super) spool: Spool,
    /// The request that is coming has no body.
    pub(super) bodiless: bool,
    /// A request was served.
    pub(super) has_served: bool,
    /// The body of the request that was served last has come to its end.
    pub(super) has_come_whole: bool,
    /// Something has come at all.
    pub(super) heard: bool,
    /// The request that is served, and what is known of its body.
    pub(super) current: Option<Current>,
    /// By when the request that was begun last has to be over.
    pub(super) interruptible: Option<Interruptible>,
    /// How long one wait for the web server may take within a request.
    pub(super) socket_timeout: Option<Duration>,
    /// Since when there is a part of a request, by the clock of [`running_clock`].
    pub(super) begun: Option<u64>,
    /// The connection is only drained before it is closed.
    pub(super) lingering: Option<LingeringClose>,
}

/// The request that is served, and its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) id: RequestId,
    /// Bytes of the body still to come, if that is known.
    pub(super) left: Option<u64>,
    pub(super) announced: u64,
    pub(super) received: u64,
    pub(super) stream_over: bool,
    pub(super) aborted: bool,
    /// The response was cut, and a record may follow what was sent of it.
    pub(super) is_between_records: bool,
    /// More has come than CONTENT_LENGTH says.
    pub(super) has_surplus: bool,
}

impl Incoming {
    /// Nothing has come.
    pub(super) fn new(limits: Limits) -> Self {
        Self::over(Connection::new(limits), vec![0; BUFFER])
    }

    /// Nothing has come on this other connection, which uses the same buffers.
    pub(super) fn reset(self) -> Self {
        let Self { mut protocol, buffer, .. } = self;
        protocol.reset();
        Self::over(protocol, buffer)
    }

    fn over(protocol: Connection, buffer: Vec<u8>) -> Self {
        Self {
            protocol,
            buffer,
            unread: 0..0,
            content: 0..0,
            spool: Spool::default(),
            bodiless: false,
            has_served: false,
            has_come_whole: false,
            heard: false,
            current: None,
            interruptible: None,
            socket_timeout: None,
            begun: None,
            lingering: None,
        }
    }

    /// Nothing more is there. Takes note of when a request was begun whose rest has not come.
    pub(super) fn wait(&mut self) -> Progress {
        self.begun = match self.begun {
            _ if self.protocol.is_idle() => None,
            None => Some(running_clock::recently()),
            begun => begun,
        };
        Progress::Wait
    }

    /// Deals with what is buffered, up to the parameters of the next request.
    pub(super) fn next_request(
        &mut self,
        socket: &Descriptor,
    ) -> io::Result<Option<FastCgiRequest>> {
        while !self.unread.is_empty() {
            let step = self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(broken)?;
            self.unread.start += step.consumed;
            match step.event {
                None => break,
                Some(Event::Params { id, params }) => {
                    return Ok(Some(FastCgiRequest { id, params }));
                }
                Some(Event::BadParams { id, error }) => {
                    let log = Log::new(&request_id::new(), "(unreadable)");
                    kind_of_params(&error).entry(&log, || {
                        LogMessage::error(
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
                    let output = Output::new(id);
                    let mut response = Vec::new();
                    output.append(Stream::Stdout, &page.render(Form::Cgi), &mut response);
                    response.extend_from_slice(&output.ending(0, false));
                    send_at_once(socket, &response)?;
                    self.protocol.finish(id);
                    self.begun = None;
                }
                Some(Event::Abort { id }) => {
                    send_at_once(
                        socket,
                        &Output::new(id).end_request(0, ProtocolStatus::RequestComplete),
                    )?;
                    self.protocol.finish(id);
                    self.begun = None;
                }
                Some(Event::Response(response)) => send_own(socket, response)?,
                Some(Event::Begin { role, .. }) => self.bodiless = !role.has_stdin(),
                // Of a body that was not read the end is left.
                Some(Event::Stdin { .. } | Event::StdinEnd { .. }) => {}
            }
        }
        Ok(None)
    }

    /// Deals with one record of what is buffered, while the request `current` is served.
    pub(super) fn body_step(
        &mut self,
        socket: &Descriptor,
        current: &mut Current,
    ) -> io::Result<()> {
        let step = self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(broken)?;
        self.unread.start += step.consumed;
        match step.event {
            Some(Event::Stdin { id, bytes }) if id == current.id => {
                current.has_surplus |= current.left == Some(0);
                self.content = self.unread.start - bytes.len()..self.unread.start;
            }
            Some(Event::StdinEnd { id, .. }) if id == current.id => current.stream_over = true,
            Some(Event::Abort { id }) if id == current.id => current.aborted = true,
            Some(Event::Response(response)) => send_own(socket, response)?,
            Some(_) => {}
            None => self.unread = 0..0,
        }
        Ok(())
    }

    /// Looks for an abort, without waiting. What of the body is in the way is put spool, as long as
    /// that is little or may be more.
    pub(super) fn look(
        &mut self,
        socket: &Descriptor,
        current: &mut Current,
        may_put_aside: bool,
    ) -> io::Result<()> {
        if (may_put_aside || self.spool.has_room(BUFFER)) && !current.stream_over {
            self.spool_body_of(socket, current)?;
            return if current.aborted {
                Err(io::ErrorKind::ConnectionAborted.into())
            } else {
                Ok(())
            };
        }
        if self.unread.is_empty() && self.content.is_empty() {
            match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok((_, count)) => self.unread = 0..count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        while !self.unread.is_empty()
            && self.content.is_empty()
            && !current.aborted
            && !self.another_begins(current)
        {
            self.body_step(socket, current)?;
        }
        if current.aborted { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Does another request stand behind the one that is served? Its turn comes when that one is
    /// over.
    fn another_begins(&self, current: &Current) -> bool {
        // Version and type of the next record. Bytes that only look like those cost no more than an
        // abort that is not seen.
        let next = &self.buffer[self.unread.clone()];
        current.stream_over && (next.len() < 2 || next.starts_with(&[1, 1]))
    }

    /// Waits for more of the connection. Nothing may be buffered.
    pub(super) fn wait_for_more(&mut self, socket: &Descriptor) -> io::Result<()> {
        loop {
            match read(socket, &mut self.buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.unread = 0..count;
                    return Ok(());
                }
                Err(Errno::AGAIN) => drop(self.await_socket(socket, PollFlags::IN)?),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn await_socket(&self, socket: &Descriptor, events: PollFlags) -> io::Result<PollFlags> {
        await_socket(socket, events, self.interruptible.as_ref(), self.socket_timeout)
    }

    /// May more of the body come? Its end is looked for in what is buffered.
    pub(super) fn body_pending(&mut self, socket: &Descriptor) -> io::Result<bool> {
        let Some(mut current) = self.current.take() else {
            return Ok(false);
        };
        let mut stepped = Ok(());
        while stepped.is_ok()
            && current.may_go_on()
            && self.content.is_empty()
            && !self.unread.is_empty()
        {
            stepped = self.body_step(socket, &mut current);
        }
        self.current = Some(current);
        stepped.map(|()| current.may_go_on())
    }

    /// Has the body ended without a byte, as far as that is known? Called before anything was read
    /// of it.
    pub(super) fn is_bodiless(&mut self, socket: &Descriptor) -> bool {
        // The next read meets an error by itself.
        let _ = self.body_pending(socket);
        self.content.is_empty()
            && self.spool.is_empty()
            && self.current.is_some_and(|current| current.stream_over && !current.aborted)
    }

    /// Takes what is there of the body and puts it spool. Never waits.
    pub(super) fn spool_body(&mut self, socket: &Descriptor) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let done = self.spool_body_of(socket, &mut current);
        self.current = Some(current);
        done
    }

    pub(super) fn spool_body_of(
        &mut self,
        socket: &Descriptor,
        current: &mut Current,
    ) -> io::Result<()> {
        if self.unread.is_empty() && self.content.is_empty() {
            match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => current.aborted = true,
                Ok((_, count)) => self.unread = 0..count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            self.put_content_aside(current)?;
            if self.unread.is_empty() || current.stream_over {
                return Ok(());
            }
            self.body_step(socket, current)?;
        }
    }

    /// Puts the content that is buffered aside.
    fn put_content_aside(&mut self, current: &mut Current) -> io::Result<()> {
        let content = std::mem::take(&mut self.content);
        let count = current.allowed(content.len());
        current.has_surplus |= count < content.len();
        self.spool.push(&self.buffer[content.start..][..count])?;
        current.account(count);
        Ok(())
    }

    pub(super) fn read_body(
        &mut self,
        socket: &Descriptor,
        current: &mut Current,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let spool_body = self.spool.pop(into)?;
        if spool_body > 0 {
            return Ok(spool_body);
        }
        loop {
            let allowed = current.allowed(into.len());
            if allowed == 0 {
                return Ok(0);
            }
            if current.stream_over || current.aborted {
                return current.end();
            }
            if !self.content.is_empty() {
                let count = allowed.min(self.content.len());
                into[..count].copy_from_slice(&self.buffer[self.content.start..][..count]);
                self.content.start += count;
                current.account(count);
                return Ok(count);
            }
            if !self.unread.is_empty() {
                self.body_step(socket, current)?;
                continue;
            }
            let direct = self.protocol.expected().filter(|expected| {
                expected.id == current.id && allowed.min(expected.remaining) >= DIRECT
            });
            if let Some(expected) = direct {
                // The record that follows comes along, as far as it is here and the buffer holds
                // it.
                let wanted = allowed.min(expected.remaining);
                let room =
                    if wanted == expected.remaining { &mut self.buffer[..] } else { &mut [] };
                let got = readv(
                    socket,
                    &mut [io::IoSliceMut::new(&mut into[..wanted]), io::IoSliceMut::new(room)],
                );
                if got == Err(Errno::AGAIN) {
                    self.await_socket(socket, PollFlags::IN)?;
                    continue;
                }
                let count = got?;
                if count == 0 {
                    current.aborted = true;
                    return current.end();
                }
                let content = count.min(wanted);
                self.protocol.took(content);
                self.unread = 0..count - content;
                current.account(content);
                return Ok(content);
            }
            match self.wait_for_more(socket) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    current.aborted = true;
                    return current.end();
                }
                waited => waited?,
            }
        }
    }
}

impl Current {
    /// May more of the body come?
    pub(super) fn may_go_on(&self) -> bool {
        !self.stream_over && !self.aborted
    }

    /// Most bytes that may be read now (FastCGI 1.0, 6.2: never more than CONTENT_LENGTH).
    pub(super) fn allowed(&self, wanted: usize) -> usize {
        match self.left {
            Some(left) => usize::try_from(left).map_or(wanted, |left| left.min(wanted)),
            None => wanted,
        }
    }

    pub(super) fn account(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
    }

    /// The stream is over before the announced length, or where it may be.
    pub(super) fn end(&self) -> io::Result<usize> {
        match self.left {
            None if self.stream_over => Ok(0),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                match self.left {
                    Some(_) => format!(
                        "the request body ended after {} of {} bytes",
                        self.received, self.announced
                    ),
                    None => format!(
                        "the connection ended after {} bytes of the request body",
                        self.received
                    ),
                },
            )),
        }
    }
}

/// Waits until one of `events` is true of a socket, and gives those that are. The wait ends after
/// `limit`, and at the deadline of the request that it is for, if there is one.
///
/// # Errors
/// `TimedOut` at one of these, `Interrupted` if a signal came first.
pub(super) fn await_socket(
    socket: &Descriptor,
    events: PollFlags,
    request: Option<&Interruptible>,
    limit: Option<Duration>,
) -> io::Result<PollFlags> {
    let until = limit.map(|limit| running_clock::instant() + limit);
    let left = || {
        let left = until.map(|until| until.saturating_duration_since(running_clock::instant()));
        left.into_iter().chain(request.and_then(Interruptible::patience)).min()
    };
    let mut watched = [PollFd::from_borrowed_fd(socket.as_fd(), events)];
    let mut patience = left();
    loop {
        let ready = running_clock::wait(patience, |patience| {
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            poll(&mut watched, patience.as_ref())
        })?;
        if ready > 0 {
            return Ok(watched[0].revents());
        }
        patience = left();
        if patience.is_some_and(|patience| patience.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

pub(super) fn broken(error: fastcgi_server::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn kind_of_record(error: &fastcgi_server::Error) -> Kind {
    match error {
        fastcgi_server::Error::UnknownVersion(_) => Kind::OtherVersion,
        fastcgi_server::Error::BeginLength { .. } => Kind::BeginLength,
        fastcgi_server::Error::AlreadyActive { .. } => Kind::AlreadyActive,
        fastcgi_server::Error::OutOfOrder { .. } => Kind::OutOfOrder,
    }
}

fn kind_of_params(error: &ParamsError) -> Kind {
    match error {
        ParamsError::TooLong { .. } => Kind::LongParams,
        ParamsError::TooMany { .. } => Kind::ManyParams,
        ParamsError::Truncated { .. } => Kind::CutParams,
    }
}

/// Tells the log of a peer that breaks the protocol; one that has gone is none of its business.
pub(super) fn log_broken(error: &io::Error) {
    if error.kind() == io::ErrorKind::InvalidData {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        inner.map_or(Kind::OtherVersion, kind_of_record).entry(
            &Log::new("-", "(connection)"),
            || {
                LogMessage::error(
                    Code::BadRecord,
                    format!("a connection was closed, since what came is not FastCGI: {error}"),
                )
                .hint(
                    "see what connects there; a web server must be told to speak FastCGI, not HTTP \
                     or uwsgi",
                )
            },
        );
    }
}

/// Sends what the protocol says by itself.
pub(super) fn send_own(socket: &Descriptor, response: OwnResponse) -> io::Result<()> {
    let mut record = Vec::new();
    response.append_to(&mut record);
    send_at_once(socket, &record)
}

/// Sends a few bytes without waiting: a peer that does not read them loses the connection, not our
/// time.
pub(super) fn send_at_once(socket: &Descriptor, bytes: &[u8]) -> io::Result<()> {
    let sent = send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}
