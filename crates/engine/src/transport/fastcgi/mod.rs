//! FastCGI 1.0: requests from one connection, one after the other.
//!
//! The parameters are gathered without ever waiting, so that a web server that is slow to send them
//! occupies no thread. From the first parameter-end on the connection belongs to the thread that
//! serves the request, and reading its body waits. Replies leave in records around the
//! application's own bytes, which are not copied.
//!
//! mod_fcgid sends the whole body before it reads the first byte of the response. So, while a
//! response cannot be sent, what comes of the body is put spool, where the application finds it
//! when it does read.

mod cut_response;
mod error_records;
mod incoming;
mod lingering_close;
mod response;
mod watched_socket;

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use fastcgi_server::{Limits, Output, Params, RequestId};
use pyo3::{Python, sync::MutexExt as _};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

pub(crate) use crate::transport::fastcgi::{
    cut_response::CutStyle, error_records::CopiedErrors, response::FastCgiResponse,
    watched_socket::WatchedSocket,
};
use crate::{
    process::forks::{
        Descriptor, {self},
    },
    transport::{
        fastcgi::incoming::{Current, Incoming, log_broken},
        spool::Spool,
    },
    wsgi::{BodyLength, BodySource, Interruptible},
};

/// Within this time after a connection its first request is on its way, unless it is somebody who
/// never says anything.
const FRESH: Duration = Duration::from_millis(500);

/// A connection from a web server.
pub(crate) struct FastCgiConnection {
    shared: Arc<ConnectionShared>,
    opened: Instant,
}

/// Most times that [`FastCgiConnection::advance`] reads before others have their turn.
const READS: usize = 64;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionStage {
    /// For its first byte; another connection may not be closed for it yet if it is fresh.
    Silent { fresh: bool },
    /// For the rest of the start of a request.
    Begun {
        /// Since when, by the clock of [`wire::running_clock`].
        since: u64,
        /// Bytes that are kept of it.
        held: usize,
    },
    /// For the next request.
    Idle,
    /// For the end of what the web server sends, which nobody reads.
    Lingering,
}

struct ConnectionShared {
    socket: Descriptor,
    incoming: Mutex<Incoming>,
}

/// Buffers of a connection that is over.
pub(crate) struct Buffers(Incoming);

/// What a connection has come to.
pub(crate) enum Progress {
    /// Nothing more can be done before more comes.
    Wait,
    /// A request is to be served.
    Request(FastCgiRequest),
    /// It is to be closed.
    Close,
}

/// A request whose parameters are here.
pub(crate) struct FastCgiRequest {
    /// Its name on the connection.
    pub(crate) id: RequestId,
    /// Its parameters.
    pub(crate) params: Params,
}

impl FastCgiConnection {
    /// The connection on `socket`, with the buffers of one that is over.
    pub(crate) fn new(socket: Descriptor, limits: Limits, buffers: Option<Buffers>) -> Self {
        let incoming = buffers.map_or_else(|| Incoming::new(limits), |buffers| buffers.0);
        Self {
            shared: Arc::new(ConnectionShared { socket, incoming: Mutex::new(incoming) }),
            opened: Instant::now(),
        }
    }

    /// Closes the connection, and keeps its buffers for another with the same limits.
    pub(crate) fn close(self) -> Option<Buffers> {
        // An application may have kept something that belongs to a request.
        let incoming = Arc::into_inner(self.shared)?.incoming;
        Some(Buffers(incoming.into_inner().unwrap_or_else(PoisonError::into_inner).reset()))
    }

