//! FastCGI 1.0: requests from one connection, one after the other.
//!
//! The parameters are gathered without ever waiting, so that a web server that is slow to send them occupies no thread. From the
//! first parameter-end on the connection belongs to the thread that serves the request, and reading its body waits. Replies leave
//! in records around the application's own bytes, which are not copied.
//!
//! mod_fcgid sends the whole body before it reads the first byte of the reply. So, while a reply cannot be sent, what comes of the
//! body is put aside, where the application finds it when it does read.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fastcgi_server::{
    Connection, Event, Input, Limits, Output, Params, Reply as OwnReply, RequestId, Stream,
    bodies::{ProtocolStatus, Role},
};
use link::page::{Form, Page, Status};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::sendfile,
    io::{Errno, read},
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown},
};

use super::aside::Aside;
use crate::wsgi::{BodyLength, BodySource, ReplySink};

/// Bytes that are read at a time. A request without a body fits well.
const BUFFER: usize = 16 * 1024;

/// Reads of a body that ask for this much or more go past the buffer.
const DIRECT: usize = 4096;

/// How often a reply that goes on and on looks whether the web server still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes that a socket surely takes without blocking once it is writable.
const SURE: usize = 4096;

/// Something can be sent, or has come.
const EITHER: PollFlags = PollFlags::OUT.union(PollFlags::IN);

/// No wait at all.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A connection from a web server.
pub(crate) struct Peer {
    shared: Arc<Shared>,
}

struct Shared {
    socket: OwnedFd,
    /// Set in a child that the application has forked: the connection is its parent's.
    forked: Arc<AtomicBool>,
    incoming: Mutex<Incoming>,
}

/// What has come and is not dealt with yet.
struct Incoming {
    protocol: Connection,
    buffer: Vec<u8>,
    unread: Range<usize>,
    /// Body content at the front of the buffer that the application has not taken.
    content: Range<usize>,
    /// Body content that came before that, while a reply could not be sent.
    aside: Aside,
    /// The whole body of the request that was served last has come.
    last_body_over: bool,
    /// The request that is served, and what is known of its body.
    current: Option<Current>,
    /// Since when the connection is only drained before it is closed.
    lingering: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    id: RequestId,
    /// Bytes of the body still to come, if that is known.
    left: Option<u64>,
    announced: u64,
    received: u64,
    stream_over: bool,
    aborted: bool,
}

/// What a connection has come to.
pub(crate) enum Progress {
    /// Nothing more can be done before more comes.
    Wait,
    /// A request is to be served.
    Request(Incomplete),
    /// It is to be closed.
    Close,
}

/// A request whose parameters are here.
pub(crate) struct Incomplete {
    /// Its name on the connection.
    pub(crate) id: RequestId,
    /// Its parameters.
    pub(crate) params: Params,
}

impl Peer {
    /// The connection on `socket`.
    pub(crate) fn new(socket: OwnedFd, limits: Limits, forked: Arc<AtomicBool>) -> Self {
        let incoming = Incoming {
            protocol: Connection::new(limits),
            buffer: vec![0; BUFFER],
            unread: 0..0,
            content: 0..0,
            aside: Aside::default(),
            last_body_over: true,
            current: None,
            lingering: None,
        };
        Self { shared: Arc::new(Shared { socket, forked, incoming: Mutex::new(incoming) }) }
    }

