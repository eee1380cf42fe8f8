//! CGI/1.1 (RFC 3875): variables from the process environment, the body from one descriptor, the
//! response to another.
//!
//! Web servers write the whole request body before they read the first byte of the response. An
//! application that replies without reading would wait for them while they wait for it; so, while a
//! response cannot be written, what comes of the body is put spool, where the application finds it
//! when it does read.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use pyo3::Python;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, SeekFrom, fstat, seek, sendfile, tell},
    io::{Errno, read, writev},
    net::{Shutdown, shutdown},
};

use crate::{
    process::forks::{
        Descriptor, {self},
    },
    reporter::Reporter,
    transport::{LOOK, spool::Spool},
    wsgi::{BodyLength, BodySource, ErrorSink, ResponseSink},
};
use wire::{lingering_close::end_response, report::Report};

/// Bytes that a pipe or socket surely takes without blocking once it is writable (`PIPE_BUF`).
const SURE: usize = 4096;

/// How long a web server may take between ending this process and closing its end of the response.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// No wait at all.
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What an application writes to `sys.stdout` or `sys.stderr`.
pub(crate) struct PrintedOutput;

impl ErrorSink for PrintedOutput {
    fn write(&self, bytes: &[u8]) {
        crate::log::print(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}

/// What an application writes to `wsgi.errors`.
pub(crate) struct StandardError;

impl ErrorSink for StandardError {
    fn write(&self, bytes: &[u8]) {
        crate::log::write_all(bytes);
    }

    fn descriptor(&self) -> Option<i32> {
        Some(2)
    }
}

/// The request body of a CGI invocation, shared by its reader and by the response that must make
/// way for it.
#[derive(Clone)]
pub(crate) struct CgiBody {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<CgiBodyState>,
}

struct CgiBodyState {
    /// Gone once the response is over, so that the web server sees the end of the connection.
    descriptor: Option<Arc<Descriptor>>,
    /// Bytes still to come, if that is known.
    left: Option<u64>,
    announced: u64,
    /// The application gets no more of it.
    ended: bool,
    /// More may come than CONTENT_LENGTH says: a filter of the web server's may have changed a body
    /// that was counted before. Web servers that send all of it before they read the response would
    /// wait for a reader.
    surplus_may_come: bool,
    /// More has come.
    had_surplus: bool,
    spool: Spool,
    /// Why no more could be put spool.
    failure: Option<(io::ErrorKind, String)>,
}

impl CgiBodyState {
    /// Most bytes that may be read now (RFC 3875 4.2: never more than CONTENT_LENGTH).
    fn allowed(&self, wanted: usize) -> usize {
        match self.left {
            Some(left) => usize::try_from(left).map_or(wanted, |left| left.min(wanted)),
            None => wanted,
        }
    }

    /// Where in its file a body of known length begins; nothing if it comes from elsewhere.
    fn start_in_file(&self) -> Option<u64> {
        let received = self.announced - self.left?;
        tell(self.descriptor.as_ref()?).ok()?.checked_sub(received)
    }

    /// Takes note of `got` bytes that were read where some were wanted.
    fn account(&mut self, got: usize) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            if got == 0 {
                let announced = self.announced;
                let received = announced - *left;
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the request body ended after {received} of {announced} bytes"),
                ));
            }
            *left -= got as u64;
        }
        self.ended = self.left == Some(0) || got == 0;
        self.surplus_may_come = self.ended && got > 0 && self.start_in_file().is_none();
        Ok(())
    }

    /// Takes note of `got` bytes that were read behind the end of the body.
    fn account_surplus(&mut self, got: usize) {
        self.had_surplus |= got > 0;
        self.surplus_may_come = got > 0;
    }
}

