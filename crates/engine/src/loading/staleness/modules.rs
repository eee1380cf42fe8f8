//! Watches the files of all modules that are loaded in this process, for development.
//!
//! The template does this and every worker, since frameworks import much of an application only
//! when it is needed. Whoever finds a change tells the supervisor by a signal.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::{
    prelude::*,
    types::{PyDict, PyModule},
};
use rustix::process::{Pid, Signal, kill_process};
use wire::{
    app::Source,
    launch::{Launch, Service},
    snapshot::Snapshot,
};

use crate::{loading::staleness::executed, log::Log};

/// Time between two looks.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// What the times of files may be behind the clock: the kernel takes them from its last tick.
const TICK: Duration = Duration::from_millis(20);

/// The modules of this process.
pub(crate) struct Modules {
    supervisor: Option<Pid>,
    /// All files are watched whose code is loaded, not only `paths`.
    are_all: bool,
    /// More files.
    paths: Vec<PathBuf>,
    log: Log,
    seen: Mutex<Seen>,
}

struct Seen {
    files: HashMap<PathBuf, Option<Snapshot>>,
    /// Files of code that may be no module's, when there were so many modules and files.
    others: (usize, Vec<PathBuf>),
    /// When they were last looked at: a module that is new was loaded since.
    last: SystemTime,
    due: Instant,
}

impl Modules {
    /// None is loaded yet. `None` if nobody wants them watched.
    pub(crate) fn watched(launch: &Launch, service: &Service) -> Option<Self> {
        service
            .reload
            .then(|| Self::of(launch, Pid::from_raw(launch.gateway_pid), true, Vec::new()))
    }

    /// Those of a worker without a supervisor, which exits when they have changed. `None` if that
    /// is not wanted.
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

    fn of(launch: &Launch, supervisor: Option<Pid>, are_all: bool, paths: Vec<PathBuf>) -> Self {
        Self {
            supervisor,
            are_all,
            paths,
            log: Log::new(&launch.request.id, &launch.request.line),
            seen: Mutex::new(Seen {
                files: HashMap::new(),
                others: (0, Vec::new()),
                last: SystemTime::now(),
                due: Instant::now(),
            }),
        }
    }

    /// Looks at their files, if it is time and no other thread does, and tells the supervisor if
    /// one has changed. Is there no supervisor, and this worker to exit?
    pub(crate) fn look(&self, py: Python<'_>) -> bool {
        let Ok(mut guard) = self.seen.try_lock() else { return false };
        let seen = &mut *guard;
        if Instant::now() < seen.due {
            return false;
        }
        let begin = SystemTime::now();
        // Something else may stand in the place of `sys.modules`; then there is nothing to watch.
        let mut files = if self.are_all { files(py).unwrap_or_default() } else { Vec::new() };
        let count = count(py);
        if self.are_all && seen.others.0 != count {
            seen.others = (count, other_files(py).unwrap_or_default());
        }
        files.extend_from_slice(&seen.others.1);
        files.extend_from_slice(&self.paths);
        let changed = py.detach(|| seen.compare(files));
        seen.last = begin;
        seen.due = Instant::now() + PERIOD;
        let Some(file) = changed else { return false };
        let file = file.display();
        match self.supervisor {
            Some(supervisor) => {
                self.log
                    .entry(&LogMessage::notice(Code::ChangeSeen, format!("`{file}` has changed")));
                // If the supervisor is gone, this process is about to be.
                let _ = kill_process(supervisor, Signal::HUP);
                false
            }
            None => {
                let sentence = format!(
                    "`{file}` has changed; this worker exits, for another with the new code"
                );
                self.log.entry(&LogMessage::notice(Code::ChangeSeen, sentence));
                true
            }
        }
    }
}

impl Seen {
    /// Takes note of how `files` are now, and gives one that has changed since it was loaded.
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
                // What is gone is waited for.
                (_, None) => continue,
                (Some(known), found) => *known != found,
                // Whether it was changed before or after it was loaded cannot be told.
                (None, Some(found)) => {
                    found.is_changed_between(self.last - TICK, SystemTime::now())
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

/// How many modules and files of code there are. Something else may stand in the place of
/// `sys.modules`.
pub(crate) fn count(py: Python<'_>) -> usize {
    let modules = py.import("sys").and_then(|sys| sys.getattr("modules"));
    modules.and_then(|modules| modules.len()).unwrap_or(0) + executed::count()
}

/// Files of all modules. Looks into their dictionaries only: asking some modules for an attribute
/// imports others.
pub(crate) fn files(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    // A copy, since other threads may import meanwhile.
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.copy()?;
    let file = |module: &Bound<'_, PyAny>| -> Option<PathBuf> {
        let names = module.cast::<PyModule>().ok()?.dict();
        if let Some(file) = names.get_item("__file__").ok()?.and_then(|file| file.extract().ok()) {
            return Some(file);
        }
        // Loaders need not set it.
        let origin: PathBuf =
            names.get_item("__spec__").ok()??.getattr("origin").ok()?.extract().ok()?;
        origin.is_absolute().then_some(origin)
    };
    Ok(modules.values().iter().filter_map(|module| file(&module)).collect())
}

/// Files of code that may be no module's, and `.pth` files, which lead to directories.
pub(crate) fn other_files(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    let mut files = executed::all();
    let path = py.import("sys")?.getattr("path")?;
    for directory in path.try_iter()?.filter_map(|entry| entry.ok()?.extract::<PathBuf>().ok()) {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        files.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|end| end == "pth")),
        );
    }
    Ok(files)
}

/// The archive (zip, egg) that a file lies in which is none of the file system.
pub(crate) fn archive_of(file: &Path) -> Option<&Path> {
    file.ancestors().skip(1).find(|path| path.is_file())
}
