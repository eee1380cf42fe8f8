//! The response to a request: records around the application's bytes.

use std::{cell::Cell, io, os::fd::BorrowedFd, sync::Arc, time::Instant};

use fastcgi_server::{Output, RequestId, Stream, bodies::ProtocolStatus};
use pyo3::Python;
use rustix::{
    fs::sendfile,
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown},
};

use crate::{
    log::Transcript,
    process::poll::has_hung_up,
    transport::{
        ABORT_CHECK_INTERVAL,
        fastcgi::{
            active_request::ActiveRequest,
            cut_response::CutStyle,
            error_records::ErrorRecords,
            room::wait_and_spool,
            shared::{ConnectionState, SharedConnection},
        },
    },
    wsgi::ResponseSink,
};

/// Bytes that a writable socket takes without blocking.
const SAFE_WRITE_SIZE: usize = 4096;

/// Maximum number of bytes that are copied into one buffer before sending: copying is faster than
/// the kernel's gathering.
const MAX_COPIED_BYTES: usize = 2048;

/// The response to a request.
pub(crate) struct FastCgiResponse {
    shared: Arc<SharedConnection>,
    id: RequestId,
    output: Output,
    errors: ErrorRecords,
    /// Bytes of content that the current record still lacks.
    in_record: usize,
    /// The record with the response headers was begun.
    has_begun: bool,
    /// The end of the request has been sent.
    has_ended: bool,
    /// The request body is longer than CONTENT_LENGTH.
    had_surplus: bool,
    /// The web server did not read in time. The sent bytes may end anywhere, and no bytes follow.
    is_stuck: Cell<bool>,
    /// How the response is marked as incomplete for the web server.
    cut_style: CutStyle,
    /// The response was marked as incomplete. No bytes follow.
    is_cut: bool,
    /// When the request was last checked for an abort. The first check follows the first record.
    checked: Option<Instant>,
}

impl FastCgiResponse {
    /// The response to the request `id`. Messages of `transcript` go to the web server's log.
    pub(super) fn new(
        shared: Arc<SharedConnection>,
        id: RequestId,
        transcript: Option<Arc<Transcript>>,
        cut_style: CutStyle,
    ) -> Self {
        Self {
            shared,
            id,
            output: Output::new(id),
            cut_style,
            is_cut: false,
            errors: ErrorRecords::new(transcript),
            in_record: 0,
            has_begun: false,
            has_ended: false,
            had_surplus: false,
            is_stuck: Cell::new(false),
            checked: None,
        }
    }

    /// Sends some of these bytes.
    fn send(&self, py: Python<'_>, pieces: &[&[u8]]) -> io::Result<usize> {
        let socket = self.shared.own_socket()?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let length: usize = pieces.iter().map(|piece| piece.len()).sum();
        let copied = (length <= MAX_COPIED_BYTES).then(|| pieces.concat());
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
                Err(Errno::AGAIN) => self.wait_for_room(py)?,
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits until bytes can be sent. Spools the part of the body that blocks the web server.
    fn wait_for_room(&self, py: Python<'_>) -> io::Result<()> {
        let shared = &self.shared;
        let waited = py.detach(|| wait_and_spool(shared));
        if waited.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.is_stuck.set(true);
        }
        waited
    }

    /// Sends all of these bytes, even if signals arrive.
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

    /// Ends an incomplete response before `close()` of the application, which may take long. Does
    /// nothing if no record can begin, or if the request was aborted.
    fn end_cut(&mut self, py: Python<'_>) {
        let is_active = |request: &ActiveRequest| !request.is_aborted();
        let can_end = self.shared.state_while(py).request.as_ref().is_some_and(is_active);
        if !can_end || self.has_ended || self.in_record > 0 || self.is_stuck.get() {
            return;
        }
        if self.send_errors(py).is_err() {
            return;
        }
        let Ok(socket) = self.shared.own_socket() else {
            return;
        };
        let (style, id) = (self.cut_style, self.id);
        py.detach(|| {
            style.end(socket, id);
            // The web server must not send another request on this connection.
            let _ = shutdown(socket, Shutdown::Write);
        });
        self.is_cut = true;
    }

    /// Sends the messages that were logged since the last record.
    fn send_errors(&mut self, py: Python<'_>) -> io::Result<()> {
        let records = self.errors.take(&self.output, self.has_begun);
        self.send_all(py, &records)
    }

    /// Fails if the web server has aborted the request, or has closed the connection. An abort
    /// after a large unread body is noticed only with `may_spool`.
    fn check_abort(&mut self, may_spool: bool) -> io::Result<()> {
        if self.checked.is_some_and(|checked| checked.elapsed() < ABORT_CHECK_INTERVAL) {
            return Ok(());
        }
        self.checked = Some(Instant::now());
        // If another thread of the application reads the body, that thread notices the abort.
        let Some(mut state) = self.shared.try_state() else {
            return Ok(());
        };
        let ConnectionState { records, request, .. } = &mut *state;
        match request {
            Some(request) => request.check_abort(records, self.shared.socket(), may_spool),
            None => Ok(()),
        }
    }

    /// Begins a record for the first of `wanted` bytes.
    fn open_record(&mut self, py: Python<'_>, wanted: usize) -> io::Result<()> {
        self.send_errors(py)?;
        if let Some(frame) = self.output.frames(Stream::Stdout, wanted).next() {
            self.send_all(py, frame.header())?;
            self.in_record = frame.content_length();
        }
        Ok(())
    }

