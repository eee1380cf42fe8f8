//! Whether the code that this process has loaded is still what its files hold.
//!
//! The kernel keeps a queue of changes, which nobody reads: every process that is forked from this
//! one has it, and looks whether it is empty. That costs one call a request, however many files
//! there are.

pub(crate) mod executed;
pub(crate) mod modules;

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use pyo3::prelude::*;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::inotify,
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use wire::snapshot::Snapshot;

use crate::process::forks::Descriptor;

/// What the times of files may be behind the clock: the kernel takes them from its last tick, of
/// which there are at least a hundred in a second.
const TICK: Duration = Duration::from_millis(10);

/// Another takes the place of a directory.
const REPLACED: inotify::WatchFlags =
    inotify::WatchFlags::MOVE_SELF.union(inotify::WatchFlags::DELETE_SELF);

/// A file or link changes, or another takes its place.
const CHANGED: inotify::WatchFlags =
    REPLACED.union(inotify::WatchFlags::MODIFY).union(inotify::WatchFlags::ATTRIB);

/// The files of all modules that were loaded at one moment.
pub(crate) struct Fresh {
    changes: Descriptor,
    /// Holds one, for the first process that finds a change.
    token: Descriptor,
    /// One had changed before it was watched.
    is_stale: bool,
    /// How many modules and files of code there are.
    modules: usize,
    /// Files that are watched, and what leads to them.
    known: HashSet<PathBuf>,
}

impl Fresh {
    /// Watches the files of all modules. `begun` is when the first of them began to be loaded.
    ///
    /// # Errors
    /// If the kernel cannot watch as many.
    pub(crate) fn watch(py: Python<'_>, begun: SystemTime) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = Descriptor::made(|| inotify::init(flags))?;
        let token =
            Descriptor::made(|| eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let mut fresh = Self { changes, token, is_stale: false, modules: 0, known: HashSet::new() };
        fresh.watch_more(py, begun)?;
        Ok(fresh)
    }

    /// Watches those, too, that were loaded since `begun`.
    ///
    /// # Errors
    /// As [`Fresh::watch`].
    pub(crate) fn watch_more(&mut self, py: Python<'_>, begun: SystemTime) -> io::Result<()> {
        let count = modules::count(py);
        if count == std::mem::replace(&mut self.modules, count) {
            return Ok(());
        }
        // Something else may stand in the place of `sys.modules`; then there is nothing to watch.
        let mut files = modules::files(py).unwrap_or_default();
        files.extend(modules::other_files(py).unwrap_or_default());
        for file in files {
            // The engine is the gateway's to compare: pools are told apart by it.
            if file.ends_with("libwsgate_engine.so") || !self.known.insert(file.clone()) {
                continue;
            }
            let file = match inotify::add_watch(&self.changes, &file, CHANGED) {
                Ok(_) => file,
                // Code that is in no file: it is a part of an archive, or has made its name up.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => {
                    match modules::archive_of(&file) {
                        Some(archive) => {
                            inotify::add_watch(&self.changes, archive, CHANGED)?;
                            archive.to_owned()
                        }
                        None => continue,
                    }
                }
                Err(error) => return Err(error.into()),
            };
            // In this order: what changes from now on is in the queue.
            let now = SystemTime::now();
            self.is_stale |= Snapshot::of(&file)
                .is_some_and(|found| found.is_changed_between(begun - TICK, now));
            self.watch_way_to(&file, begun)?;
        }
        Ok(())
    }

    /// Watches what leads to `path`: a directory that another takes the place of, or a link that
    /// leads elsewhere, has other files.
    fn watch_way_to(&mut self, path: &Path, begun: SystemTime) -> io::Result<()> {
        let mut ways = vec![path.to_owned()];
        while let Some(way) = ways.pop() {
            for step in way.ancestors() {
                if step != path && !self.known.insert(step.to_owned()) {
                    // So are those that lead there.
                    break;
                }
                let Ok(found) = fs::symlink_metadata(step) else { continue };
                let what = if found.is_symlink() {
                    CHANGED | inotify::WatchFlags::DONT_FOLLOW
                } else if found.is_dir() {
                    REPLACED | inotify::WatchFlags::DONT_FOLLOW
                } else {
                    continue;
                };
                match inotify::add_watch(&self.changes, step, what) {
                    // One that may be passed and not be read.
                    Ok(_) | Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
                if found.is_symlink() {
                    let link = Snapshot::of_link(step);
                    self.is_stale |= link.is_some_and(|link| {
                        link.is_changed_between(begun - TICK, SystemTime::now())
                    });
                    let target = fs::read_link(step).ok();
                    ways.extend(target.and_then(|target| Some(step.parent()?.join(target))));
                }
            }
        }
        Ok(())
    }

    /// Has one of them changed since it was loaded?
    pub(crate) fn is_stale(&self) -> bool {
        let mut watched = [PollFd::new(&self.changes, PollFlags::IN)];
        self.is_stale
            || !matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// Has the supervisor load the code again, once for all processes that have it.
    pub(crate) fn tell(&self, supervisor: Option<Pid>) {
        if rustix::io::read(&self.token, &mut [0; 8]).is_ok()
            && let Some(supervisor) = supervisor
        {
            // If it is gone, this process is about to be.
            let _ = kill_process(supervisor, Signal::HUP);
        }
    }
}
