//! The interface between the serve loop of a pool and a protocol with connections.
//!
//! The loop accepts, waits and closes. The protocol reads, reports complete requests, and decides
//! if a connection can be used again. Each protocol is a type that implements [`Connection`].

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use wire::{connection_queue::ConnectionHistory, launch::Service, request::ResponseFormat};

use crate::{
    log::Transcript,
    process::forks::Descriptor,
    wsgi::{BodyLength, BodySource, Interruptible, ResponseSink},
};

/// A connection from a web server.
pub(crate) trait Connection: Sized + Send + Sync + 'static {
    /// The settings that all connections of a worker share.
    type Settings: Send + Sync;
    /// A request that can be served.
    type Request: Request + Send + Sync;
    /// The body of a request.
    type Body: BodySource + 'static;
    /// The response to a request.
    type Response: ResponseSink + 'static;
    /// Buffers of a closed connection, for the next one.
    type Buffers;
    /// Keeps the socket open while a thread that does not own the connection polls it.
    type WatchedSocket: AsFd;

    /// How the response headers of an application are written.
    const FORM: ResponseFormat;

    /// The settings of a worker of `service` with these listening sockets. `may_move` if its
    /// connections can go to other workers.
    fn settings(service: &Service, listeners: &[Descriptor], may_move: bool) -> Self::Settings;

    /// Opens a connection on `socket`. `history` comes from the worker that opened the connection
    /// before.
    fn open(
        socket: Descriptor,
        settings: &Self::Settings,
        history: Option<ConnectionHistory>,
        buffers: Option<Self::Buffers>,
    ) -> Self;

    /// Closes the connection. Returns its buffers, unless the application still holds a part of a
    /// request.
    fn close(self) -> Option<Self::Buffers>;

    /// The socket, for polling.
    fn socket(&self) -> BorrowedFd<'_>;

    /// The socket, for polling in another thread.
    fn watched_socket(&self) -> Self::WatchedSocket;

    /// The stage of the connection.
    fn stage(&self) -> Stage;

    /// Reads the received bytes up to the next request, without waiting.
    fn advance(&self) -> Progress<Self::Request>;

    /// Begins to serve `request`, whose body has the length `length`. No wait for the web server
    /// exceeds the deadline of `interruptible`. Messages of `transcript` go to the web server's
    /// error log. `settings` decide how an incomplete response is marked for the web server.
    fn begin(
        &self,
        request: &Self::Request,
        length: BodyLength,
        interruptible: Interruptible,
        transcript: Option<Arc<Transcript>>,
        settings: &Self::Settings,
    ) -> (Self::Body, Self::Response);

    /// Releases `request`, which was served. Can the connection be used again?
    fn after_request(&self, request: Self::Request) -> Progress<Self::Request>;

    /// Are bytes of the next request in the buffer?
    fn has_unread(&self) -> bool;

    /// Are unread bytes in the socket?
    fn has_pending(&self) -> bool;

    /// Did the connection serve a request, and stays open for another?
    fn is_keep_alive(&self) -> bool;

    /// Can the connection be closed without losing a request? An unread request counts, too.
    fn can_close(&self) -> bool;

    /// Can another worker take over the connection? Unread bytes stay in the socket.
    fn can_move(&self) -> bool;

    /// The state that another worker needs to take over the connection.
    fn history(&self) -> ConnectionHistory;

    /// Has the web server closed the connection, and is no unread request left?
    fn is_closed_by_peer(&self) -> bool;

    /// Is the connection being drained after a complete response? If so, the web server is about to
    /// close it.
    fn awaits_close(&self) -> bool;

    /// Drops received bytes of a connection that is being drained. Has the web server closed the
    /// connection?
    fn is_drained(&self) -> bool;

    /// Has the connection reached a limit of draining?
    fn has_lingered(&self, now: Instant) -> bool;
}

/// A request of a [`Connection`].
pub(crate) trait Request {
    /// The variables, in the order in which they arrived.
    fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// The value of a variable; the last value if the name repeats.
    fn get(&self, name: &[u8]) -> Option<&[u8]>;

    /// Does a name or a value contain a NUL byte?
    fn has_nul(&self) -> bool;
}

/// The stage of a connection: the bytes that it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first byte. A `fresh` connection is not closed to free its slot.
    Silent { fresh: bool },
    /// The rest of the parameters of a request.
    Begun {
        /// When the first bytes arrived, by the clock of [`wire::running_clock`].
        since: u64,
        /// Bytes of parameters in memory.
        held: usize,
    },
    /// The next request.
    Idle,
    /// The web server's close. Bytes that still arrive are dropped.
    Lingering,
}

/// The next step of a connection.
pub(crate) enum Progress<R> {
    /// Wait for more bytes.
    Wait,
    /// Serve this request.
    Request(R),
    /// Close the connection.
    Close,
}
