//! Whether the code that this process has loaded is still what its files hold.
//!
//! The kernel keeps a queue of changes, which nobody reads: every process that is forked from this one has it, and looks whether it is
//! empty. That costs one call a request, however many files there are.

use std::{
    io,
    time::{Duration, SystemTime},
};

use link::snapshot::Snapshot;
use pyo3::prelude::*;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::inotify,
    process::{Pid, Signal, kill_process},
};

use super::modules;
use crate::forks::Descriptor;

/// What the times of files may be behind the clock: the kernel takes them from its last tick, of which there are at least a hundred
/// in a second.
const TICK: Duration = Duration::from_millis(10);

/// The files of all modules that were loaded at one moment.
pub(super) struct Fresh {
    changes: Descriptor,
    /// Holds one, for the first process that finds a change.
    token: Descriptor,
    /// One had changed before it was watched.
    is_stale: bool,
    /// How many there are.
    modules: usize,
}

impl Fresh {
    /// Watches the files of all modules. `begun` is when the first of them began to be loaded.
    ///
    /// # Errors
    /// If the kernel cannot watch as many.
    pub(super) fn watch(py: Python<'_>, begun: SystemTime) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = Descriptor::made(|| inotify::init(flags))?;
        let token = Descriptor::made(|| eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let mut fresh = Self { changes, token, is_stale: false, modules: 0 };
        fresh.watch_more(py, begun)?;
        Ok(fresh)
    }

    /// Watches those, too, that were loaded since `begun`.
    ///
    /// # Errors
    /// As [`Fresh::watch`].
    pub(super) fn watch_more(&mut self, py: Python<'_>, begun: SystemTime) -> io::Result<()> {
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::DELETE_SELF;
        // Something else may stand in the place of `sys.modules`; then there is nothing to watch.
        let files = modules::files(py).unwrap_or_default();
        if files.len() == std::mem::replace(&mut self.modules, files.len()) {
            return Ok(());
        }
        for file in files {
            // The engine is the gateway's to compare: pools are told apart by it.
            if file.ends_with("libwsgate_engine.so") {
                continue;
            }
            match inotify::add_watch(&self.changes, &file, what) {
                // A module that is no file: a part of an archive, or one that has made its name up.
                Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
            // In this order: what changes from now on is in the queue.
            self.is_stale |=
                Snapshot::of(&file).is_some_and(|found| found.is_changed_between(begun - TICK, SystemTime::now()));
        }
        Ok(())
    }

    /// Has one of them changed since it was loaded?
    pub(super) fn is_stale(&self) -> bool {
        let mut watched = [PollFd::new(&self.changes, PollFlags::IN)];
        self.is_stale || !matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// Has the supervisor load the code anew, once for all processes that have it.
    pub(super) fn tell(&self, supervisor: Option<Pid>) {
        if rustix::io::read(&self.token, &mut [0; 8]).is_ok()
            && let Some(supervisor) = supervisor
        {
            // If it is gone, this process is about to be.
            let _ = kill_process(supervisor, Signal::HUP);
        }
    }
}
