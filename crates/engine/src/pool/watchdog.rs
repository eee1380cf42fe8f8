//! Does in a worker without a supervisor what a supervisor does for its workers: logs slow requests
//! with their stacks, interrupts those that are late, and ends the process if that does not help.
//!
//! A thread without Python, so that nothing that holds the interpreter can delay it.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use diagnostics::error_log;
use rustix::process::{getpid, kill_process};
use wire::{
    overdue_requests::{Action, OverdueWatch},
    running_clock,
};

use crate::{
    log::Log,
    pool::worker_status::WorkerStatus,
    process::{
        fork,
        threads::{
            Stack, {self},
        },
    },
};

/// Its stack, which calls little.
const STACK: Stack = Stack::of_bytes(256 * 1024);

/// The thread, once it was started.
pub(crate) struct Watchdog(Arc<WatchdogState>);

struct WatchdogState {
    watched: Arc<WorkerStatus>,
    slow: Option<Duration>,
    timeout: Option<Duration>,
    /// The thread is to end.
    over: Mutex<bool>,
    bell: Condvar,
}

impl Watchdog {
    /// For a worker without a supervisor whose requests have one of these limits.
    pub(crate) fn new(watched: &Arc<WorkerStatus>, slow: Option<Duration>) -> Option<Self> {
        let timeout = watched.timeout();
        let is_needed = watched.is_alone() && (slow.is_some() || timeout.is_some());
        is_needed.then(|| {
            let (over, bell) = (Mutex::new(false), Condvar::new());
            Self(Arc::new(WatchdogState { watched: watched.clone(), slow, timeout, over, bell }))
        })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        let shared = self.0.clone();
        fork::without_signals(|| {
            threads::start("wsgate-watchdog", STACK, move || shared.watch_requests())
        })
        .map(drop)
    }

    /// Lets the thread end. Nobody waits for it.
    pub(crate) fn end(&self) {
        *self.0.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.bell.notify_all();
    }
}

impl WatchdogState {
    fn watch_requests(&self) {
        let scoreboard = self.watched.scoreboard();
        let mut watch = OverdueWatch::new(self.slow, self.timeout, scoreboard.lines());
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            for (action, reading) in watch.look(scoreboard) {
                if let Some(entry) = action.entry(&reading) {
                    Log::new("-", "(worker)").entry(&entry);
                }
                if action == Action::LogSlow && error_log::is_stuck() {
                    // The handler that writes the stacks would wait for a reader without an end.
                    continue;
                }
                // This is about the process that runs, so that it exists.
                let _ = kill_process(getpid(), action.signal());
            }
            let due = watch.next_due(scoreboard);
            let left = due.map(|due| {
                due.saturating_duration_since(running_clock::instant())
                    .max(Duration::from_millis(1))
            });
            over = running_clock::wait(left, |patience| match patience {
                Some(patience) => {
                    self.bell.wait_timeout(over, patience).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.bell.wait(over).unwrap_or_else(PoisonError::into_inner),
            });
        }
    }
}
