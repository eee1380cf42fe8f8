//! Watches the files of all loaded modules during development (`--reload`).
//!
//! The template and every worker watch files, since frameworks import parts of an application
//! during the first request that needs them. A process that finds a change sends a signal to the
//! supervisor.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io,
    os::{fd::BorrowedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use wire::{
    app::Source,
    launch::{Launch, Service},
    scoreboard::{ChangeReport, Scoreboard},
    snapshot::Snapshot,
};

use crate::{
    loading::staleness::{archive::archive_of, code_files},
    log::Log,
};

/// The time between two checks.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches the modules of this process.
pub(crate) struct ModuleWatch {
    supervisor: Option<ReloadingSupervisor>,
    /// Watches the files of all loaded code, not only `paths`.
    watches_all: bool,
    /// Other files to watch.
    paths: Vec<PathBuf>,
    log: Log,
    seen: Mutex<SeenFiles>,
}

/// The supervisor that reloads the code.
struct ReloadingSupervisor {
    pid: Option<Pid>,
    scoreboard: Scoreboard,
    /// The number of the attempt to load code by which this process has loaded its code.
    loaded: u64,
}

struct SeenFiles {
    /// A changed file that was not reported, and the newest attempt to load code at that time.
    unreported: Option<(PathBuf, u64)>,
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
    ///
    /// # Errors
    /// If the `scoreboard` cannot be mapped.
    pub(crate) fn watched(
        launch: &Launch,
        service: &Service,
        scoreboard: BorrowedFd<'_>,
    ) -> io::Result<Option<Self>> {
        if !service.reload {
            return Ok(None);
        }
        let scoreboard = Scoreboard::attach(scoreboard.try_clone_to_owned()?)?;
        let supervisor = ReloadingSupervisor {
            pid: Pid::from_raw(launch.gateway_pid),
            loaded: scoreboard.code_loads().newest(),
            scoreboard,
        };
        Ok(Some(Self::of(launch, Some(supervisor), true, Vec::new())))
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
        supervisor: Option<ReloadingSupervisor>,
        watches_all: bool,
        paths: Vec<PathBuf>,
    ) -> Self {
        Self {
            supervisor,
            watches_all,
            paths,
            log: Log::new(&launch.request.id, &launch.request.line),
            seen: Mutex::new(SeenFiles {
                unreported: None,
                files: HashMap::new(),
                others: (0, Vec::new()),
                last: file_clock(),
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
        let begin = file_clock();
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
        match (&self.supervisor, changed) {
            (Some(supervisor), changed) => {
                let loads = supervisor.scoreboard.code_loads();
                if let Some(file) = changed {
                    seen.unreported = Some((file, loads.newest()));
                }
                let Some((file, noticed)) = &seen.unreported else { return false };
                match loads.report(supervisor.loaded, *noticed) {
                    ChangeReport::First => supervisor.report(&self.log, file),
                    ChangeReport::Covered => {}
                    ChangeReport::Later => return false,
                }
                seen.unreported = None;
                false
            }
            (None, None) => false,
            (None, Some(file)) => {
                let file = file.display();
                let sentence = format!(
                    "`{file}` has changed; this worker exits, for another with the new code"
                );
                self.log.write(&LogMessage::new(Code::ChangeSeen, sentence));
                true
            }
        }
    }
}

/// The time by the clock that file times come from: that of the kernel's last tick. A file that is
/// changed later has this time at least.
fn file_clock() -> SystemTime {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

impl ReloadingSupervisor {
    fn report(&self, log: &Log, file: &Path) {
        let sentence = format!("`{}` has changed", file.display());
        log.write(&LogMessage::new(Code::ChangeSeen, sentence));
        if let Some(pid) = self.pid {
            // If the supervisor has exited, this process exits soon.
            let _ = kill_process(pid, Signal::HUP);
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
                    found.is_changed_between(self.last - Duration::from_nanos(1), SystemTime::now())
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