    /// The socket, to be waited on.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.shared.socket.as_fd()
    }

    /// Since when the connection is only drained.
    pub(crate) fn lingering_since(&self) -> Option<Instant> {
        self.shared.incoming().lingering
    }

    /// May the connection be closed without loss (FastCGI 1.0, 3.5)?
    pub(crate) fn is_idle(&self) -> bool {
        let incoming = self.shared.incoming();
        incoming.protocol.is_idle() && incoming.unread.is_empty()
    }

    /// Reads what is there, up to the next request. Never waits.
    pub(crate) fn advance(&self) -> Progress {
        let mut incoming = self.shared.incoming();
        loop {
            match incoming.next_request(&self.shared.socket) {
                Ok(Some(request)) => return Progress::Request(request),
                Ok(None) => {}
                // A peer that breaks the protocol, or has gone, is told nothing (FastCGI 1.0, 3.3).
                Err(_) => return Progress::Close,
            }
            if incoming.protocol.must_close() && incoming.lingering.is_none() {
                return self.end_connection(&mut incoming);
            }
            incoming.unread = 0..0;
            let buffer = &mut incoming.buffer;
            match recv(&self.shared.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Progress::Close,
                Ok((_, count)) if incoming.lingering.is_none() => incoming.unread = 0..count,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Progress::Wait,
                Err(_) => return Progress::Close,
            }
        }
    }

    /// Body and reply of the request `id`, whose body reaches as far as `length` says.
    pub(crate) fn begin(&self, id: RequestId, length: BodyLength) -> (Body, Reply) {
        let left = match length {
            BodyLength::Exactly(length) => Some(length),
            // Without a length the end of the stream is the end of the body.
            BodyLength::UntilEnd => None,
        };
        let mut incoming = self.shared.incoming();
        incoming.aside = Aside::default();
        incoming.current =
            Some(Current { id, left, announced: left.unwrap_or(0), received: 0, stream_over: false, aborted: false });
        drop(incoming);
        let reply = Reply {
            shared: self.shared.clone(),
            output: Output::new(id),
            in_record: 0,
            ended: false,
            looked: Instant::now(),
        };
        (Body { shared: self.shared.clone() }, reply)
    }

    /// Whether the request that was served last has left the connection usable.
    pub(crate) fn after_request(&self) -> Progress {
        let mut incoming = self.shared.incoming();
        match incoming.current.take() {
            // Cut: only closing tells the web server so.
            Some(_) => Progress::Close,
            None if incoming.protocol.must_close() => self.end_connection(&mut incoming),
            None => Progress::Wait,
        }
    }

    /// Gives the parameters' buffer back.
    pub(crate) fn reuse(&self, params: Params) {
        self.shared.incoming().protocol.reuse(params);
    }

    /// Closes a connection whose last request is over. If the web server may still be sending, it is heard out first: a
    /// reset would take the reply back.
    fn end_connection(&self, incoming: &mut Incoming) -> Progress {
        if incoming.stdin_over() || shutdown(&self.shared.socket, Shutdown::Write).is_err() {
            return Progress::Close;
        }
        incoming.lingering = Some(Instant::now());
        incoming.unread = 0..0;
        Progress::Wait
    }
}

