//! Watches the files of all modules that are loaded in this process, for development.
//!
//! The template does this and every worker, since frameworks import much of an application only when it is needed. Whoever finds
//! a change tells the supervisor by a signal.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use link::{
    entry::{Code, Entry},
    launch::{Launch, Service},
    snapshot::Snapshot,
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyModule},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::log::Log;

/// Time between two looks.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// What the times of files may be behind the clock: the kernel takes them from its last tick.
const TICK: Duration = Duration::from_millis(20);

/// The modules of this process.
pub(super) struct Modules {
    supervisor: Option<Pid>,
    log: Log,
    seen: Mutex<Seen>,
}

struct Seen {
    files: HashMap<PathBuf, Option<Snapshot>>,
    /// When they were last looked at: a module that is new was loaded since.
    last: SystemTime,
    due: Instant,
}

impl Modules {
    /// None is loaded yet. `None` if nobody wants them watched.
    pub(super) fn watched(launch: &Launch, service: &Service) -> Option<Self> {
        service.reload.then(|| Self {
            supervisor: Pid::from_raw(launch.gateway_pid),
            log: Log::new(&launch.request_id, &launch.request),
            seen: Mutex::new(Seen { files: HashMap::new(), last: SystemTime::now(), due: Instant::now() }),
        })
    }

    /// Looks at their files, if it is time and no other thread does, and tells the supervisor if one has changed.
    pub(super) fn look(&self, py: Python<'_>) {
        let Ok(mut guard) = self.seen.try_lock() else { return };
        let seen = &mut *guard;
        if Instant::now() < seen.due {
            return;
        }
        let begin = SystemTime::now();
        // Something else may stand in the place of `sys.modules`; then there is nothing to watch.
        let files = files(py).unwrap_or_default();
        let changed = py.detach(|| seen.compare(files));
        seen.last = begin;
        seen.due = Instant::now() + PERIOD;
        if let (Some(file), Some(supervisor)) = (changed, self.supervisor) {
            self.log.entry(&Entry::notice(Code::ChangeSeen, format!("`{}` has changed", file.display())));
            // If the supervisor is gone, this process is about to be.
            let _ = kill_process(supervisor, Signal::HUP);
        }
    }
}

impl Seen {
    /// Takes note of how `files` are now, and gives one that has changed since it was loaded.
    fn compare(&mut self, files: Vec<PathBuf>) -> Option<PathBuf> {
        let mut changed = None;
        for file in files {
            let found = Snapshot::of(&file);
            let is_changed = match (self.files.get(&file), found) {
                // What is gone is waited for.
                (_, None) => continue,
                (Some(known), found) => *known != found,
                // Whether it was changed before or after it was loaded cannot be told.
                (None, Some(found)) => found.is_changed_between(self.last - TICK, SystemTime::now()),
            };
            if is_changed {
                changed = Some(file.clone());
            }
            self.files.insert(file, found);
        }
        changed
    }
}

/// Files of all modules. Looks into their dictionaries only: asking some modules for an attribute imports others.
pub(super) fn files(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    // A copy, since other threads may import meanwhile.
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.copy()?;
    let file = |module: &Bound<'_, PyAny>| -> Option<PathBuf> {
        module.cast::<PyModule>().ok()?.dict().get_item("__file__").ok()??.extract().ok()
    };
    Ok(modules.values().iter().filter_map(|module| file(&module)).collect())
}
