//! The seam between the serve loop of a pool and a protocol with connections.
//!
//! The loop accepts, waits and closes; the protocol reads, says when a request can be served, and
//! says what may be done with the connection afterwards. Another protocol is one more type that
//! implements [`Connection`].

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
    /// What all connections of a worker have in common.
    type Settings: Send + Sync;
    /// A request that can be served.
    type Request: Request + Send + Sync;
    /// The body of a request.
    type Body: BodySource + 'static;
    /// The response to a request.
    type Response: ResponseSink + 'static;
    /// Buffers of a closed connection, for the next one.
    type Buffers;
    /// Keeps the socket open while a thread polls it that does not own the connection.
    type WatchedSocket: AsFd;

    /// How the response headers of an application are written.
    const FORM: ResponseFormat;

    /// The settings of a worker of `service` with these listening sockets. `may_move` if its
    /// connections can go to other workers.
    fn settings(service: &Service, listeners: &[Descriptor], may_move: bool) -> Self::Settings;

    /// Opens a connection on `socket`. `history` is known of one that another worker has opened.
    fn open(
        socket: Descriptor,
        settings: &Self::Settings,
        history: Option<ConnectionHistory>,
        buffers: Option<Self::Buffers>,
    ) -> Self;

    /// Closes the connection. Returns its buffers, unless the application still holds a part of a
    /// request.
    fn close(self) -> Option<Self::Buffers>;

    /// The socket, to be polled.
    fn socket(&self) -> BorrowedFd<'_>;

    /// The socket, to be polled by another thread.
    fn watched_socket(&self) -> Self::WatchedSocket;

    /// What the connection waits for.
    fn stage(&self) -> Stage;

    /// Reads what has arrived, up to the next request. Never waits.
    fn advance(&self) -> Progress<Self::Request>;

    /// Begins to serve `request`, whose body reaches as far as `length` says. No wait for the web
    /// server exceeds the deadline of `interruptible`. Messages of `transcript` go to the web
    /// server's error log. If the response cannot be completed, the web server learns that as
    /// `settings` say.
    fn begin(
        &self,
        request: &Self::Request,
        length: BodyLength,
        interruptible: Interruptible,
        transcript: Option<Arc<Transcript>>,
        settings: &Self::Settings,
    ) -> (Self::Body, Self::Response);

    /// Releases `request`, which was served. Says whether the connection can be used again.
    fn after_request(&self, request: Self::Request) -> Progress<Self::Request>;

    /// Were bytes read that belong to the next request?
    fn has_unread(&self) -> bool;

    /// Have bytes arrived that were not read yet?
    fn has_pending(&self) -> bool;

    /// Can the connection be closed without loss? Not if a request has arrived, even if it was not
    /// read yet.
    fn can_close(&self) -> bool;

    /// Can another worker take over the connection? Bytes that were not read stay in the socket.
    fn can_move(&self) -> bool;

    /// What another worker has to know of the connection.
    fn history(&self) -> ConnectionHistory;

    /// Did the web server close the connection, without a request that was not read yet?
    fn is_closed_by_peer(&self) -> bool;

    /// Is the connection being drained since a complete response has left? Then the web server is
    /// about to close it.
    fn awaits_close(&self) -> bool;

    /// Drops what has arrived on a connection that is being drained. Did the web server close it?
    fn is_drained(&self) -> bool;

    /// Has the connection been drained for as long as it may be?
    fn has_lingered(&self, now: Instant) -> bool;
}

/// A request of a [`Connection`].
pub(crate) trait Request {
    /// The variables, in the order in which they arrived.
    fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// The value of a variable; of two with the same name the last one.
    fn get(&self, name: &[u8]) -> Option<&[u8]>;

    /// Does a name or a value contain a NUL byte?
    fn has_nul(&self) -> bool;
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first byte. A fresh connection may not be closed yet to make room.
    Silent { fresh: bool },
    /// The rest of the parameters of a request.
    Begun {
        /// Since when, by the clock of [`wire::running_clock`].
        since: u64,
        /// How many bytes of it are kept in memory.
        held: usize,
    },
    /// The next request.
    Idle,
    /// The web server's close. What still arrives is dropped.
    Lingering,
}

/// What a connection needs next.
pub(crate) enum Progress<R> {
    /// More bytes.
    Wait,
    /// To serve this request.
    Request(R),
    /// To be closed.
    Close,
}
