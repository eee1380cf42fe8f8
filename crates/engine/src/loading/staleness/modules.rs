//! Watches the files of all loaded modules during development (`--reload`).
//!
//! The template and every worker watch files, since frameworks import parts of an application
//! during the first request that needs them. A process that finds a change sends a signal to the
//! supervisor.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use wire::{
    app::Source,
    launch::{Launch, Service},
    snapshot::Snapshot,
};

use crate::{
    loading::staleness::{archive::archive_of, code_files},
    log::Log,
};

/// The time between two checks.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How far file times may lag behind the clock. The kernel takes them from its last tick.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// Watches the modules of this process.
pub(crate) struct ModuleWatch {
    supervisor: Option<Pid>,
    /// Watches the files of all loaded code, not only `paths`.
    watches_all: bool,
    /// Other files to watch.
    paths: Vec<PathBuf>,
    log: Log,
    seen: Mutex<SeenFiles>,
}

struct SeenFiles {
    files: HashMap<PathBuf, Option<Snapshot>>,
    /// Code files that may belong to no module, and the count of [`code_files`] for which the list
    /// is valid.
    others: (usize, Vec<PathBuf>),
    /// The time of the last check. Modules that appear later were loaded since.
    last: SystemTime,
    due: Instant,
}

impl ModuleWatch {
    /// A watch that begins before loading; `None` without `--reload`.
    pub(crate) fn watched(launch: &Launch, service: &Service) -> Option<Self> {
        service
            .reload
            .then(|| Self::of(launch, Pid::from_raw(launch.gateway_pid), true, Vec::new()))
    }

    /// A watch for a worker without a supervisor, which exits at a change; `None` without
    /// `--reload` and `--reload-on`.
    pub(crate) fn of_lone_worker(launch: &Launch, service: &Service) -> Option<Self> {
        let path = |bytes: &Vec<u8>| PathBuf::from(OsStr::from_bytes(bytes));
        let mut paths: Vec<_> = service.reload_on.iter().map(path).collect();
        let are_wanted = service.reload || !paths.is_empty();
        if let Source::File(script) = &launch.app.source {
            paths.push(path(script));
        }
        let modules = are_wanted.then(|| Self::of(launch, None, service.reload, paths))?;
        if let Ok(mut seen) = modules.seen.lock() {
            seen.files =
                modules.paths.iter().map(|path| (path.clone(), Snapshot::of(path))).collect();
        }
        Some(modules)
    }

    fn of(
        launch: &Launch,
        supervisor: Option<Pid>,
        watches_all: bool,
        paths: Vec<PathBuf>,
    ) -> Self {
        Self {
            supervisor,
            watches_all,
            paths,
            log: Log::new(&launch.request.id, &launch.request.line),
            seen: Mutex::new(SeenFiles {
                files: HashMap::new(),
                others: (0, Vec::new()),
                last: SystemTime::now(),
                due: Instant::now(),
            }),
        }
    }

    /// Checks the files, if a check is due and no other thread is checking. Signals the supervisor
    /// if a file has changed. Returns whether this worker has to exit because there is no
    /// supervisor.
    pub(crate) fn look(&self, py: Python<'_>) -> bool {
        let Ok(mut guard) = self.seen.try_lock() else { return false };
        let seen = &mut *guard;
        if Instant::now() < seen.due {
            return false;
        }
        let begin = SystemTime::now();
        let mut files = if self.watches_all { code_files::of_modules(py) } else { Vec::new() };
        let count = code_files::count(py);
        if self.watches_all && seen.others.0 != count {
            seen.others = (count, code_files::others(py).unwrap_or_default());
        }
        files.extend_from_slice(&seen.others.1);
        files.extend_from_slice(&self.paths);
        let changed = py.detach(|| seen.compare(files));
        seen.last = begin;
        seen.due = Instant::now() + CHECK_INTERVAL;
        let Some(file) = changed else { return false };
        let file = file.display();
        match self.supervisor {
            Some(supervisor) => {
                self.log.write(&LogMessage::new(Code::ChangeSeen, format!("`{file}` has changed")));
                // If the supervisor has exited, this process exits soon.
                let _ = kill_process(supervisor, Signal::HUP);
                false
            }
            None => {
                let sentence = format!(
                    "`{file}` has changed; this worker exits, for another with the new code"
                );
                self.log.write(&LogMessage::new(Code::ChangeSeen, sentence));
                true
            }
        }
    }
}

impl SeenFiles {
    /// Records the state of `files`, and returns a file that has changed since it was loaded.
    fn compare(&mut self, files: Vec<PathBuf>) -> Option<PathBuf> {
        let mut changed = None;
        for mut file in files {
            let mut found = Snapshot::of(&file);
            if found.is_none()
                && let Some(archive) = archive_of(&file)
            {
                file = archive.to_owned();
                found = Snapshot::of(&file);
            }
            let is_changed = match (self.files.get(&file), found) {
                // A missing file may return.
                (_, None) => continue,
                (Some(known), found) => *known != found,
                // The file may have changed before or after loading.
                (None, Some(found)) => {
                    found.is_changed_between(self.last - CLOCK_LAG, SystemTime::now())
                }
            };
            if is_changed {
                changed = Some(file.clone());
            }
            self.files.insert(file, found);
        }
        changed
    }
}
