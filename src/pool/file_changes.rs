//! Detects changed files by polling them about once a second.
//!
//! Polling finds changes that inotify misses: on network file systems, of links that lead
//! elsewhere, and of files that do not exist yet. The cost is one `stat` per path.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use wire::{running_clock, snapshot::Snapshot};

/// Time between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Time until a changed file is polled again. A file that did not change meanwhile is complete.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// Watched paths.
#[derive(Debug)]
pub(super) struct FileChanges {
    watched: Vec<Watched>,
    due: Instant,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// The state of the file when code was last loaded; `None` if the file did not exist.
    known: Option<Snapshot>,
    /// The state of the file at the last poll, if it was different.
    seen: Option<Snapshot>,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        Self { known: Snapshot::of(&path), seen: None, path }
    }
}

impl FileChanges {
    /// Watches `paths`: files, directories, or paths that do not exist yet.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            watched: paths.into_iter().map(Watched::new).collect(),
            due: running_clock::instant() + POLL_INTERVAL,
        }
    }

    /// Watches `paths` instead. The known state of a path stays if it was watched before.
    pub(super) fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut known = std::mem::take(&mut self.watched);
        for path in paths {
            let found = known.iter().position(|watched| watched.path == path);
            self.watched.push(match found {
                Some(position) => known.swap_remove(position),
                None => Watched::new(path),
            });
        }
    }

    /// Records the current state: only later changes count. Call this before code is loaded.
    pub(super) fn record(&mut self) {
        for watched in &mut self.watched {
            watched.known = Snapshot::of(&watched.path).or(watched.known);
            watched.seen = None;
        }
    }

    /// Time of the next poll.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.watched.is_empty()).then_some(self.due)
    }

    /// Is it time for the next poll?
    pub(super) fn is_due(&self) -> bool {
        !self.watched.is_empty() && running_clock::instant() >= self.due
    }

    /// Polls the files if it is time. Returns a path that has changed and is complete.
    pub(super) fn poll(&mut self) -> Option<&Path> {
        let now = running_clock::instant();
        if now < self.due {
            return None;
        }
        let (mut settled, mut is_settling) = (None, false);
        for watched in &mut self.watched {
            // A removed file is not new code: wait until the file exists again.
            let found = Snapshot::of(&watched.path).filter(|found| Some(*found) != watched.known);
            if found.is_some() && found == watched.seen {
                (watched.known, watched.seen) = (found, None);
                settled = Some(watched.path.as_path());
            } else {
                watched.seen = found;
                is_settling |= found.is_some();
            }
        }
        self.due = now + if is_settling { SETTLE_INTERVAL } else { POLL_INTERVAL };
        settled
    }
}
