//! The state of a connection, shared by its owner, the body and the response of a request.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pyo3::{Python, sync::MutexExt as _};

use crate::{
    process::forks::{self, Descriptor},
    transport::fastcgi::{
        active_request::ActiveRequest, lingering_close::LingeringClose, records::Records,
    },
};

/// A socket, and the state of its connection.
pub(crate) struct SharedConnection {
    socket: Descriptor,
    state: Mutex<ConnectionState>,
}

/// The state of a connection.
pub(super) struct ConnectionState {
    /// Received bytes that were not processed yet.
    pub(super) records: Records,
    /// The request that is being served.
    pub(super) request: Option<ActiveRequest>,
    /// Timeout of one wait for the web server during a request.
    pub(super) socket_timeout: Option<Duration>,
    /// Were bytes received?
    pub(super) has_received: bool,
    /// Was a request served?
    pub(super) has_served: bool,
    /// Has the whole body of the last request arrived?
    pub(super) has_body_ended: bool,
    /// The connection is only drained before it is closed.
    pub(super) lingering: Option<LingeringClose>,
}

impl ConnectionState {
    /// The state of a connection that is opened now.
    pub(super) fn new(
        records: Records,
        socket_timeout: Option<Duration>,
        has_received: bool,
    ) -> Self {
        Self {
            records,
            request: None,
            socket_timeout,
            has_received,
            has_served: false,
            has_body_ended: false,
            lingering: None,
        }
    }
}

impl SharedConnection {
    pub(super) fn new(socket: Descriptor, state: ConnectionState) -> Self {
        Self { socket, state: Mutex::new(state) }
    }

    pub(super) fn socket(&self) -> &Descriptor {
        &self.socket
    }

    /// The socket, unless the application has forked this process: the socket then belongs to the
    /// parent.
    pub(super) fn own_socket(&self) -> io::Result<&Descriptor> {
        forks::refuse_child().map(|()| &self.socket)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless another thread has it.
    pub(super) fn try_state(&self) -> Option<MutexGuard<'_, ConnectionState>> {
        self.state.try_lock().ok()
    }

    /// The state. A thread of the application may have it, and wait for the body or for the
    /// interpreter.
    pub(super) fn state_while(&self, py: Python<'_>) -> MutexGuard<'_, ConnectionState> {
        self.state.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_state(self) -> ConnectionState {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the socket of a connection open while it is polled.
pub(crate) struct WatchedSocket(Arc<SharedConnection>);

impl WatchedSocket {
    pub(super) fn of(shared: &Arc<SharedConnection>) -> Self {
        Self(shared.clone())
    }
}

impl AsFd for WatchedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}