    /// The socket, to be waited on.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.shared.socket.as_fd()
    }

    /// What it waits for.
    pub(crate) fn stage(&self) -> ConnectionStage {
        let incoming = self.shared.incoming();
        match incoming.begun {
            _ if incoming.lingering.is_some() => ConnectionStage::Lingering,
            Some(since) => ConnectionStage::Begun { since, held: incoming.protocol.held() },
            None if incoming.heard => ConnectionStage::Idle,
            None => ConnectionStage::Silent { fresh: self.opened.elapsed() < FRESH },
        }
    }

    /// How long one wait for the web server may take within a request.
    pub(crate) fn with_socket_timeout(self, timeout: Option<Duration>) -> Self {
        self.shared.incoming().socket_timeout = timeout;
        self
    }

    /// Has something come that was not read yet?
    pub(crate) fn has_pending(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.shared.socket, &mut [0; 1], flags), Ok((1.., _)))
    }

    /// Has it served a request, and is kept for another?
    pub(crate) fn is_kept(&self) -> bool {
        let incoming = self.shared.incoming();
        incoming.has_served && incoming.lingering.is_none()
    }

    /// May the connection be closed without loss (FastCGI 1.0, 3.5)? Not if a request has come that
    /// nobody has looked at.
    pub(crate) fn is_free(&self) -> bool {
        let incoming = self.shared.incoming();
        (incoming.heard || self.opened.elapsed() >= FRESH)
            && incoming.lingering.is_none()
            && incoming.protocol.is_idle()
            && incoming.unread.is_empty()
            && !self.has_pending()
    }

    /// Reads what is there, up to the next request. Never waits.
    pub(crate) fn advance(&self) -> Progress {
        let mut incoming = self.shared.incoming();
        if let Some(progress) = self.drop_the_rest(&mut incoming) {
            return progress;
        }
        let mut reads = 0;
        loop {
            match incoming.next_request(&self.shared.socket) {
                Ok(Some(request)) => {
                    incoming.begun = None;
                    return Progress::Request(request);
                }
                Ok(None) => {}
                // A peer that breaks the protocol, or has gone, is told nothing (FastCGI 1.0, 3.3
                // and 7).
                Err(error) => {
                    log_broken(&error);
                    return self.linger(&mut incoming, false);
                }
            }
            if incoming.protocol.must_close() {
                return self.linger(&mut incoming, false);
            }
            incoming.unread = 0..0;
            reads += 1;
            if reads > READS {
                return incoming.wait();
            }
            let buffer = &mut incoming.buffer;
            match recv(&self.shared.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Progress::Close,
                Ok((_, count)) => {
                    incoming.heard = true;
                    incoming.unread = 0..count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return incoming.wait(),
                Err(_) => return Progress::Close,
            }
        }
    }

    /// FastCgiBody and response of the request `id`, whose body reaches as far as `length` says. What
    /// waits for the web server waits no longer than `interruptible` says.
    pub(crate) fn begin(
        &self,
        id: RequestId,
        length: BodyLength,
        interruptible: Interruptible,
    ) -> (FastCgiBody, FastCgiResponse) {
        let left = match length {
            BodyLength::Exactly(length) => Some(length),
            // Without a length the end of the stream is the end of the body.
            BodyLength::UntilEnd => None,
        };
        let mut incoming = self.shared.incoming();
        incoming.has_served = true;
        incoming.spool = Spool::default();
        incoming.interruptible = Some(interruptible);
        // An authorizer has no body, whatever the parameters say (FastCGI 1.0, 6.3).
        let bodiless = incoming.bodiless;
        let left = left.filter(|_| !bodiless);
        incoming.current = Some(Current {
            id,
            left,
            announced: left.unwrap_or(0),
            received: 0,
            stream_over: bodiless,
            aborted: false,
            is_between_records: false,
            has_surplus: false,
        });
        drop(incoming);
        let response = FastCgiResponse {
            shared: self.shared.clone(),
            output: Output::new(id),
            in_record: 0,
            begun: false,
            transcript: None,
            late: Vec::new(),
            stderr_used: false,
            ended: false,
            had_surplus: false,
            stuck: Cell::new(false),
            looked: None,
        };
        (FastCgiBody { shared: self.shared.clone() }, response)
    }

    /// Whether the request that was served last has left the connection usable.
    pub(crate) fn after_request(&self) -> Progress {
        let mut incoming = self.shared.incoming();
        match incoming.current.take() {
            // CutStyle.
            Some(_) => self.linger(&mut incoming, false),
            None if incoming.protocol.must_close() => {
                let is_whole = incoming.has_come_whole;
                self.linger(&mut incoming, is_whole)
            }
            None => Progress::Wait,
        }
    }

    /// Has more been read than was dealt with?
    pub(crate) fn has_unread(&self) -> bool {
        !self.shared.incoming().unread.is_empty()
    }

    /// Gives the parameters' buffer back.
    pub(crate) fn reuse(&self, params: Params) {
        self.shared.incoming().protocol.reuse(params);
    }
}

impl ConnectionShared {
    /// The socket, if this process may write to it.
    fn socket_of_ours(&self) -> io::Result<&Descriptor> {
        forks::refuse_child().map(|()| &self.socket)
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same. A thread of the application's may have it, and be waiting for the body, or for the
    /// interpreter.
    fn incoming_while(&self, py: Python<'_>) -> MutexGuard<'_, Incoming> {
        self.incoming.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a request.
pub(crate) struct FastCgiBody {
    shared: Arc<ConnectionShared>,
}

impl BodySource for FastCgiBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let socket = self.shared.socket_of_ours()?;
        let mut incoming = self.shared.incoming();
        let Some(mut current) = incoming.current.take() else {
            return Ok(0);
        };
        let got = incoming.read_body(socket, &mut current, into);
        incoming.current = Some(current);
        got
    }

    fn length(&self) -> Option<u64> {
        let mut incoming = self.shared.incoming();
        let announced =
            incoming.current.and_then(|current| current.left.map(|_| current.announced));
        // The end of a request without a body often stands behind its parameters.
        announced.or_else(|| incoming.is_bodiless(&self.shared.socket).then_some(0))
    }
}