impl CgiBody {
    /// The body on `descriptor`.
    pub(crate) fn new(descriptor: Descriptor, length: BodyLength) -> Self {
        let left = match length {
            BodyLength::Exactly(length) => Some(length),
            BodyLength::UntilEnd => None,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(CgiBodyState {
                    descriptor: Some(Arc::new(descriptor)),
                    left,
                    announced: left.unwrap_or(0),
                    ended: left == Some(0),
                    surplus_may_come: false,
                    had_surplus: false,
                    spool: Spool::default(),
                    failure: None,
                }),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, CgiBodyState> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor, while something may still be to be read from it.
    fn pending(&self) -> Option<Arc<Descriptor>> {
        let state = self.state();
        if state.ended && !state.surplus_may_come { None } else { state.descriptor.clone() }
    }

    /// Reads what is there and puts it spool. An error is the reader's to find; here it only ends
    /// the reading ahead. Not a part of its caller, whose stack would have this piece, too.
    #[inline(never)]
    fn spool_body(&self, descriptor: &Descriptor) {
        let mut piece = [0; 64 * 1024];
        let mut state = self.state();
        if state.ended {
            match read(descriptor, &mut piece) {
                Err(Errno::INTR) => {}
                got => state.account_surplus(got.unwrap_or(0)),
            }
            return;
        }
        let allowed = state.allowed(piece.len());
        let taken = match read(descriptor, &mut piece[..allowed]) {
            Ok(got) => state.account(got).and_then(|()| state.spool.push(&piece[..got])),
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = taken {
            state.failure =
                Some((error.kind(), format!("the request body could not be put spool: {error}")));
            state.descriptor = None;
        }
    }

    fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Looks whether more has come than was announced, without waiting.
    fn look_for_surplus(&self) {
        let is_ready = |pending: &Descriptor| {
            matches!(poll(&mut [PollFd::new(pending, PollFlags::IN)], Some(&AT_ONCE)), Ok(1..))
        };
        if self.has_ended()
            && let Some(pending) = self.pending().filter(|pending| is_ready(pending))
        {
            self.spool_body(&pending);
        }
    }

    fn close(&self) {
        self.state().descriptor = None;
    }
}

impl BodySource for CgiBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        forks::refuse_child()?;
        let (descriptor, allowed) = {
            let mut state = self.state();
            let spool_body = state.spool.pop(into)?;
            if spool_body > 0 || state.ended {
                return Ok(spool_body);
            }
            let Some(descriptor) = state.descriptor.clone() else {
                // Reading ahead has met an error, which comes out here, where the application sees
                // it; or the request is over.
                return match &state.failure {
                    Some((kind, reason)) => Err(io::Error::new(*kind, reason.clone())),
                    None => state.account(0).map(|()| 0),
                };
            };
            (descriptor, state.allowed(into.len()))
        };
        let got = read(&*descriptor, &mut into[..allowed])?;
        self.state().account(got)?;
        Ok(got)
    }

    fn length(&self) -> Option<u64> {
        let state = self.state();
        state.left.map(|_| state.announced)
    }

    fn is_in_file(&self) -> bool {
        self.state().start_in_file().is_some()
    }

    fn seek(&mut self, position: u64) -> bool {
        let mut state = self.state();
        let Some((start, left)) = state.start_in_file().zip(state.announced.checked_sub(position))
        else {
            return false;
        };
        let moved = state
            .descriptor
            .as_ref()
            .is_some_and(|file| seek(file, SeekFrom::Start(start + position)).is_ok());
        if moved {
            state.spool = Spool::default();
            (state.left, state.ended) = (Some(left), left == 0);
        }
        moved
    }
}

fn is_pipe(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}

/// The response of a CGI invocation.
pub(crate) struct CgiResponse {
    descriptor: Option<Descriptor>,
    /// What the descriptor led to at first: device and inode.
    file: Option<(u64, u64)>,
    body: CgiBody,
    reporter: Reporter,
    /// What is to be done before the response ends.
    part: Option<ResponseEnding>,
    /// The gateway watches over this process until the application has done its work.
    is_guarded: bool,
    /// The process exits after the request.
    exits: bool,
    /// The response has ended; what is left of the request body may still come by its socket.
    socket: Option<Descriptor>,
    /// The web server is Apache, whose mod_cgi waits for the end of standard error, too.
    is_for_apache: bool,
    /// All of the response has left, and its end is still to come.
    held: Option<Descriptor>,
    /// When it was looked last whether somebody still reads the response.
    looked: Option<Instant>,
    /// The gateway could not be told that the response begins, and is told nothing more.
    is_lost: bool,
    /// The last write ended early. A signal does that, and the kernel does not say so.
    was_short: bool,
}

/// What comes before the end of a response.
pub(crate) struct ResponseEnding {
    /// Tells the gateway that nothing more will be sent, and whether the response was complete.
    pub(crate) tell: Box<dyn FnOnce(bool) + Send>,
    /// The gateway does not exit then, and is to be told when the application has done its work,
    /// too.
    pub(crate) is_guarded: bool,
    /// This process exits after the request.
    pub(crate) exits: bool,
}

impl CgiResponse {
    /// The response that goes to `descriptor`, to a request whose body is `body`. `part` is called
    /// before it ends.
    pub(crate) fn new(
        descriptor: Descriptor,
        body: CgiBody,
        reporter: Reporter,
        part: ResponseEnding,
    ) -> Self {
        let file = file_of(&descriptor);
        Self {
            descriptor: Some(descriptor),
            file,
            body,
            reporter,
            is_guarded: part.is_guarded,
            exits: part.exits,
            part: Some(part),
            socket: None,
            is_for_apache: false,
            held: None,
            looked: None,
            is_lost: false,
            was_short: false,
        }
    }

    /// The same for the web server that `software` names in SERVER_SOFTWARE.
    pub(crate) fn for_server(self, software: &[u8]) -> Self {
        Self { is_for_apache: software.starts_with(b"Apache"), ..self }
    }

