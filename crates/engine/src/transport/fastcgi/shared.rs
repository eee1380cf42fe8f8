//! Connections that go from one worker to another, which is possible where nothing of a request has
//! been read.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use wire::connection_queue::{ConnectionHistory, ConnectionQueue};

use crate::{
    process::forks::Descriptor,
    transport::fastcgi::{ConnectionShared, FRESH, FastCgiConnection},
};

/// Keeps the socket of a connection open while it is watched.
pub(crate) struct WatchedSocket(Arc<ConnectionShared>);

impl AsFd for WatchedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket.as_fd()
    }
}

impl FastCgiConnection {
    /// The same connection as it was in the worker that has given it away.
    pub(crate) fn with_history(self, history: ConnectionHistory) -> Self {
        self.shared.incoming().heard = history == ConnectionHistory::Used;
        self
    }

    /// May another worker have the connection? It has all of what comes then: what is not read yet
    /// stays in the socket.
    pub(crate) fn can_move(&self) -> bool {
        let incoming = self.shared.incoming();
        incoming.lingering.is_none()
            && incoming.protocol.is_idle()
            && !incoming.protocol.must_close()
            && incoming.unread.is_empty()
    }

    /// Gives the connection to another worker, which the caller has found possible, and closes its
    /// own descriptor of it when it drops it.
    ///
    /// # Errors
    /// As [`ConnectionQueue::push`].
    pub(crate) fn give(&self, handover: &ConnectionQueue<Descriptor>) -> Result<(), Errno> {
        let history = match self.shared.incoming().heard {
            true => ConnectionHistory::Used,
            false if self.opened.elapsed() < FRESH => ConnectionHistory::New,
            false => ConnectionHistory::Unused,
        };
        handover.push(self.socket(), history)
    }

    /// Has the web server gone, without a request that nobody has read?
    pub(crate) fn has_gone(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(
            recv(&self.shared.socket, &mut [0; 1], flags),
            Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR)
        )
    }

    /// To be watched beside the worker's own look at it.
    pub(crate) fn watched(&self) -> WatchedSocket {
        WatchedSocket(self.shared.clone())
    }
}
