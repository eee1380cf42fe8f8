//! The response of a CGI request, and its end.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use pyo3::Python;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat, sendfile},
    io::{Errno, writev},
    net::{Shutdown, shutdown},
};
use wire::{lingering_close::end_response, report::Report};

use crate::{
    process::{
        forks::{self, Descriptor},
        poll::{hangs_up_within, has_hung_up},
    },
    reporter::Reporter,
    transport::{ABORT_CHECK_INTERVAL, cgi::body::CgiBody},
    wsgi::ResponseSink,
};

/// Bytes that a pipe or socket takes without blocking once it is writable (`PIPE_BUF`).
const SAFE_WRITE_SIZE: usize = 4096;

/// Time between two checks whether another thread still reads the request body.
const READ_CHECK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// How long a web server may take between ending this process and closing its end of the response.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);

/// Time from the last byte of an incomplete response to its end, in which Apache reads the byte.
const CUT_PAUSE: Duration = Duration::from_millis(50);

/// The response of a CGI request.
pub(crate) struct CgiResponse {
    descriptor: Option<Descriptor>,
    /// Device and inode of the file descriptor at the beginning.
    file: Option<(u64, u64)>,
    body: CgiBody,
    reporter: Reporter,
    /// The task before the end of the response.
    ending: Option<ResponseEnding>,
    /// The gateway watches this process until the application is done.
    is_guarded: bool,
    /// The process exits after the request.
    exits: bool,
    /// The socket of a response that has ended. The rest of the request body may still arrive.
    socket: Option<Descriptor>,
    /// The web server is Apache, whose mod_cgi waits for the end of standard error, too.
    is_for_apache: bool,
    /// The whole response was sent, but not its end.
    held: Option<Descriptor>,
    /// When the connection of the client was last checked.
    checked: Option<Instant>,
    /// The notification of the gateway about the response headers has failed. No more notifications
    /// are sent.
    is_lost: bool,
    /// The last write was short, possibly because of a signal, which the kernel does not report.
    was_short: bool,
}

/// A task before the end of a response.
pub(crate) struct ResponseEnding {
    /// Notifies the gateway that the response has ended, complete or cut.
    pub(crate) notify: Box<dyn FnOnce(bool) + Send>,
    /// The gateway keeps running, and is notified when the application is done.
    pub(crate) is_guarded: bool,
    /// This process exits after the request.
    pub(crate) exits: bool,
}

impl CgiResponse {
    /// The response on `descriptor` to a request with the body `body`.
    pub(crate) fn new(
        descriptor: Descriptor,
        body: CgiBody,
        reporter: Reporter,
        ending: ResponseEnding,
    ) -> Self {
        let file = file_of(&descriptor);
        Self {
            descriptor: Some(descriptor),
            file,
            body,
            reporter,
            is_guarded: ending.is_guarded,
            exits: ending.exits,
            ending: Some(ending),
            socket: None,
            is_for_apache: false,
            held: None,
            checked: None,
            is_lost: false,
            was_short: false,
        }
    }

    /// Like `new`, for the web server named `software` in SERVER_SOFTWARE.
    pub(crate) fn for_server(self, software: &[u8]) -> Self {
        Self { is_for_apache: software.starts_with(b"Apache"), ..self }
    }

    /// How many of `wanted` bytes one blocking call may write. Spools the body if the web server is
    /// blocked by it. While more of the body may arrive, the result is a size that cannot block.
    fn wait_for_room(&self, wanted: usize) -> io::Result<usize> {
        forks::refuse_child()?;
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        while let Some(pending) = self.body.pending() {
            let is_being_read = self.body.is_being_read();
            let wanted_of_body = if is_being_read { PollFlags::empty() } else { PollFlags::IN };
            let mut both =
                [PollFd::new(response, PollFlags::OUT), PollFd::new(&*pending, wanted_of_body)];
            poll(&mut both, is_being_read.then_some(&READ_CHECK_INTERVAL))?;
            let (can_write, can_read) =
                (!both[0].revents().is_empty(), !both[1].revents().is_empty());
            // Dropping surplus is cheap, and after its end the response is written in large pieces.
            if can_read && (!can_write || self.body.has_ended()) {
                self.body.spool_available(&pending);
            }
            if can_write && self.body.pending().is_some() {
                return Ok(wanted.min(SAFE_WRITE_SIZE));
            }
        }
        Ok(wanted)
    }

