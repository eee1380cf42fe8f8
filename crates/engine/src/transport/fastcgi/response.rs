//! The response to a request: records around the application's own bytes.

use std::{cell::Cell, io, os::fd::BorrowedFd, sync::Arc, time::Instant};

use fastcgi_server::{Output, Stream, bodies::ProtocolStatus};
use pyo3::Python;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::sendfile,
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, send, sendmsg},
};

use crate::{
    log::Transcript,
    transport::{
        LOOK,
        fastcgi::{ConnectionShared, incoming::await_socket},
        spool::Spool,
    },
    wsgi::ResponseSink,
};

/// Bytes that a socket surely takes without blocking once it is writable.
const SURE: usize = 4096;

/// Bytes that are put together before they are sent. With so few, the kernel takes longer to gather
/// pieces than they take to be copied.
const COPIED: usize = 2048;

/// Something can be sent, or has come.
const EITHER: PollFlags = PollFlags::OUT.union(PollFlags::IN);

/// No wait at all.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The response to a request.
pub(crate) struct FastCgiResponse {
    pub(super) shared: Arc<ConnectionShared>,
    pub(super) output: Output,
    /// Content that the record which is being sent still lacks.
    pub(super) in_record: usize,
    /// The record with the head has been begun.
    pub(super) begun: bool,
    /// What is to go to `FCGI_STDERR`, if anything ever is.
    pub(super) transcript: Option<Arc<Transcript>>,
    /// Records for it that could not leave yet.
    pub(super) late: Vec<u8>,
    /// Something went there.
    pub(super) stderr_used: bool,
    /// The end of the request has been sent.
    pub(super) ended: bool,
    /// More of the request body came than CONTENT_LENGTH says.
    pub(super) had_surplus: bool,
    /// The web server has not read in time. What was sent may end anywhere, and nothing follows it.
    pub(super) stuck: Cell<bool>,
    /// When it was looked last whether somebody still wants it. Nobody asks before the first
    /// record.
    pub(super) looked: Option<Instant>,
}

