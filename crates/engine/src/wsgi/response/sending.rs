//! Sends a response: decides which headers and how much of the body are sent, and when.

use std::{os::fd::AsFd as _, sync::MutexGuard};

use diagnostics::{
    message::{Code, LogMessage},
    request_id,
};
use pyo3::{prelude::*, types::PyBytes};
use wire::{request::ResponseFormat, scoreboard::OneTimeWarning};

use crate::wsgi::{
    ClientWait,
    error::ServeError,
    file_wrapper::FilePart,
    offload::{self, keeps},
    response::{
        BodyFlow, Response,
        state::{ResponseStage, ResponseState},
    },
};

/// How many bytes of a file are sent before signals are handled again.
const MAX_FILE_PIECE: u64 = 1 << 20;

/// How many bytes a pipe accepts at once, the smallest of the channels between a gateway and a web
/// server. If the process is killed, either all of these bytes were sent or none.
const PIPE_CAPACITY: u64 = 65_536;

impl Response {
    /// Sends a block of the body, with the headers before the first block. `whole` is the length of
    /// the whole body in bytes, if known.
    pub(in crate::wsgi) fn send(
        &self,
        py: Python<'_>,
        block: &Bound<'_, PyBytes>,
        whole: Option<u64>,
    ) -> Result<BodyFlow, ServeError> {
        let block = block.as_bytes();
        let mut state = self.state(py);
        let headers = self.take_headers(&mut state, whole, Some(block.len() as u64))?;
        let room = self.room(&mut state, block.len() as u64);
        // Slices have at most `isize::MAX` bytes, so the room within one fits `usize`.
        let block = &block[..usize::try_from(room).unwrap_or(block.len())];
        let last = state.is_complete_after(room);
        let mut state = self.transmit(py, state, &headers, block, last)?;
        self.note_completion(py, &mut state);
        if headers.is_empty() && block.is_empty() {
            state.look(py)?;
        }
        Ok(state.flow())
    }

    /// Checks that the client is still connected. Called for each empty block of the application.
    /// Only a write or this check shows that the client has closed the connection.
    pub(in crate::wsgi) fn look(&self, py: Python<'_>) -> Result<(), ServeError> {
        self.state(py).look(py)
    }

    /// Notes that `wsgi.file_wrapper` made the body from a file. Such a body is cut at its
    /// Content-Length (PEP 3333 *Optional Platform-Specific File Handling*).
    pub(in crate::wsgi) fn body_is_file(&self, py: Python<'_>) {
        self.state(py).is_file = true;
    }

