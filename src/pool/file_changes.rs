//! Notices that files have changed, by looking at them about once a second.
//!
//! Looking finds what notices from the kernel do not: changes on file systems of other machines,
//! links that lead elsewhere, files that are not there yet. It costs one `stat` for each path.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use wire::{running_clock, snapshot::Snapshot};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Time until a changed file is looked at again: when nothing has happened to it meanwhile, it is
/// no longer being written.
const SETTLING: Duration = Duration::from_millis(500);

/// Paths that are watched.
#[derive(Debug)]
pub(super) struct Changes {
    watched: Vec<Watched>,
    due: Instant,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// As it was when code was last loaded; `None` if it was never there.
    known: Option<Snapshot>,
    /// As it was at the last look, if that was different.
    seen: Option<Snapshot>,
}

impl Changes {
    /// Watches `paths`, each a file or directory, or nothing yet.
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let watched = |path: PathBuf| Watched { known: Snapshot::of(&path), seen: None, path };
        Self {
            watched: paths.into_iter().map(watched).collect(),
            due: running_clock::instant() + PERIOD,
        }
    }

    /// Code is about to be loaded: what counts from now on is what changes from now on.
    pub(super) fn note(&mut self) {
        for watched in &mut self.watched {
            watched.known = Snapshot::of(&watched.path).or(watched.known);
            watched.seen = None;
        }
    }

    /// When to look.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (!self.watched.is_empty()).then_some(self.due)
    }

    /// Is it time to look?
    pub(super) fn is_due(&self) -> bool {
        !self.watched.is_empty() && running_clock::instant() >= self.due
    }

    /// Looks, if it is time. Gives a path that has changed, and is not being changed any more.
    pub(super) fn look(&mut self) -> Option<&Path> {
        let now = running_clock::instant();
        if now < self.due {
            return None;
        }
        let (mut settled, mut is_settling) = (None, false);
        for watched in &mut self.watched {
            // What is gone is waited for: there is nothing new to be loaded.
            let found = Snapshot::of(&watched.path).filter(|found| Some(*found) != watched.known);
            if found.is_some() && found == watched.seen {
                (watched.known, watched.seen) = (found, None);
                settled = Some(watched.path.as_path());
            } else {
                watched.seen = found;
                is_settling |= found.is_some();
            }
        }
        self.due = now + if is_settling { SETTLING } else { PERIOD };
        settled
    }
}
