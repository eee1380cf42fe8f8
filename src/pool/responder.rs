//! A minimal FastCGI server in the supervisor: reads the parameters of one request of each
//! connection, and sends a short response.
//!
//! The server never blocks, and keeps a limited number of connections of [`MAX_PARAMS_BYTES`] each,
//! and each for [`CONNECTION_TIMEOUT`] at most.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use fastcgi_server::{
    Connection, Event, Limits, Output, Params, RequestId, Stream, bodies::ProtocolStatus,
};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown},
};
use wire::running_clock;

/// Maximum size of the parameters of one request in bytes.
const MAX_PARAMS_BYTES: usize = 64 * 1024;

/// Timeout of one connection, regardless of its peer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of reads from one connection in one turn of the supervisor's loop.
const MAX_READS_PER_TURN: usize = 16;

/// Connections of clients whose requests the supervisor answers.
pub(super) struct Responder {
    connections: Vec<ClientConnection>,
    max_connections: usize,
}

/// Makes the response to a request from its parameters.
type Respond<'a> = &'a mut dyn FnMut(Option<&Params>) -> Vec<u8>;

/// A connection whose request the supervisor answers.
struct ClientConnection {
    socket: OwnedFd,
    protocol: Connection,
    /// The response; `sent` of its bytes were sent.
    response: Vec<u8>,
    sent: usize,
    stage: Stage,
    due: Instant,
}

/// Progress of a connection.
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

impl Responder {
    /// A server of up to `max_connections` connections at a time.
    pub(super) fn new(max_connections: usize) -> Self {
        Self { connections: Vec::new(), max_connections }
    }

    /// May another connection be added?
    pub(super) fn has_room(&self) -> bool {
        self.connections.len() < self.max_connections
    }

    /// Is there no connection?
    pub(super) fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, socket: OwnedFd) {
        let limits = Limits { params_bytes: MAX_PARAMS_BYTES, ..Limits::default() };
        self.connections.push(ClientConnection {
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
        self.connections.iter().map(|client| {
            let event = if client.stage == Stage::Writing { PollFlags::OUT } else { PollFlags::IN };
            PollFd::from_borrowed_fd(client.socket.as_fd(), event)
        })
    }

    /// Time of the next connection timeout.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.connections.iter().map(|client| client.due).min()
    }

    /// Continues all connections without blocking. `respond` makes the response to a request from
    /// its parameters, which are `None` if they are too long or damaged. The response begins with
    /// the header `Status`.
    pub(super) fn proceed(&mut self, mut respond: impl FnMut(Option<&Params>) -> Vec<u8>) {
        let now = running_clock::instant();
        self.connections.retain_mut(|connection| {
            connection.due > now && connection.proceed(&mut respond).is_ok_and(|stays| stays)
        });
    }
}

impl ClientConnection {
    /// Continues the connection. Returns whether it stays open.
    fn proceed(&mut self, respond: Respond<'_>) -> Result<bool, Errno> {
        if self.stage == Stage::Reading && !self.read(respond)? {
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
    fn read(&mut self, respond: Respond<'_>) -> Result<bool, Errno> {
        self.receive(|connection, mut bytes| {
            while let Ok(step) = connection.protocol.receive(bytes) {
                bytes = &bytes[step.consumed..];
                let Some(event) = step.event else {
                    return true;
                };
                connection.answer(event, respond);
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

    fn answer(&mut self, event: Event<'_>, respond: Respond<'_>) {
        match event {
            Event::Params { id, params } => self.respond(id, &respond(Some(&params))),
            Event::BadParams { id, .. } => self.respond(id, &respond(None)),
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

    fn respond(&mut self, id: RequestId, response: &[u8]) {
        let output = Output::new(id);
        output.append(Stream::Stdout, response, &mut self.response);
        self.response.extend_from_slice(&output.ending(0, false));
        self.stage = Stage::Writing;
    }
}
