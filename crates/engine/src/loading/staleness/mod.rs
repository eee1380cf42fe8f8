//! Detects that the files of loaded code have changed.
//!
//! The kernel keeps a queue of changes (inotify), which no process reads. Every forked process
//! shares the queue and checks whether it is empty. The check takes one system call per request,
//! for any number of files.

mod archive;
mod code_files;
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
    event::{EventfdFlags, PollFlags, eventfd},
    fs::inotify,
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use wire::snapshot::Snapshot;

use crate::process::{forks::Descriptor, poll::events_now};

/// How far file times may lag behind the clock. The kernel takes them from its last tick, and ticks
/// at least a hundred times a second.
const CLOCK_LAG: Duration = Duration::from_millis(10);

/// A directory is replaced.
const REPLACED: inotify::WatchFlags =
    inotify::WatchFlags::MOVE_SELF.union(inotify::WatchFlags::DELETE_SELF);

/// A file or link changes or is replaced.
const CHANGED: inotify::WatchFlags =
    REPLACED.union(inotify::WatchFlags::MODIFY).union(inotify::WatchFlags::ATTRIB);

/// Watches the files of all modules that were loaded at one time.
pub(crate) struct SourceWatch {
    changes: Descriptor,
    /// A counter with the value 1: the first process that finds a change takes it.
    token: Descriptor,
    /// A file had changed before the watch began.
    is_stale: bool,
    /// The counts of modules and code files at the last check.
    modules: usize,
    /// Watched files, and the directories and links on their paths.
    known: HashSet<PathBuf>,
}

impl SourceWatch {
    /// Watches the files of all modules. Loading began at `begun`.
    ///
    /// # Errors
    /// If the kernel cannot watch so many files.
    pub(crate) fn watch(py: Python<'_>, begun: SystemTime) -> io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = Descriptor::made(|| inotify::init(flags))?;
        let token =
            Descriptor::made(|| eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let mut fresh = Self { changes, token, is_stale: false, modules: 0, known: HashSet::new() };
        fresh.watch_more(py, begun)?;
        Ok(fresh)
    }

    /// Also watches the modules that were loaded since `begun`.
    ///
    /// # Errors
    /// As [`SourceWatch::watch`].
    pub(crate) fn watch_more(&mut self, py: Python<'_>, begun: SystemTime) -> io::Result<()> {
        let count = code_files::count(py);
        if count == std::mem::replace(&mut self.modules, count) {
            return Ok(());
        }
        let mut files = code_files::of_modules(py);
        files.extend(code_files::others(py).unwrap_or_default());
        for file in files {
            // The gateway checks the engine itself: pools of different engines have different
            // sockets.
            if file.ends_with("libwsgate_engine.so") || !self.known.insert(file.clone()) {
                continue;
            }
            let file = match inotify::add_watch(&self.changes, &file, CHANGED) {
                Ok(_) => file,
                // The code is part of an archive, or its file name is invented.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => {
                    match archive::archive_of(&file) {
                        Some(archive) => {
                            inotify::add_watch(&self.changes, archive, CHANGED)?;
                            archive.to_owned()
                        }
                        None => continue,
                    }
                }
                Err(error) => return Err(error.into()),
            };
            // The watch starts before the check, so the queue has every change from now on.
            let now = SystemTime::now();
            self.is_stale |= Snapshot::of(&file)
                .is_some_and(|found| found.is_changed_between(begun - CLOCK_LAG, now));
            self.watch_way_to(&file, begun)?;
        }
        Ok(())
    }

    /// Watches the directories and links on `path`: a replaced directory, or a changed link, leads
    /// to other files.
    fn watch_way_to(&mut self, path: &Path, begun: SystemTime) -> io::Result<()> {
        let mut ways = vec![path.to_owned()];
        while let Some(way) = ways.pop() {
            for step in way.ancestors() {
                if step != path && !self.known.insert(step.to_owned()) {
                    // Its parents are watched, too.
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
                    // A directory may be searchable and not readable.
                    Ok(_) | Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
                if found.is_symlink() {
                    let link = Snapshot::of_link(step);
                    self.is_stale |= link.is_some_and(|link| {
                        link.is_changed_between(begun - CLOCK_LAG, SystemTime::now())
                    });
                    let target = fs::read_link(step).ok();
                    ways.extend(target.and_then(|target| Some(step.parent()?.join(target))));
                }
            }
        }
        Ok(())
    }

    /// Has a file changed since it was loaded?
    pub(crate) fn is_stale(&self) -> bool {
        let changes = events_now(&self.changes, PollFlags::IN);
        self.is_stale || changes.map_or(true, |events| !events.is_empty())
    }

    /// Asks the supervisor to reload the code. Only the first process that shares this watch does.
    pub(crate) fn request_reload(&self, supervisor: Option<Pid>) {
        if rustix::io::read(&self.token, &mut [0; 8]).is_ok()
            && let Some(supervisor) = supervisor
        {
            // If the supervisor has exited, this process exits soon.
            let _ = kill_process(supervisor, Signal::HUP);
        }
    }
}
