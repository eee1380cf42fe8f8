//! A request on a connection to a FastCGI server, and its response.

use std::{
    collections::VecDeque,
    fs::File,
    io::{
        BufRead, Read, Take, Write as _, {self},
    },
    num::NonZero,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use diagnostics::{
    escape,
    message::{Code, LogMessage},
};
use fastcgi_server::{
    bodies::EndRequest,
    client::{ClientConnection, ClientError, ClientEvent, Request},
    record::UnknownVersion,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    call::{
        response_failure::{cut, no_fastcgi},
        server::Server,
    },
    config::settings::INTERACTIVE_TIMEOUT_SECS,
};

/// The id of the only request of the connection.
pub(super) const ID: NonZero<u16> = NonZero::<u16>::MIN;

/// Maximum content of a body record in bytes: a multiple of eight, which needs no padding.
const MAX_RECORD_BYTES: usize = 0xfff8;

/// A request that is being sent, and the response that is being received. Reading from the exchange
/// returns the bytes of the response.
pub(super) struct Exchange {
    socket: OwnedFd,
    deadline: Option<Instant>,
    timeout_secs: u64,
    /// How long the server may send nothing, if the request has no deadline.
    silence_timeout_secs: Option<u64>,
    /// When bytes were last sent or received.
    last_progress: Instant,
    /// The server has sent something.
    is_answered: bool,
    /// The rest of the request body, until its end is in `out`.
    body: Option<Take<File>>,
    /// Records that are being sent, and how many of their bytes were sent.
    out: Vec<u8>,
    sent: usize,
    connection: ClientConnection,
    received: Box<[u8]>,
    /// Received bytes of the response that were not read yet.
    response: VecDeque<u8>,
    /// The response has begun.
    has_begun: bool,
    /// The server's last message on standard error has no newline at its end.
    within_line: bool,
    /// The result of the request, once it has ended.
    result: Option<Result<EndRequest, LogMessage>>,
}

/// The time `seconds` from now; `None` beyond the range of the clock.
fn in_seconds(seconds: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds))
}

impl Exchange {
    /// Connects to `server`, to send `start` and then `body`. `timeout_secs` limits the request; 0
    /// is no limit. Without `timeout_secs`, the server may send nothing for
    /// [`INTERACTIVE_TIMEOUT_SECS`].
    ///
    /// # Errors
    /// If the server cannot be connected to.
    pub(super) fn connect(
        server: &Server,
        timeout_secs: Option<u64>,
        start: Vec<u8>,
        body: Take<File>,
    ) -> Result<Self, LogMessage> {
        let silence_timeout_secs = timeout_secs.is_none().then_some(INTERACTIVE_TIMEOUT_SECS);
        let timeout_secs = timeout_secs.unwrap_or(0);
        let deadline = in_seconds(timeout_secs).filter(|_| timeout_secs > 0);
        Ok(Self {
            socket: server.connect(deadline.or_else(|| in_seconds(silence_timeout_secs?)))?,
            deadline,
            timeout_secs,
            silence_timeout_secs,
            last_progress: Instant::now(),
            is_answered: false,
            body: Some(body),
            out: start,
            sent: 0,
            connection: ClientConnection::new(),
            received: vec![0; 1 << 16].into(),
            response: VecDeque::new(),
            has_begun: false,
            within_line: false,
            result: None,
        })
    }

    /// The result of the request, if it has ended.
    pub(super) fn take_result(&mut self) -> Option<Result<EndRequest, LogMessage>> {
        self.result.take()
    }

    /// The log message about a timeout.
    fn timed_out(&self) -> LogMessage {
        let sentence = match (self.silence_timeout_secs, self.is_answered) {
            (None, _) => {
                let sentence = format!("the request took longer than {} s", self.timeout_secs);
                let hint = if self.is_answered {
                    "check what the server is doing, or raise --timeout"
                } else {
                    "the server has sent nothing: check what it is doing, and whether it speaks \
                        FastCGI"
                };
                return LogMessage::new(Code::TimedOut, sentence).hint(hint);
            }
            (Some(seconds), true) => format!("the server has sent nothing more for {seconds} s"),
            (Some(seconds), false) => format!("the server has sent nothing for {seconds} s"),
        };
        LogMessage::new(Code::TimedOut, sentence).hint(if self.is_answered {
            "check what the server is doing; --timeout SECONDS waits longer, --timeout 0 without a \
             limit"
        } else {
            "check whether it speaks FastCGI: an HTTP server waits for a request of its own \
                protocol; \
             --timeout SECONDS waits longer"
        })
    }