    /// How many of `wanted` bytes may be written in one blocking call. While a body is pending the
    /// answer is a number that cannot block.
    fn clear_way(&self, wanted: usize) -> io::Result<usize> {
        forks::refuse_child()?;
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        while let Some(pending) = self.body.pending() {
            let mut both =
                [PollFd::new(response, PollFlags::OUT), PollFd::new(&*pending, PollFlags::IN)];
            poll(&mut both, None)?;
            let (can_write, can_read) =
                (!both[0].revents().is_empty(), !both[1].revents().is_empty());
            // What is dropped costs nothing, and behind its end the response is written in large
            // pieces.
            if can_read && (!can_write || self.body.has_ended()) {
                self.body.spool_body(&pending);
            }
            if can_write && self.body.pending().is_some() {
                return Ok(wanted.min(SURE));
            }
        }
        Ok(wanted)
    }
}

/// Device and inode of an open file.
fn file_of(descriptor: &Descriptor) -> Option<(u64, u64)> {
    fstat(descriptor).ok().map(|file| (file.st_dev, file.st_ino))
}

impl ResponseSink for CgiResponse {
    fn head_leaves(&mut self) {
        // An application may close our descriptors, or put others in their places. A gateway that
        // cannot be told sends an error page, behind which or before which nothing else may stand.
        let is_ours = !forks::is_child()
            && self.descriptor.as_ref().is_some_and(|response| file_of(response) == self.file);
        let is_told = if is_ours { self.reporter.try_send(&Report::ResponseStarts) } else { false };
        if !is_told {
            if !forks::is_child() {
                forks::mark_lost(!is_ours && self.reporter.try_send(&Report::DescriptorsLost));
            }
            self.descriptor = None;
            self.is_lost = true;
        }
    }

    fn write(
        &mut self,
        py: Python<'_>,
        head: &[u8],
        block: &[u8],
        _last: bool,
    ) -> io::Result<usize> {
        py.detach(|| self.write_some(head, block))
    }

    fn send_file(
        &mut self,
        py: Python<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        py.detach(|| self.send_some(file, offset, count))
    }

    fn look(&mut self, py: Python<'_>) -> io::Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        if self.has_reader(py, AT_ONCE) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn is_over(&mut self, py: Python<'_>, complete: bool) {
        py.detach(|| self.end(complete));
    }

    fn is_abandoned(&mut self, py: Python<'_>) -> bool {
        !self.has_reader(py, MOMENT)
    }

    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()> {
        py.detach(|| {
            self.end(complete);
            self.leave(complete);
        });
        Ok(())
    }

    fn had_surplus(&self) -> bool {
        self.body.state().had_surplus
    }
}

impl CgiResponse {
    /// Is the other end of the response open after `moment`?
    fn has_reader(&self, py: Python<'_>, moment: Timespec) -> bool {
        let Some(response) = &self.descriptor else {
            return false;
        };
        // Asked for nothing, the kernel tells of errors and of closed ends alone.
        let mut watched = [PollFd::new(response, PollFlags::empty())];
        py.detach(|| !matches!(poll(&mut watched, Some(&moment)), Ok(1..)))
    }

    fn write_some(&mut self, head: &[u8], block: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.was_short) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = self.clear_way(head.len() + block.len())?;
        let head = &head[..head.len().min(room)];
        let block = &block[..block.len().min(room - head.len())];
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let written = writev(response, &[io::IoSlice::new(head), io::IoSlice::new(block)])?;
        self.was_short = written < head.len() + block.len();
        Ok(written)
    }

    fn send_some(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        let room = self.clear_way(count)?;
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut position = offset;
        match sendfile(response, file, Some(&mut position), room) {
            // The file system or the descriptor has no such path; then by way of a buffer.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut piece = vec![0; room.min(64 * 1024)];
                let got = rustix::io::pread(file, &mut piece, offset)?;
                Ok(rustix::io::write(response, &piece[..got])?)
            }
            sent => Ok(sent?),
        }
    }

    /// Ends the response. The application may go on reading the request body.
    fn end(&mut self, complete: bool) {
        if forks::is_child() {
            return;
        }
        if let Some(part) = self.part.take().filter(|_| !self.is_lost) {
            (part.tell)(complete);
        }
        let Some(response) = self.descriptor.take() else {
            return;
        };
        if shutdown(&response, Shutdown::Write).is_ok() {
            self.socket = Some(response);
        } else if self.is_for_apache && is_pipe(&response) && is_pipe(io::stderr()) {
            // mod_cgi passes on what it has when no more comes for a moment. After the end of the
            // response it waits for the end of standard error first.
            self.held = Some(response);
        }
        // Of a pipe, closing it is the end.
    }

    /// The application has done its work.
    fn leave(&mut self, complete: bool) {
        if forks::is_child() {
            return;
        }
        self.body.look_for_surplus();
        let body_left = self.body.pending().is_some();
        self.body.close();
        if self.is_guarded && !self.is_lost {
            self.reporter.send(&Report::RequestEnded { complete });
        }
        if let Some(socket) = self.socket.take() {
            end_response(socket, body_left);
        }
        if self.exits {
            // Exit handlers have standard error, too.
            std::mem::forget(self.held.take());
        }
    }
}