impl FastCgiResponse {
    /// Sends some of these bytes.
    fn send(&self, py: Python<'_>, pieces: &[&[u8]]) -> io::Result<usize> {
        let socket = self.shared.socket_of_ours()?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let copied = (length <= COPIED).then(|| pieces.concat());
        let slices: Vec<_> = match &copied {
            Some(_) => Vec::new(),
            None => pieces.iter().map(|piece| io::IoSlice::new(piece)).collect(),
        };
        loop {
            let sent = match &copied {
                Some(copied) => send(socket, copied, flags),
                None => sendmsg(socket, &slices, &mut SendAncillaryBuffer::default(), flags),
            };
            match sent {
                Err(Errno::AGAIN) => self.await_room(py)?,
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits until something can be sent, and puts aside what of the body is in its way.
    fn await_room(&self, py: Python<'_>) -> io::Result<()> {
        let shared = &self.shared;
        let cleared = py.detach(|| clear_way(shared));
        if cleared.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.stuck.set(true);
        }
        cleared
    }

    /// Sends bytes of ours whole, whatever signals come.
    fn send_all(&self, py: Python<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.send(py, &[bytes]) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fails if the web server has aborted the request, or has gone. An abort that stands behind
    /// much body which nobody reads is seen only if that may be put spool.
    fn look_for_abort(&mut self, may_put_aside: bool) -> io::Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        // Another thread of the application's reads the body, and sees the abort there.
        let Ok(mut incoming) = self.shared.incoming.try_lock() else {
            return Ok(());
        };
        let Some(mut current) = incoming.current.take() else {
            return Ok(());
        };
        let looked = incoming.look(&self.shared.socket, &mut current, may_put_aside);
        incoming.current = Some(current);
        looked
    }

    /// Begins a record for the first of `wanted` bytes.
    fn open_record(&mut self, py: Python<'_>, wanted: usize) -> io::Result<()> {
        let errors = self.errors();
        self.send_all(py, &errors)?;
        if let Some(frame) = self.output.frames(Stream::Stdout, wanted).next() {
            self.send_all(py, frame.header())?;
            self.in_record = frame.content_length();
        }
        Ok(())
    }
}

fn clear_way(shared: &ConnectionShared) -> io::Result<()> {
    let socket = shared.socket_of_ours()?;
    loop {
        let (pending, request, limit) = {
            let mut incoming = shared.incoming();
            (
                incoming.body_pending(socket)?,
                incoming.interruptible.clone(),
                incoming.socket_timeout,
            )
        };
        let events = if pending { EITHER } else { PollFlags::OUT };
        let ready = await_socket(socket, events, request.as_ref(), limit)?;
        if ready.contains(PollFlags::IN) {
            shared.incoming().spool_body(socket)?;
        }
        if ready != PollFlags::IN {
            return Ok(());
        }
    }
}

impl ResponseSink for FastCgiResponse {
    fn head_leaves(&mut self) {}

    fn write(
        &mut self,
        py: Python<'_>,
        head: &[u8],
        block: &[u8],
        last: bool,
    ) -> io::Result<usize> {
        if self.in_record > 0 {
            let head = &head[..head.len().min(self.in_record)];
            let block = &block[..block.len().min(self.in_record - head.len())];
            let count = self.send(py, &[head, block])?;
            self.in_record -= count;
            return Ok(count);
        }
        if self.begun {
            self.look_for_abort(false)?;
        } else if !last {
            self.looked = Some(Instant::now());
        }
        let errors = self.errors();
        self.send_all(py, &errors)?;
        let Some(frame) = self.output.frames(Stream::Stdout, head.len() + block.len()).next()
        else {
            return Ok(0);
        };
        self.begun = true;
        let length = frame.content_length();
        let is_last = last && length == head.len() + block.len();
        let head = &head[..head.len().min(length)];
        let block = &block[..block.len().min(length - head.len())];
        // Messages that were written before the head stand behind it.
        let errors = if is_last { self.errors() } else { Vec::new() };
        let ending = self.output.ending(0, self.stderr_used);
        let tail: &[u8] = if is_last { &ending } else { &[] };
        let header = frame.header();
        let sent = self.send(py, &[header, head, block, &errors, tail])?;
        // What is ours is sent whole, so that only the application's bytes can be left over.
        self.send_all(py, &header[sent.min(header.len())..])?;
        let content = sent.saturating_sub(header.len()).min(length);
        if is_last && content == length {
            let behind = sent - header.len() - length;
            self.send_all(py, &errors[behind.min(errors.len())..])?;
            self.send_all(py, &tail[behind.saturating_sub(errors.len())..])?;
            self.ended = true;
        }
        if content < length {
            self.late = errors;
        }
        self.in_record = length - content;
        if self.in_record == 0 && !self.ended {
            let errors = self.errors();
            self.send_all(py, &errors)?;
        }
        Ok(content)
    }

    fn send_file(
        &mut self,
        py: Python<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        if self.in_record == 0 {
            self.look_for_abort(false)?;
            self.open_record(py, count)?;
        }
        let socket = self.shared.socket_of_ours()?;
        // The kernel's own copying cannot be told not to wait.
        let pending = self.shared.incoming_while(py).body_pending(socket)?;
        if pending {
            self.await_room(py)?;
        }
        let room = if pending { self.in_record.min(SURE) } else { self.in_record };
        let mut position = offset;
        loop {
            match py.detach(|| sendfile(socket, file, Some(&mut position), room.min(count))) {
                // The record was announced longer than the file turns out to be.
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file became shorter while it was sent",
                    ));
                }
                Ok(sent) => {
                    self.in_record -= sent;
                    return Ok(sent);
                }
                Err(Errno::AGAIN) => self.await_room(py)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn look(&mut self, _: Python<'_>) -> io::Result<()> {
        self.look_for_abort(true)
    }

    /// The end has left with the last block where its length was known. Otherwise it follows
    /// `close()`: the web server would send the next request on a connection that nobody reads
    /// meanwhile.
    fn is_over(&mut self, _: Python<'_>, _: bool) {}

    fn is_abandoned(&mut self, py: Python<'_>) -> bool {
        let mut watched = [PollFd::new(&self.shared.socket, PollFlags::empty())];
        self.shared.incoming_while(py).current.is_some_and(|current| current.aborted)
            || matches!(poll(&mut watched, Some(&AT_ONCE)), Ok(1..))
    }

    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()> {
        if self.shared.socket_of_ours().is_err() || self.stuck.get() {
            return Ok(());
        }
        let whole = complete && self.in_record == 0;
        let mut sent = Ok(());
        if !self.ended && self.in_record == 0 {
            let errors = self.errors();
            sent = self.send_all(py, &errors);
        }
        // A web server that does not take these does not take the end either.
        if whole && !self.ended && sent.is_ok() {
            sent = self.send_all(py, &self.output.ending(0, self.stderr_used));
        }
        let mut ended = self.ended || (whole && sent.is_ok());
        let mut incoming = self.shared.incoming_while(py);
        let Some(mut current) = incoming.current.take() else {
            return Ok(());
        };
        incoming.spool = Spool::default();
        // Of a record whose content has not come whole the rest is surplus, too.
        let is_of_body = incoming.protocol.expected().is_some() || !incoming.content.is_empty();
        current.has_surplus |= current.left == Some(0) && is_of_body;
        // The end of the body often stands behind it in the buffer.
        incoming.content = 0..0;
        while !incoming.unread.is_empty() && !current.stream_over {
            if incoming.body_step(&self.shared.socket, &mut current).is_err() {
                break;
            }
        }
        incoming.content = 0..0;
        self.had_surplus = current.has_surplus;
        if !ended && current.aborted && self.in_record == 0 && !self.stuck.get() {
            // An aborted request ends all the same, and the connection goes on (FastCGI 1.0, 5.4).
            // Whoever has to wait for the way to be clear looks at what comes in.
            incoming.current = Some(current);
            drop(incoming);
            ended = self.send_all(py, &self.end_of_errors()).is_ok()
                && self
                    .send_all(py, &self.output.end_request(1, ProtocolStatus::RequestComplete))
                    .is_ok();
            incoming = self.shared.incoming_while(py);
            let Some(now) = incoming.current.take() else {
                return Ok(());
            };
            current = now;
        }
        if ended {
            incoming.has_come_whole = current.stream_over;
            incoming.protocol.finish(current.id);
        } else {
            // CutStyle: what is left of the request stays, and with it the connection is closed.
            current.is_between_records = self.in_record == 0 && sent.is_ok();
            incoming.current = Some(current);
        }
        match sent {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            _ => Ok(()),
        }
    }

    fn had_surplus(&self) -> bool {
        self.had_surplus
    }
}