impl Shared {
    /// The socket, if this process may write to it.
    fn socket_of_ours(&self) -> io::Result<&OwnedFd> {
        if self.forked.load(Ordering::Relaxed) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(&self.socket) }
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Incoming {
    /// Deals with what is buffered, up to the parameters of the next request.
    fn next_request(&mut self, socket: &OwnedFd) -> io::Result<Option<Incomplete>> {
        while !self.unread.is_empty() {
            let step = self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(broken)?;
            self.unread.start += step.consumed;
            match step.event {
                None => break,
                Some(Event::Params { id, params }) => return Ok(Some(Incomplete { id, params })),
                Some(Event::Begin { id, role: Role::Filter, .. }) => {
                    let refusal = self.protocol.refuse(id, ProtocolStatus::UnknownRole);
                    send_own(socket, refusal)?;
                }
                Some(Event::BadParams { id, .. }) => {
                    let page = Page { status: Status::BadRequest, request_id: "-", detail: None, head_only: false };
                    let output = Output::new(id);
                    let mut reply = Vec::new();
                    output.append(Stream::Stdout, &page.render(Form::Cgi), &mut reply);
                    reply.extend_from_slice(&output.ending(0, false));
                    send_at_once(socket, &reply)?;
                    self.protocol.finish(id);
                }
                Some(Event::Abort { id }) => {
                    send_at_once(socket, &Output::new(id).end_request(0, ProtocolStatus::RequestComplete))?;
                    self.protocol.finish(id);
                }
                Some(Event::Reply(reply)) => send_own(socket, reply)?,
                // A responder or authorizer begins with its parameters; of a body that was not read the end is left.
                Some(
                    Event::Begin { .. }
                    | Event::Stdin { .. }
                    | Event::StdinEnd { .. }
                    | Event::Data { .. }
                    | Event::DataEnd { .. },
                ) => {}
            }
        }
        Ok(None)
    }

    /// Deals with one record of what is buffered, while the request `current` is served.
    fn body_step(&mut self, socket: &OwnedFd, current: &mut Current) -> io::Result<()> {
        let step = self.protocol.receive(&self.buffer[self.unread.clone()]).map_err(broken)?;
        self.unread.start += step.consumed;
        match step.event {
            Some(Event::Stdin { id, bytes }) if id == current.id => {
                self.content = self.unread.start - bytes.len()..self.unread.start;
            }
            Some(Event::StdinEnd { id, .. }) if id == current.id => current.stream_over = true,
            Some(Event::Abort { id }) if id == current.id => current.aborted = true,
            Some(Event::Reply(reply)) => send_own(socket, reply)?,
            Some(_) => {}
            None => self.unread = 0..0,
        }
        Ok(())
    }

    /// Looks for an abort, without waiting, as far as no body is in the way.
    fn look(&mut self, socket: &OwnedFd, current: &mut Current) -> io::Result<()> {
        if self.unread.is_empty() && self.content.is_empty() {
            match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok((_, count)) => self.unread = 0..count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        while !self.unread.is_empty() && self.content.is_empty() && !current.aborted {
            self.body_step(socket, current)?;
        }
        if current.aborted { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Waits for more of the connection. Nothing may be buffered.
    fn wait_for_more(&mut self, socket: &OwnedFd) -> io::Result<()> {
        match read(socket, &mut self.buffer[..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread = 0..count;
                Ok(())
            }
        }
    }

    /// Has the whole body of the request that was served last come?
    fn stdin_over(&self) -> bool {
        self.last_body_over
    }

    /// May more of the body come? Its end is looked for in what is buffered.
    fn body_pending(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        let Some(mut current) = self.current.take() else {
            return Ok(false);
        };
        let mut stepped = Ok(());
        while stepped.is_ok() && current.may_go_on() && self.content.is_empty() && !self.unread.is_empty() {
            stepped = self.body_step(socket, &mut current);
        }
        self.current = Some(current);
        stepped.map(|()| current.may_go_on())
    }

    /// Takes what is there of the body and puts it aside. Never waits.
    fn put_aside(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        let done = self.put_aside_of(socket, &mut current);
        self.current = Some(current);
        done
    }

    fn put_aside_of(&mut self, socket: &OwnedFd, current: &mut Current) -> io::Result<()> {
        if self.unread.is_empty() && self.content.is_empty() {
            match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => current.aborted = true,
                Ok((_, count)) => self.unread = 0..count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        loop {
            let count = current.allowed(self.content.len());
            self.aside.push(&self.buffer[self.content.start..][..count])?;
            current.account(count);
            self.content = 0..0;
            if self.unread.is_empty() || current.stream_over {
                return Ok(());
            }
            self.body_step(socket, current)?;
        }
    }

    fn read_body(&mut self, socket: &OwnedFd, current: &mut Current, into: &mut [u8]) -> io::Result<usize> {
        let put_aside = self.aside.pop(into)?;
        if put_aside > 0 {
            return Ok(put_aside);
        }
        loop {
            let allowed = current.allowed(into.len());
            if allowed == 0 {
                return Ok(0);
            }
            if !self.content.is_empty() {
                let count = allowed.min(self.content.len());
                into[..count].copy_from_slice(&self.buffer[self.content.start..][..count]);
                self.content.start += count;
                current.account(count);
                return Ok(count);
            }
            if current.stream_over || current.aborted {
                return current.end();
            }
            if !self.unread.is_empty() {
                self.body_step(socket, current)?;
                continue;
            }
            let direct = self.protocol.expected().filter(|expected| {
                expected.id == current.id && expected.input == Input::Stdin && allowed.min(expected.remaining) >= DIRECT
            });
            if let Some(expected) = direct {
                let count = read(socket, &mut into[..allowed.min(expected.remaining)])?;
                if count == 0 {
                    current.aborted = true;
                    return current.end();
                }
                self.protocol.took(count);
                current.account(count);
                return Ok(count);
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
    fn may_go_on(&self) -> bool {
        !self.stream_over && !self.aborted && self.left != Some(0)
    }

    /// Most bytes that may be read now (FastCGI 1.0, 6.2: never more than CONTENT_LENGTH).
    fn allowed(&self, wanted: usize) -> usize {
        match self.left {
            Some(left) => usize::try_from(left).map_or(wanted, |left| left.min(wanted)),
            None => wanted,
        }
    }

    fn account(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
    }

    /// The stream is over before the announced length, or where it may be.
    fn end(&self) -> io::Result<usize> {
        match self.left {
            None if self.stream_over => Ok(0),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                match self.left {
                    Some(_) => format!("the request body ended after {} of {} bytes", self.received, self.announced),
                    None => format!("the connection ended after {} bytes of the request body", self.received),
                },
            )),
        }
    }
}

/// The body of a request.
pub(crate) struct Body {
    shared: Arc<Shared>,
}

impl BodySource for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.shared.incoming();
        let Some(mut current) = incoming.current.take() else {
            return Ok(0);
        };
        let got = incoming.read_body(&self.shared.socket, &mut current, into);
        incoming.current = Some(current);
        got
    }
}

/// The reply to a request.
pub(crate) struct Reply {
    shared: Arc<Shared>,
    output: Output,
    /// Content that the record which is being sent still lacks.
    in_record: usize,
    /// The end of the request has been sent.
    ended: bool,
    looked: Instant,
}

impl Reply {
    /// Sends some of these bytes.
    fn send(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.shared.socket_of_ours()?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags) {
                Err(Errno::AGAIN) => self.clear_way()?,
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits until something can be sent, and puts aside what of the body is in its way.
    fn clear_way(&self) -> io::Result<()> {
        let socket = self.shared.socket_of_ours()?;
        loop {
            let pending = self.shared.incoming().body_pending(socket)?;
            let mut watched = [PollFd::new(socket, if pending { EITHER } else { PollFlags::OUT })];
            poll(&mut watched, None)?;
            let ready = watched[0].revents();
            if ready.contains(PollFlags::IN) {
                self.shared.incoming().put_aside(socket)?;
            }
            if ready != PollFlags::IN {
                return Ok(());
            }
        }
    }

    /// Sends bytes of ours whole, whatever signals come.
    fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send(&[io::IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fails if the web server has aborted the request, or has gone. An abort that stands behind body which nobody reads is not
    /// seen.
    fn look_for_abort(&mut self) -> io::Result<()> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        // Another thread of the application's reads the body, and sees the abort there.
        let Ok(mut incoming) = self.shared.incoming.try_lock() else {
            return Ok(());
        };
        let Some(mut current) = incoming.current.take() else {
            return Ok(());
        };
        let looked = incoming.look(&self.shared.socket, &mut current);
        incoming.current = Some(current);
        looked
    }

    /// Begins a record for the first of `wanted` bytes.
    fn open_record(&mut self, wanted: usize) -> io::Result<()> {
        if let Some(frame) = self.output.frames(Stream::Stdout, wanted).next() {
            self.send_all(frame.header())?;
            self.in_record = frame.content_length();
        }
        Ok(())
    }
}

impl ReplySink for Reply {
    fn head_leaves(&mut self) {}

    fn write(&mut self, head: &[u8], block: &[u8], last: bool) -> io::Result<usize> {
        if self.in_record == 0 {
            self.look_for_abort()?;
        }
        let slice = io::IoSlice::new;
        if self.in_record > 0 {
            let head = &head[..head.len().min(self.in_record)];
            let block = &block[..block.len().min(self.in_record - head.len())];
            let count = self.send(&[slice(head), slice(block)])?;
            self.in_record -= count;
            return Ok(count);
        }
        let Some(frame) = self.output.frames(Stream::Stdout, head.len() + block.len()).next() else {
            return Ok(0);
        };
        let length = frame.content_length();
        let is_last = last && length == head.len() + block.len();
        let head = &head[..head.len().min(length)];
        let block = &block[..block.len().min(length - head.len())];
        let ending = self.output.ending(0, false);
        let tail: &[u8] = if is_last { &ending } else { &[] };
        let header = frame.header();
        let sent = self.send(&[slice(header), slice(head), slice(block), slice(tail)])?;
        // What is ours is sent whole, so that only the application's bytes can be left over.
        self.send_all(&header[sent.min(header.len())..])?;
        let content = sent.saturating_sub(header.len()).min(length);
        if is_last && content == length {
            self.send_all(&tail[sent - header.len() - length..])?;
            self.ended = true;
        }
        self.in_record = length - content;
        Ok(content)
    }

    fn send_file(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        if self.in_record == 0 {
            self.look_for_abort()?;
            self.open_record(count)?;
        }
        let socket = self.shared.socket_of_ours()?;
        // The kernel's own copying cannot be told not to wait.
        let pending = self.shared.incoming().body_pending(socket)?;
        if pending {
            self.clear_way()?;
        }
        let room = if pending { self.in_record.min(SURE) } else { self.in_record };
        let mut position = offset;
        match sendfile(socket, file, Some(&mut position), room.min(count)) {
            // The record was announced longer than the file turns out to be.
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent")),
            Ok(sent) => {
                self.in_record -= sent;
                Ok(sent)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_whole(&mut self) {}

    fn is_abandoned(&mut self) -> bool {
        let mut watched = [PollFd::new(&self.shared.socket, PollFlags::empty())];
        matches!(poll(&mut watched, Some(&AT_ONCE)), Ok(1..))
    }

    fn finish(&mut self, complete: bool) {
        if self.shared.socket_of_ours().is_err() {
            return;
        }
        let whole = complete && self.in_record == 0;
        let ended = self.ended || (whole && self.send_all(&self.output.ending(0, false)).is_ok());
        let mut incoming = self.shared.incoming();
        let Some(mut current) = incoming.current.take() else {
            return;
        };
        incoming.aside = Aside::default();
        // The end of the body often stands behind it in the buffer.
        incoming.content = 0..0;
        while !incoming.unread.is_empty() && !current.stream_over {
            if incoming.body_step(&self.shared.socket, &mut current).is_err() {
                break;
            }
        }
        incoming.content = 0..0;
        // An aborted request ends all the same, and the connection goes on (FastCGI 1.0, 5.4).
        let ended = ended
            || (current.aborted
                && self.in_record == 0
                && self.send_all(&self.output.end_request(1, ProtocolStatus::RequestComplete)).is_ok());
        if ended {
            incoming.last_body_over = current.stream_over;
            incoming.protocol.finish(current.id);
        } else {
            // Cut: what is left of the request stays, and with it the connection is closed.
            incoming.current = Some(current);
        }
    }
}

fn broken(error: fastcgi_server::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sends what the protocol says by itself.
fn send_own(socket: &OwnedFd, reply: OwnReply) -> io::Result<()> {
    let mut record = Vec::new();
    reply.append_to(&mut record);
    send_at_once(socket, &record)
}

/// Sends a few bytes without waiting: a peer that does not read them loses the connection, not our time.
fn send_at_once(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let sent = send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}
