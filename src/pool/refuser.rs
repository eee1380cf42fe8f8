//! Answers requests with 503 while no worker can: the supervisor's own, smallest possible FastCGI
//! server.
//!
//! It never waits, keeps no more than [`MAX_CONNECTIONS`] connections of [`MAX_PARAMS_BYTES`] each,
//! and each for [`TIME_LIMIT`] at most. Of a request it reads what the log names it by.

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

/// Connections that are answered at the same time; others wait in the accept queue.
const MAX_CONNECTIONS: usize = 32;

/// Bytes of parameters that are kept of one request. Longer ones are refused all the same.
const MAX_PARAMS_BYTES: usize = 64 * 1024;

/// How long one connection may take, whatever its peer does.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Reads of one connection before another has its turn.
const READS_A_TURN: usize = 16;

/// Refuses requests.
#[derive(Default)]
pub(super) struct Refuser {
    open: Vec<Refusal>,
}

/// One connection.
struct Refusal {
    socket: OwnedFd,
    protocol: Connection,
    /// What is to be sent, and how much of it has been.
    response: Vec<u8>,
    sent: usize,
    stage: Stage,
    due: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The request is being read.
    Reads,
    /// The response is being sent.
    Writes,
    /// All was sent. What still comes is dropped: a socket that is closed with unread bytes resets
    /// the connection, and the response is lost.
    Drains,
}

impl Refuser {
    /// May another connection be taken?
    pub(super) fn has_room(&self) -> bool {
        self.open.len() < MAX_CONNECTIONS
    }

    /// Takes a connection.
    pub(super) fn take(&mut self, socket: OwnedFd) {
        let limits = Limits { params_bytes: MAX_PARAMS_BYTES, ..Limits::default() };
        self.open.push(Refusal {
            socket,
            protocol: Connection::new(limits),
            response: Vec::new(),
            sent: 0,
            stage: Stage::Reads,
            due: running_clock::instant() + TIME_LIMIT,
        });
    }

    /// What is waited for.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.open.iter().map(|refusal| {
            let what = if refusal.stage == Stage::Writes { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(refusal.socket.as_fd(), what)
        })
    }

    /// When the next connection is closed in any case.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.open.iter().map(|refusal| refusal.due).min()
    }

    /// Goes on with all connections, as far as that is possible without a wait. `entry` says why
    /// requests are refused, `debug` whether clients may see it. Gives the requests that were
    /// refused.
    pub(super) fn go_on(&mut self, entry: &LogMessage, debug: bool) -> Vec<Request> {
        let now = running_clock::instant();
        let detail = debug.then(|| entry.for_client());
        let mut refused = Vec::new();
        self.open.retain_mut(|refusal| {
            refusal.due > now
                && refusal.go_on(detail.as_deref(), &mut refused).is_ok_and(|stays| stays)
        });
        refused
    }
}

impl Refusal {
    /// Goes on. Tells whether there is more to be done.
    fn go_on(&mut self, detail: Option<&str>, refused: &mut Vec<Request>) -> Result<bool, Errno> {
        if self.stage == Stage::Reads && !self.read(detail, refused)? {
            return Ok(false);
        }
        if self.stage == Stage::Writes {
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
            self.stage = Stage::Drains;
        }
        if self.stage == Stage::Drains {
            return self.receive(|_, _| true);
        }
        Ok(true)
    }

    /// Reads until the request is known. Tells whether the connection stays.
    fn read(&mut self, detail: Option<&str>, refused: &mut Vec<Request>) -> Result<bool, Errno> {
        self.receive(|refusal, mut bytes| {
            while let Ok(step) = refusal.protocol.receive(bytes) {
                bytes = &bytes[step.consumed..];
                let Some(event) = step.event else {
                    return true;
                };
                refusal.answer(event, detail, refused);
                if refusal.stage != Stage::Reads {
                    return false;
                }
            }
            // What came is no FastCGI.
            false
        })
        .map(|stays| stays || self.stage == Stage::Writes)
    }

    /// Gives what has come to `take`, until that wants no more or nothing more is there. Tells
    /// whether more may come.
    fn receive(&mut self, mut take: impl FnMut(&mut Self, &[u8]) -> bool) -> Result<bool, Errno> {
        let mut bytes = [0; 16 * 1024];
        for _ in 0..READS_A_TURN {
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
                let request = described(&params);
                self.respond(id, &request, detail);
                refused.push(request);
            }
            Event::BadParams { id, .. } => {
                let request =
                    Request::synthetic("-", "(parameters that are too long or wrong)", Vec::new());
                self.respond(id, &request, detail);
                refused.push(request);
            }
            Event::Response(response) => {
                response.append_to(&mut self.response);
                // `FCGI_GET_VALUES`: whoever asks that asks nothing else.
                self.stage = Stage::Writes;
            }
            Event::Abort { id } => {
                let ending = Output::new(id).end_request(1, ProtocolStatus::RequestComplete);
                self.response.extend_from_slice(&ending);
                self.stage = Stage::Writes;
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
        self.stage = Stage::Writes;
    }
}

/// The request that has these parameters, under the name that a worker would give it.
fn described(params: &Params) -> Request {
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