    /// Continues the record that is being sent.
    fn continue_record(
        &mut self,
        py: Python<'_>,
        headers: &[u8],
        block: &[u8],
    ) -> io::Result<usize> {
        let headers = &headers[..headers.len().min(self.in_record)];
        let block = &block[..block.len().min(self.in_record - headers.len())];
        let count = self.send(py, &[headers, block])?;
        self.in_record -= count;
        Ok(count)
    }

    /// Sends the remaining messages, and then the end of the response if it is `complete`. Was the
    /// end sent, and does the web server still read?
    fn send_end(&mut self, py: Python<'_>, complete: bool) -> (bool, io::Result<()>) {
        let is_whole = complete && self.in_record == 0;
        let mut sent = Ok(());
        if !self.has_ended && self.in_record == 0 {
            sent = self.send_errors(py);
        }
        // A web server that does not read the messages does not read the end.
        if is_whole && !self.has_ended && sent.is_ok() {
            sent = self.send_all(py, &self.output.ending(0, self.errors.is_used()));
        }
        (self.has_ended || (is_whole && sent.is_ok()), sent)
    }

    /// Ends an aborted request, so that the connection can be used again (FastCGI 1.0, 5.4). Was
    /// the end sent?
    fn send_abort_end(&self, py: Python<'_>) -> bool {
        let mut end = self.errors.end(&self.output);
        end.extend(self.output.end_request(1, ProtocolStatus::RequestComplete));
        self.send_all(py, &end).is_ok()
    }
}

impl ResponseSink for FastCgiResponse {
    fn headers_leave(&mut self) {}

    fn write(
        &mut self,
        py: Python<'_>,
        headers: &[u8],
        block: &[u8],
        last: bool,
    ) -> io::Result<usize> {
        if self.in_record > 0 {
            return self.continue_record(py, headers, block);
        }
        if self.has_begun {
            self.check_abort(false)?;
        } else if !last {
            self.checked = Some(Instant::now());
        }
        self.send_errors(py)?;
        let total = headers.len() + block.len();
        let Some(frame) = self.output.frames(Stream::Stdout, total).next() else {
            return Ok(0);
        };
        self.has_begun = true;
        let length = frame.content_length();
        let is_last = last && length == total;
        let headers = &headers[..headers.len().min(length)];
        let block = &block[..block.len().min(length - headers.len())];
        // Messages from before the headers follow the record with the headers.
        let errors =
            if is_last { self.errors.take(&self.output, self.has_begun) } else { Vec::new() };
        let ending = self.output.ending(0, self.errors.is_used());
        let ending: &[u8] = if is_last { &ending } else { &[] };
        let header = frame.header();
        let sent = self.send(py, &[header, headers, block, &errors, ending])?;
        // The engine's bytes are sent completely, so that only bytes of the application can be
        // left.
        self.send_all(py, &header[sent.min(header.len())..])?;
        let content = sent.saturating_sub(header.len()).min(length);
        if is_last && content == length {
            let behind = sent - header.len() - length;
            self.send_all(py, &errors[behind.min(errors.len())..])?;
            self.send_all(py, &ending[behind.saturating_sub(errors.len())..])?;
            self.has_ended = true;
        }
        if content < length {
            self.errors.put_back(errors);
        }
        self.in_record = length - content;
        if self.in_record == 0 && !self.has_ended {
            self.send_errors(py)?;
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
            self.check_abort(false)?;
            self.open_record(py, count)?;
        }
        let socket = self.shared.own_socket()?;
        let may_continue = {
            let mut state = self.shared.state_while(py);
            let ConnectionState { records, request, .. } = &mut *state;
            match request {
                Some(request) => request.may_continue(records, socket)?,
                None => false,
            }
        };
        // sendfile(2) has no flag like MSG_DONTWAIT.
        if may_continue {
            self.wait_for_room(py)?;
        }
        let room = if may_continue { self.in_record.min(SAFE_WRITE_SIZE) } else { self.in_record };
        let mut position = offset;
        loop {
            match py.detach(|| sendfile(socket, file, Some(&mut position), room.min(count))) {
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
                Err(Errno::AGAIN) => self.wait_for_room(py)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn look(&mut self, _: Python<'_>) -> io::Result<()> {
        self.check_abort(true)
    }

    /// If the length was known, the end was sent with the last block. Otherwise the end follows
    /// `close()`, because the web server would send its next request while nobody reads the
    /// connection.
    fn sending_ended(&mut self, py: Python<'_>, complete: bool) {
        if !complete {
            self.end_cut(py);
        }
    }

    fn is_abandoned(&mut self, py: Python<'_>) -> bool {
        self.shared.state_while(py).request.as_ref().is_some_and(ActiveRequest::is_aborted)
            || has_hung_up(self.shared.socket())
    }

    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()> {
        if self.shared.own_socket().is_err() || self.is_stuck.get() || self.is_cut {
            return Ok(());
        }
        let (mut has_end, sent) = self.send_end(py, complete);
        let shared = self.shared.clone();
        let mut state = shared.state_while(py);
        let ConnectionState { records, request, .. } = &mut *state;
        let Some(active) = request else {
            return Ok(());
        };
        active.discard_received(records, shared.socket());
        self.had_surplus = active.has_surplus();
        if !has_end && active.is_aborted() && self.in_record == 0 && !self.is_stuck.get() {
            // Waiting for room locks the state, too.
            drop(state);
            has_end = self.send_abort_end(py);
            state = shared.state_while(py);
        }
        let ConnectionState { records, request, has_body_ended, .. } = &mut *state;
        if has_end && let Some(active) = request.take() {
            *has_body_ended = active.has_ended();
            records.finish(active.id());
        }
        // Otherwise the request stays active, and the connection is closed.
        match sent {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            _ => Ok(()),
        }
    }

    fn had_surplus(&self) -> bool {
        self.had_surplus
    }
}
