//! Resources that the processes of a pool share.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
};

use wire::{
    launch::{Preload, Service},
    scoreboard::Scoreboard,
};

use crate::{
    pool::{
        logs::Logs,
        supervisor::{request_queue::RequestQueue, sockets::Sockets, status_server::StatusServer},
        template::TemplateLaunch,
    },
    request::Request,
};

/// Resources that the processes of a pool inherit.
pub(in crate::pool) struct PoolResources {
    /// Status of all workers.
    pub(in crate::pool) scoreboard: Rc<Scoreboard>,
    /// The scoreboard's memory.
    pub(in crate::pool) scoreboard_fd: OwnedFd,
    /// eventfd by which workers wake the supervisor.
    pub(in crate::pool) bell: OwnedFd,
    /// The file that processes write their Python stacks to.
    pub(in crate::pool) stacks_file: Rc<OwnedFd>,
    /// The sockets that receive requests.
    pub(in crate::pool) sockets: Sockets,
    /// Requests that wait for a worker, if options limit them.
    pub(in crate::pool) request_queue: Option<RequestQueue>,
    /// Answers requests for the status, if `--status-listen` was given.
    pub(in crate::pool) status_server: Option<StatusServer>,
    /// Log files.
    pub(in crate::pool) logs: Logs,
    /// The pool's own pseudo-request, which names messages at the start of a template.
    pub(in crate::pool) request: Request,
}

impl PoolResources {
    /// The resources of a template process with `preload`, whose workers do `service` and write
    /// `logs`, if these are not the ones of the pool.
    pub(super) fn launch<'a>(
        &'a self,
        service: &Service,
        logs: Option<&'a Logs>,
        preload: Preload,
    ) -> TemplateLaunch<'a> {
        let logs = logs.unwrap_or(&self.logs);
        TemplateLaunch {
            service: Service {
                logs: logs.for_launch(&self.scoreboard),
                preload,
                ..service.clone()
            },
            request: &self.request,
            inherited: self.inherited_with(logs).collect(),
        }
    }

    /// File descriptors that processes inherit.
    pub(super) fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inherited_with(&self.logs)
    }

    fn inherited_with<'a>(&'a self, logs: &'a Logs) -> impl Iterator<Item = BorrowedFd<'a>> {
        let shared = [self.scoreboard_fd.as_fd(), self.bell.as_fd(), self.stacks_file.as_fd()];
        self.sockets.inherited().chain(shared).chain(logs.inherited())
    }

    /// Resets the bell.
    pub(super) fn clear_bell(&self) {
        // Reading fails if the bell has not rung.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}
