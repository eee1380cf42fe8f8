//! Owner of the status page's socket (`--status-listen`): answers for the pool without a worker.

use std::time::Instant;

use control::pool_status::PoolStatus;
use rustix::event::{PollFd, PollFlags};
use wire::running_clock;

use crate::{
    config::settings::Settings,
    pool::{
        handover::Draft,
        listeners::Listener,
        responder::Responder,
        status_options::StatusPaths,
        supervisor::{acceptor::Acceptor, status_page},
    },
};

/// Maximum number of concurrent connections. Further connections wait in the accept queue.
const MAX_CONNECTIONS: usize = 32;

/// Answers requests for the status.
pub(in crate::pool) struct StatusServer {
    listeners: [Listener; 1],
    paths: StatusPaths,
    acceptor: Acceptor,
    responder: Responder,
}

impl StatusServer {
    /// Answers requests that arrive at `listener`.
    pub(in crate::pool) fn new(
        listener: Listener,
        paths: StatusPaths,
        settings: &Settings,
    ) -> Self {
        Self {
            listeners: [listener],
            paths,
            acceptor: Acceptor::new(settings),
            responder: Responder::new(MAX_CONNECTIONS),
        }
    }

    /// Adds the listening socket to `draft`, for the next program of an upgrade.
    pub(super) fn hand_over<'a>(&'a self, draft: &mut Draft<'a>) {
        self.listeners.iter().for_each(|listener| draft.add_status_listener(listener));
    }

    /// Accepts connections, and continues all without blocking.
    pub(super) fn proceed(&mut self, status: impl Fn() -> PoolStatus) {
        if self.is_accepting() {
            let responder = &mut self.responder;
            self.acceptor.accept(&self.listeners, |socket| {
                responder.add(socket);
                responder.has_room()
            });
        }
        let paths = &self.paths;
        self.responder.proceed(|params| status_page::respond(paths, params, &status));
    }

    fn is_accepting(&self) -> bool {
        self.responder.has_room() && !self.acceptor.is_pausing()
    }

    /// Sockets to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        let accepting = self.listeners.iter().filter(|_| self.is_accepting());
        let accepting = accepting.map(|listener| PollFd::new(&listener.socket, PollFlags::IN));
        accepting.chain(self.responder.watched())
    }

    /// Time of the next timeout, or of the end of a pause.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let pause = self.acceptor.pause_end().filter(|end| *end > running_clock::instant());
        self.responder.next_due().into_iter().chain(pause).min()
    }
}
