//! Configuration of a pool, and the resources that its processes share.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use wire::{
    launch::{Preload, Service},
    scoreboard::Scoreboard,
};

use crate::{
    pool::{
        address::Address,
        code_source::CodeSource,
        logs::Logs,
        supervisor::{request_queue::RequestQueue, sockets::Sockets},
        template::TemplateLaunch,
    },
    request::Request,
};

/// Configuration of a pool.
#[derive(Debug)]
pub(in crate::pool) struct PoolConfig {
    /// Name of the pool.
    pub(in crate::pool) name: String,
    /// The service of each worker, and the maximum number of workers.
    pub(in crate::pool) service: Service,
    /// Source of the application's code.
    pub(in crate::pool) code: CodeSource,
    /// Paths that trigger a reload when they change, beside the script.
    pub(in crate::pool) reload_on: Vec<PathBuf>,
    /// Minimum number of workers.
    pub(in crate::pool) min_workers: u32,
    /// How long a surplus idle worker is kept.
    pub(in crate::pool) idle: Duration,
    /// How long a worker that was asked to stop may take for its requests.
    pub(in crate::pool) drain: Duration,
    /// How long a process may take to exit after its last request.
    pub(in crate::pool) linger: Duration,
    /// Age at which a request is logged as slow.
    pub(in crate::pool) slow: Option<Duration>,
    /// Scoreboard blocks per worker. With two, a replacement runs before its predecessor stops;
    /// with one, the pool never exceeds the maximum.
    pub(in crate::pool) blocks_per_worker: u32,
    /// The number of workers has no maximum of its own: it stays within half of what the limits
    /// of processes and memory leave.
    pub(in crate::pool) grows_within_limits: bool,
    /// The addresses of `--listen`, and those that the pool was started with, for an upgrade.
    pub(in crate::pool) listen: [Vec<Address>; 2],
    /// Limits of a warm pool, which requests start.
    pub(in crate::pool) on_demand: Option<OnDemand>,
}

/// Limits of a pool that requests start, and that stops by itself.
#[derive(Clone, Debug)]
pub(in crate::pool) struct OnDemand {
    /// How long the pool keeps running without a request.
    pub(in crate::pool) idle: Duration,
    /// Maximum age of the pool.
    pub(in crate::pool) max_age: Option<Duration>,
    /// Path of the pool's lock file, which is open as standard input.
    pub(in crate::pool) lock: PathBuf,
}

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
    /// Log files.
    pub(in crate::pool) logs: Logs,
    /// The pool's own pseudo-request, which names messages at the start of a template.
    pub(in crate::pool) request: Request,
}

impl PoolResources {
    /// The resources of a template process with `preload`, whose workers do `service`.
    pub(super) fn launch(&self, service: &Service, preload: Preload) -> TemplateLaunch<'_> {
        TemplateLaunch {
            service: Service {
                logs: self.logs.for_launch(&self.scoreboard),
                preload,
                ..service.clone()
            },
            request: &self.request,
            inherited: self.inherited().collect(),
        }
    }

    /// File descriptors that processes inherit.
    pub(super) fn inherited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let shared = [self.scoreboard_fd.as_fd(), self.bell.as_fd(), self.stacks_file.as_fd()];
        self.sockets.inherited().chain(shared).chain(self.logs.inherited())
    }

    /// Resets the bell.
    pub(super) fn clear_bell(&self) {
        // Reading fails if the bell has not rung.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }
}