    /// Sends a part of a file, with the headers before it, or lets the web server send the file.
    pub(in crate::wsgi) fn send_file(
        &self,
        py: Python<'_>,
        part: &FilePart,
    ) -> Result<(), ServeError> {
        if self.offload_file(py, part)? {
            return Ok(());
        }
        let mut state = self.state(py);
        let headers = self.take_headers(&mut state, Some(part.length), Some(0))?;
        let room = self.room(&mut state, part.length);
        drop(self.transmit(py, state, &headers, b"", false)?);
        let mut done = 0;
        while done < room {
            let count = usize::try_from((room - done).min(MAX_FILE_PIECE)).unwrap_or(usize::MAX);
            let mut state = self.state(py);
            let Some(sink) = &mut state.sink else {
                return Err(ServeError::ClientDisconnected);
            };
            let sent = sink.send_file(py, part.file.as_fd(), part.offset + done, count);
            match sent {
                Ok(0) => break,
                Ok(sent) => {
                    done += sent as u64;
                    state.sent += sent as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(state.broken(self.write_error(py, error))),
            }
            self.note_completion(py, &mut state);
            // Not under the lock: the application's signal handlers may call write().
            drop(state);
            self.interruptible.run_signal_handlers(py, ClientWait::ResponseRead)?;
        }
        Ok(())
    }

    /// Asks the web server to send the file in place of this process, if the client would see the
    /// same response. Returns whether the web server was asked.
    fn offload_file(&self, py: Python<'_>, part: &FilePart) -> Result<bool, ServeError> {
        let Some(offload) = self.offload.as_deref().filter(|_| part.offset == 0) else {
            return Ok(false);
        };
        let value = py.detach(|| offload::value_for(offload, &part.file));
        let mut state = self.state(py);
        let ResponseStage::Started(headers) = &mut state.stage else {
            return Ok(false);
        };
        let is_whole = headers.content_length().is_none_or(|length| length == part.length);
        if headers.status() != 200 || !is_whole {
            return Ok(false);
        }
        let own_name = request_id::is_sent().then_some(request_id::HEADER.as_bytes());
        let lost = headers.names().chain(own_name).find(|name| !keeps(&offload.header, name));
        let obstacle = match (value, lost) {
            (_, Some(name)) => Err(format!(
                "the web server would drop or change the header `{}`",
                String::from_utf8_lossy(name)
            )),
            _ if !headers.has_type() => Err("the response has no `Content-Type`".to_owned()),
            (Err(reason), None) => Err(reason),
            (Ok(value), None) => headers
                .leave_body_to_server(offload.header.name(), &value)
                .map_err(|invalid| invalid.to_string()),
        };
        if let Err(reason) = obstacle {
            drop(state);
            self.log.write_once(OneTimeWarning::FileNotOffloaded, || {
                let sentence = format!("a file was not left to the web server: {reason}");
                LogMessage::new(Code::FileNotOffloaded, sentence).hint(
                    "the worker sent it; `docs/send-files.md` has the conditions of --sendfile; a \
                     pool logs this once",
                )
            });
            return Ok(false);
        }
        let headers = self.take_headers(&mut state, (!self.head_only).then_some(0), None)?;
        let mut state = self.transmit(py, state, &headers, b"", !self.head_only)?;
        self.note_completion(py, &mut state);
        Ok(true)
    }

    /// Sends the headers if they were not sent yet: the application has returned its whole body.
    pub(in crate::wsgi) fn complete(&self, py: Python<'_>) -> Result<(), ServeError> {
        let mut state = self.state(py);
        match state.stage {
            ResponseStage::Nothing => {
                return Err(ServeError::bad_response(
                    "the application ended without a call of `start_response`",
                    "call start_response(\"200 OK\", [(\"Content-Type\", \"text/html; \
                     charset=utf-8\")]) before it returns",
                ));
            }
            ResponseStage::Started(_) => {
                let headers =
                    self.take_headers(&mut state, (!self.head_only).then_some(0), None)?;
                state = self.transmit(py, state, &headers, b"", false)?;
            }
            ResponseStage::HeadersSent { .. } | ResponseStage::Done => {}
        }
        if let ResponseStage::HeadersSent { limit: Some(limit), bodiless: false } = state.stage
            && state.sent < limit
        {
            state.is_short = true;
            self.log.write(
                &LogMessage::new(
                    Code::BodyTooShort,
                    format!(
                        "the body ended after {} of the {limit} bytes that Content-Length \
                         announces",
                        state.sent
                    ),
                )
                .hint(
                    "leave Content-Length out, or compute it from the encoded bytes, not from the \
                     text",
                ),
            );
        }
        Ok(())
    }

    /// Notes the end of the response once the announced length was sent.
    fn note_completion(&self, py: Python<'_>, state: &mut ResponseState) {
        if state.is_complete_after(0) {
            self.end_sending(py, state, true);
        }
    }

    pub(super) fn end_sending(&self, py: Python<'_>, state: &mut ResponseState, complete: bool) {
        if state.outcome.is_none() {
            state.outcome = Some(complete);
            self.interruptible.response_ended(py);
            state.sink.iter_mut().for_each(|sink| sink.sending_ended(py, complete));
        }
    }

    /// The headers to send, or nothing if they were sent before.
    ///
    /// `block` is the length of the block that is sent with the headers; `None` if no body follows.
    fn take_headers(
        &self,
        state: &mut ResponseState,
        whole: Option<u64>,
        block: Option<u64>,
    ) -> Result<Vec<u8>, ServeError> {
        let mut headers = match std::mem::replace(&mut state.stage, ResponseStage::Done) {
            ResponseStage::Started(headers) => headers,
            stage @ ResponseStage::HeadersSent { .. } => {
                state.stage = stage;
                return Ok(Vec::new());
            }
            ResponseStage::Nothing => {
                state.stage = ResponseStage::Nothing;
                return Err(ServeError::bad_response(
                    "the application gave a body before it called `start_response`",
                    "call start_response(status, headers) before the first block of the body",
                ));
            }
            ResponseStage::Done => return Err(ServeError::ClientDisconnected),
        };
        let bodiless = self.head_only || headers.is_bodiless();
        if let Some(whole) = whole
            && headers.content_length().is_none()
            && !headers.is_bodiless()
        {
            headers.set_content_length(whole);
        }
        headers.complete_length();
        if headers.remove_redirect_of_success() {
            self.log.write(
                &LogMessage::new(
                    Code::LocationLeftOut,
                    "a `Location` came with status 200 and was left out",
                )
                .hint(
                    "web servers make such a CGI response a redirect; use a 3xx status to \
                        redirect, \
                     201 for what was created",
                ),
            );
        }
        if block.is_some() && !headers.is_bodiless() && !headers.has_type() {
            self.log.write_once(OneTimeWarning::NoContentType, || {
                LogMessage::new(
                    Code::NoContentType,
                    "the response has a body but no `Content-Type`",
                )
                .hint(
                    "pass (\"Content-Type\", \"text/html; charset=utf-8\") to start_response; a \
                     pool logs this once",
                )
            });
        }
        if self.closes_if_incomplete
            && !bodiless
            && let Some(length) = headers.content_length()
            && (length > block.unwrap_or(0) || length > PIPE_CAPACITY)
            // A file exists as a whole, and closing the connection after each file would be slow.
            && !(state.is_file && self.form == ResponseFormat::FastCgi)
        {
            headers.close_connection();
        }
        if request_id::is_sent() {
            headers.add_request_id(self.log.request_id());
        }
        state.stage = ResponseStage::HeadersSent { limit: headers.content_length(), bodiless };
        state.status = headers.status();
        state.is_partial = headers.is_partial();
        state.sink.iter_mut().for_each(|sink| sink.headers_leave());
        Ok(headers.into_bytes())
    }

    /// How many of `length` bytes may be sent. Logs the first excess.
    fn room(&self, state: &mut ResponseState, length: u64) -> u64 {
        let ResponseStage::HeadersSent { limit, bodiless } = state.stage else {
            return 0;
        };
        let room = match (bodiless, limit) {
            (true, _) => 0,
            (false, Some(limit)) => limit.saturating_sub(state.sent),
            (false, None) => u64::MAX,
        };
        let is_part_of_file = state.is_file && state.is_partial;
        if length > room
            && !std::mem::replace(&mut state.excess, true)
            && !self.head_only
            && !is_part_of_file
        {
            let message = match limit {
                Some(limit) if !bodiless => LogMessage::new(
                    Code::BodyTooLong,
                    format!(
                        "the body is longer than the {limit} bytes that Content-Length announces"
                    ),
                )
                .hint(
                    "it was cut there; compute Content-Length from the encoded bytes, not from the \
                     text",
                ),
                _ => LogMessage::new(Code::UnwantedBody, "a body came with a status that has none")
                    .hint("it was left out; return [] with 204, 205 and 304"),
            };
            self.log.write(&message);
        }
        length.min(room)
    }

    /// Writes `headers` and `block`, in as many calls as needed.
    pub(super) fn transmit<'a>(
        &'a self,
        py: Python<'_>,
        mut state: MutexGuard<'a, ResponseState>,
        mut headers: &[u8],
        mut block: &[u8],
        last: bool,
    ) -> Result<MutexGuard<'a, ResponseState>, ServeError> {
        while !headers.is_empty() || !block.is_empty() {
            let Some(sink) = &mut state.sink else {
                return Err(ServeError::ClientDisconnected);
            };
            let written = sink.write(py, headers, block, last);
            if let Ok(count) = written {
                let of_headers = count.min(headers.len());
                headers = &headers[of_headers..];
                block = &block[count - of_headers..];
                state.sent += (count - of_headers) as u64;
            }
            match written {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    // Not under the lock: the application's signal handlers may call write().
                    drop(state);
                    self.interruptible.run_signal_handlers(py, ClientWait::ResponseRead)?;
                    state = self.state(py);
                }
                Err(error) => return Err(state.broken(self.write_error(py, error))),
            }
        }
        Ok(state)
    }
}
