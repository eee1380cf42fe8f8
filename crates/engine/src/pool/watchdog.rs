//! Replaces the supervisor in a worker without one: logs slow requests with their stacks,
//! interrupts late requests, and kills the process if that does not help.
//!
//! The thread runs no Python, so that it never waits for the interpreter.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use diagnostics::{error_log, escape, message::LogMessage};
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
        threads::{self, StackSize},
    },
};

/// Stack size of the thread in bytes; its call depth is small.
const STACK: StackSize = StackSize::of_bytes(256 * 1024);

/// The watchdog thread, and its state.
pub(crate) struct Watchdog(Arc<WatchdogState>);

struct WatchdogState {
    status: Arc<WorkerStatus>,
    slow: Option<Duration>,
    timeout: Option<Duration>,
    /// The thread was asked to end.
    is_over: Mutex<bool>,
    wakeup: Condvar,
}

impl Watchdog {
    /// The watchdog of a worker without a supervisor, if its requests have one of these limits.
    pub(crate) fn new(status: &Arc<WorkerStatus>, slow: Option<Duration>) -> Option<Self> {
        let timeout = status.shortest_timeout();
        let is_needed = status.is_alone() && (slow.is_some() || timeout.is_some());
        is_needed.then(|| {
            let (is_over, wakeup) = (Mutex::new(false), Condvar::new());
            let status = status.clone();
            Self(Arc::new(WatchdogState { status, slow, timeout, is_over, wakeup }))
        })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start another thread.
    pub(crate) fn start(&self) -> io::Result<()> {
        let state = self.0.clone();
        let run = move || state.watch_requests();
        fork::without_signals(|| threads::start("wsgate-watchdog", STACK, run)).map(drop)
    }

    /// Asks the thread to end, without joining it.
    pub(crate) fn end(&self) {
        *self.0.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.wakeup.notify_all();
    }
}

impl WatchdogState {
    fn watch_requests(&self) {
        let scoreboard = self.status.scoreboard();
        let mut watch = OverdueWatch::new(self.slow, self.timeout, scoreboard.lines());
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            for (action, reading) in watch.look(scoreboard) {
                let request = escape::text(&reading.request);
                let message = match action {
                    Action::LogSlow => {
                        Some(LogMessage::slow_request(&request, reading.pid, reading.elapsed()))
                    }
                    Action::Abort => Some(LogMessage::not_interrupted(&request, reading.elapsed())),
                    Action::Interrupt | Action::Kill => None,
                };
                if let Some(message) = message {
                    Log::without_request("worker").write(&message);
                }
                if action == Action::LogSlow && error_log::is_stuck() {
                    // The handler that writes the stacks would wait for a reader forever.
                    continue;
                }
                // A signal to this process itself cannot fail.
                let _ = kill_process(getpid(), action.signal());
            }
            let due = watch.next_due(scoreboard);
            let left = due.map(|due| {
                due.saturating_duration_since(running_clock::instant())
                    .max(Duration::from_millis(1))
            });
            is_over = running_clock::wait(left, |timeout| match timeout {
                Some(timeout) => {
                    self.wakeup
                        .wait_timeout(is_over, timeout)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self.wakeup.wait(is_over).unwrap_or_else(PoisonError::into_inner),
            });
        }
    }
}