    /// Waits for the end of the request, and discards the rest of the response.
    pub(super) fn finish(&mut self) -> Result<EndRequest, LogMessage> {
        loop {
            self.response.clear();
            self.await_more();
            if let Some(result) = self.result.take() {
                return result;
            }
        }
    }

    /// Waits until bytes of the response can be read, or the request has ended.
    fn await_more(&mut self) {
        while self.response.is_empty() && self.result.is_none() {
            if let Err(message) = self.advance() {
                self.result = Some(Err(message));
            }
        }
    }

    /// Waits until bytes can be sent or received, and transfers them. A server may respond before
    /// reading the whole request. If the client did not read meanwhile, both sides would wait
    /// forever.
    fn advance(&mut self) -> Result<(), LogMessage> {
        self.refill()?;
        let due = self.deadline.or_else(|| {
            self.last_progress.checked_add(Duration::from_secs(self.silence_timeout_secs?))
        });
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let out = if self.sent < self.out.len() { PollFlags::OUT } else { PollFlags::empty() };
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN | out)];
        match poll(&mut socket, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(0) => {
                return Err(self.timed_out());
            }
            Err(Errno::INTR) => return Ok(()),
            ready => ready.map_err(|error| cut(&error.to_string()))?,
        };
        let found = socket[0].revents();
        if found.contains(PollFlags::OUT) {
            match send(
                &self.socket,
                &self.out[self.sent..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(length) => {
                    self.sent += length;
                    self.last_progress = Instant::now();
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The server reads no more of the request, but may have sent a response.
                Err(_) => {
                    self.body = None;
                    self.out.clear();
                    self.sent = 0;
                }
            }
        }
        if found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match recv(&self.socket, &mut *self.received, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(cut("the server closed the connection")),
                Ok((length, _)) => {
                    (self.last_progress, self.is_answered) = (Instant::now(), true);
                    self.parse_records(length)?;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(cut(&error.to_string())),
            }
        }
        Ok(())
    }

    /// Builds the next record of the body when the last one was sent.
    fn refill(&mut self) -> Result<(), LogMessage> {
        if self.sent < self.out.len() {
            return Ok(());
        }
        self.out.clear();
        self.sent = 0;
        let Some(body) = &mut self.body else { return Ok(()) };
        let mut piece = Vec::with_capacity(MAX_RECORD_BYTES);
        body.take(MAX_RECORD_BYTES as u64).read_to_end(&mut piece).map_err(|error| {
            LogMessage::new(Code::BadSetting, format!("the request body cannot be read: {error}"))
                .hint("check the file of --data")
        })?;
        Request::new(ID).append_stdin(&piece, &mut self.out);
        if piece.len() < MAX_RECORD_BYTES {
            Request::new(ID).append_end_of_stdin(&mut self.out);
            self.body = None;
        }
        Ok(())
    }

    /// Parses the records in the bytes that were received.
    fn parse_records(&mut self, length: usize) -> Result<(), LogMessage> {
        let mut rest = &self.received[..length];
        while self.result.is_none() {
            let step = self.connection.receive(rest).map_err(|error| match error {
                // A pool of wsgate ends an incomplete response in this way.
                ClientError::UnknownVersion(UnknownVersion(0)) if self.has_begun => {
                    cut("the next bytes are not a record")
                }
                error => no_fastcgi(&error),
            })?;
            rest = &rest[step.consumed..];
            match step.event {
                None => break,
                Some(ClientEvent::Stdout { id: ID, bytes }) => {
                    self.response.extend(bytes);
                    self.has_begun = true;
                }
                Some(ClientEvent::Stderr { id: ID, bytes }) => {
                    // If standard error is closed, nobody reads the message.
                    let _ = io::stderr().lock().write_all(escape::lines(bytes).as_bytes());
                    self.within_line = !bytes.ends_with(b"\n");
                }
                Some(ClientEvent::End { id: ID, result }) => self.result = Some(Ok(result)),
                Some(
                    ClientEvent::Stdout { id, .. }
                    | ClientEvent::StdoutEnd { id }
                    | ClientEvent::Stderr { id, .. }
                    | ClientEvent::StderrEnd { id }
                    | ClientEvent::End { id, .. },
                ) if id != ID => {
                    return Err(no_fastcgi(&format_args!(
                        "a response to request `{id}`, which was not sent"
                    )));
                }
                // The end of a stream adds nothing to the end of the request; other events are
                // responses to management records, and this client sends none.
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Ends an unfinished line of the server on standard error.
    pub(super) fn end_line(&mut self) {
        if std::mem::take(&mut self.within_line) {
            let _ = io::stderr().lock().write_all(b"\n");
        }
    }
}

impl Read for Exchange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Exchange {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.await_more();
        self.response.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.response.consume(amount);
    }
}