    fn write_some(&mut self, headers: &[u8], block: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.was_short) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let room = self.wait_for_room(headers.len() + block.len())?;
        let headers = &headers[..headers.len().min(room)];
        let block = &block[..block.len().min(room - headers.len())];
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let written = writev(response, &[io::IoSlice::new(headers), io::IoSlice::new(block)])?;
        self.was_short = written < headers.len() + block.len();
        Ok(written)
    }

    fn send_some(&mut self, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
        let room = self.wait_for_room(count)?;
        let Some(response) = &self.descriptor else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut position = offset;
        match sendfile(response, file, Some(&mut position), room) {
            // The file system or the file descriptor does not support sendfile(2): copy through a
            // buffer.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut piece = vec![0; room.min(64 * 1024)];
                let count = rustix::io::pread(file, &mut piece, offset)?;
                Ok(rustix::io::write(response, &piece[..count])?)
            }
            sent => Ok(sent?),
        }
    }

    /// Ends the response. The application may still read the request body.
    fn end(&mut self, complete: bool) {
        if forks::is_child() {
            return;
        }
        if let Some(ending) = self.ending.take().filter(|_| !self.is_lost) {
            (ending.notify)(complete);
        }
        let Some(response) = self.descriptor.take() else {
            return;
        };
        if !complete && self.is_for_apache {
            // If Apache reads the last bytes and the end together, it corrects Content-Length, and
            // a cut response would look complete to the client. The pause ends early without a
            // reader.
            hangs_up_within(&response, CUT_PAUSE);
        }
        if shutdown(&response, Shutdown::Write).is_ok() {
            self.socket = Some(response);
        } else if self.is_for_apache && is_pipe(&response) && is_pipe(io::stderr()) {
            // mod_cgi passes on received bytes if no more arrive for a moment. After the end of the
            // response, mod_cgi first waits for the end of standard error.
            self.held = Some(response);
        }
        // Closing a pipe ends the response.
    }

    /// Releases all resources after the application is done.
    fn release(&mut self, complete: bool) {
        if forks::is_child() {
            return;
        }
        self.body.check_surplus();
        let body_left = self.body.pending().is_some();
        self.body.close();
        if self.is_guarded && !self.is_lost {
            self.reporter.send(&Report::RequestEnded { complete });
        }
        if let Some(socket) = self.socket.take() {
            end_response(socket, body_left);
        }
        if self.exits {
            // Exit handlers may still write to standard error.
            std::mem::forget(self.held.take());
        }
    }
}

impl ResponseSink for CgiResponse {
    fn headers_leave(&mut self) {
        // An application may close or replace the engine's file descriptors. A gateway without a
        // notification sends an error page, so no other bytes may be sent before or after that
        // page.
        let is_ours = !forks::is_child()
            && self.descriptor.as_ref().is_some_and(|response| file_of(response) == self.file);
        let is_sent = if is_ours { self.reporter.try_send(&Report::ResponseStarts) } else { false };
        if !is_sent {
            if !forks::is_child() {
                forks::mark_descriptors_lost(
                    !is_ours && self.reporter.try_send(&Report::DescriptorsLost),
                );
            }
            self.descriptor = None;
            self.is_lost = true;
        }
    }

    fn write(
        &mut self,
        py: Python<'_>,
        headers: &[u8],
        block: &[u8],
        _last: bool,
    ) -> io::Result<usize> {
        py.detach(|| self.write_some(headers, block))
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

    fn look(&mut self, _: Python<'_>) -> io::Result<()> {
        if self.checked.is_some_and(|checked| checked.elapsed() < ABORT_CHECK_INTERVAL) {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        let is_closed = self.descriptor.as_ref().is_none_or(has_hung_up);
        if is_closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn sending_ended(&mut self, py: Python<'_>, complete: bool) {
        py.detach(|| self.end(complete));
    }

    fn is_abandoned(&mut self, py: Python<'_>) -> bool {
        let response = self.descriptor.as_ref();
        response.is_none_or(|response| py.detach(|| hangs_up_within(response, CLOSE_TIMEOUT)))
    }

    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()> {
        py.detach(|| {
            self.end(complete);
            self.release(complete);
        });
        Ok(())
    }

    fn had_surplus(&self) -> bool {
        self.body.had_surplus()
    }
}

/// Device and inode of an open file.
fn file_of(descriptor: &Descriptor) -> Option<(u64, u64)> {
    fstat(descriptor).ok().map(|file| (file.st_dev, file.st_ino))
}

fn is_pipe(descriptor: impl AsFd) -> bool {
    fstat(descriptor).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}
