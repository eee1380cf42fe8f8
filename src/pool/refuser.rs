//! A minimal FastCGI server in the supervisor: answers requests with 503 Service Unavailable while
//! no worker can serve them, or all workers are busy for too long.
//!
//! The server never blocks, and keeps a limited number of connections of [`MAX_PARAMS_BYTES`] each,
//! and each for [`CONNECTION_TIMEOUT`] at most. The server reads only the part of a request that
//! identifies it in the log.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use diagnostics::{
    error_page::{Page, Status},
    message::LogMessage,
    request_id,
};
use fastcgi_server::{
    Connection, Event, Limits, Output, Params, RequestId, Stream, bodies::ProtocolStatus,
};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};
use wire::{request::ResponseFormat, running_clock};

use crate::request::Request;

/// Maximum size of the parameters of one request in bytes. A larger request is refused, and the log
/// does not identify it.
const MAX_PARAMS_BYTES: usize = 64 * 1024;

/// Timeout of one connection, regardless of its peer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of reads from one connection in one turn of the supervisor's loop.
const MAX_READS_PER_TURN: usize = 16;

/// Connections whose requests are refused.
pub(super) struct Refuser {
    connections: Vec<RefusedConnection>,
    max_connections: usize,
}

/// A connection whose request is refused.
struct RefusedConnection {
    socket: OwnedFd,
    protocol: Connection,
    /// The response; `sent` of its bytes were sent.
    response: Vec<u8>,
    sent: usize,
    stage: Stage,
    due: Instant,
}

/// Progress of a refused connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The request is being read.
    Reading,
    /// The response is being sent.
    Writing,
    /// The response was sent, and further input is dropped. Closing a socket with unread input
    /// resets the connection, and the client loses the response.
    Draining,
}

impl Refuser {
    /// A refuser of up to `max_connections` connections at a time.
    pub(super) fn new(max_connections: usize) -> Self {
        Self { connections: Vec::new(), max_connections }
    }

    /// May another connection be added?
    pub(super) fn has_room(&self) -> bool {
        self.connections.len() < self.max_connections
    }

    /// Is no request being refused?
    pub(super) fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, socket: OwnedFd) {
        let limits = Limits { params_bytes: MAX_PARAMS_BYTES, ..Limits::default() };
        self.connections.push(RefusedConnection {
            socket,
            protocol: Connection::new(limits),
            response: Vec::new(),
            sent: 0,
            stage: Stage::Reading,
            due: running_clock::instant() + CONNECTION_TIMEOUT,
        });
    }

    /// Sockets to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.connections.iter().map(|refused| {
            let event =
                if refused.stage == Stage::Writing { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(refused.socket.as_fd(), event)
        })
    }

    /// Time of the next connection timeout.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.connections.iter().map(|refused| refused.due).min()
    }

    /// Continues all connections without blocking. `reason` says why requests are refused; clients
    /// see it if `debug` is set. Returns the requests that were refused now.
    pub(super) fn proceed(&mut self, reason: &LogMessage, debug: bool) -> Vec<Request> {
        let now = running_clock::instant();
        let detail = debug.then(|| reason.for_client());
        let mut refused = Vec::new();
        self.connections.retain_mut(|connection| {
            connection.due > now
                && connection.proceed(detail.as_deref(), &mut refused).is_ok_and(|stays| stays)
        });
        refused
    }
}

impl RefusedConnection {
    /// Continues the connection. Returns whether it stays open.
    fn proceed(&mut self, detail: Option<&str>, refused: &mut Vec<Request>) -> Result<bool, Errno> {
        if self.stage == Stage::Reading && !self.read(detail, refused)? {
            return Ok(false);
        }
        if self.stage == Stage::Writing {
            while self.sent < self.response.len() {
                match send(
                    &self.socket,
                    &self.response[self.sent..],
                    SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
                ) {
                    Ok(count) => self.sent += count,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            shutdown(&self.socket, Shutdown::Write)?;
            self.stage = Stage::Draining;
        }
        if self.stage == Stage::Draining {
            return self.receive(|_, _| true);
        }
        Ok(true)
    }

    /// Reads until the request is known. Returns whether the connection stays open.
    fn read(&mut self, detail: Option<&str>, refused: &mut Vec<Request>) -> Result<bool, Errno> {
        self.receive(|connection, mut bytes| {
            while let Ok(step) = connection.protocol.receive(bytes) {
                bytes = &bytes[step.consumed..];
                let Some(event) = step.event else {
                    return true;
                };
                connection.answer(event, detail, refused);
                if connection.stage != Stage::Reading {
                    return false;
                }
            }
            // The input is not FastCGI.
            false
        })
        .map(|stays| stays || self.stage == Stage::Writing)
    }

    /// Passes input to `take`, until that returns `false` or no more input has arrived. Returns
    /// whether more may arrive.
    fn receive(&mut self, mut take: impl FnMut(&mut Self, &[u8]) -> bool) -> Result<bool, Errno> {
        let mut bytes = [0; 16 * 1024];
        for _ in 0..MAX_READS_PER_TURN {
            match recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Ok(false),
                Ok((length, _)) => {
                    if !take(self, &bytes[..length]) {
                        return Ok(false);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn answer(&mut self, event: Event<'_>, detail: Option<&str>, refused: &mut Vec<Request>) {
        match event {
            Event::Params { id, params } => {
                let request = request_of(&params);
                self.respond(id, &request, detail);
                refused.push(request);
            }
            Event::BadParams { id, .. } => {
                let request = Request::synthetic("-", "-", Vec::new());
                self.respond(id, &request, detail);
                refused.push(request);
            }
            Event::Response(response) => {
                response.append_to(&mut self.response);
                // `FCGI_GET_VALUES`: a client that sends it sends no request on this connection.
                self.stage = Stage::Writing;
            }
            Event::Abort { id } => {
                let ending = Output::new(id).end_request(1, ProtocolStatus::RequestComplete);
                self.response.extend_from_slice(&ending);
                self.stage = Stage::Writing;
            }
            Event::Begin { .. } | Event::Stdin { .. } | Event::StdinEnd { .. } => {}
        }
    }

    fn respond(&mut self, id: RequestId, request: &Request, detail: Option<&str>) {
        let page = Page {
            status: Status::ServiceUnavailable,
            request_id: &request.id,
            detail,
            head_only: request.is_head(),
        };
        let output = Output::new(id);
        let page = page.render(ResponseFormat::FastCgi.around_status());
        output.append(Stream::Stdout, &page, &mut self.response);
        self.response.extend_from_slice(&output.ending(0, false));
        self.stage = Stage::Writing;
    }
}

/// The request with these parameters, named in the log as a worker would name it.
fn request_of(params: &Params) -> Request {
    let text = |name: &[u8]| {
        let value = params.get(name).filter(|value| !value.is_empty());
        value.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let target = text(b"REQUEST_URI").unwrap_or_else(|| {
        [&b"SCRIPT_NAME"[..], b"PATH_INFO"].into_iter().filter_map(text).collect()
    });
    let mut request =
        Request::synthetic(&text(b"REQUEST_METHOD").unwrap_or_default(), &target, Vec::new());
    if let Some(id) = text(b"UNIQUE_ID").filter(|id| request_id::is_request_id(id)) {
        request.id = id;
    }
    request
}
