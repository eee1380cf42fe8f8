//! Actions that the owners of the supervisor's state request outside their state, and the events
//! that the owners receive.

use std::{os::unix::net::UnixStream, process::ExitStatus};

use diagnostics::message::LogMessage;
use rustix::process::{Pid, Signal};
use wire::launch::Preload;

use crate::{
    pool::supervisor::{
        lifecycle::Event,
        slots::{LimitReached, WorkerOrder},
    },
    request::Request,
};

/// Action that the supervisor carries out.
pub(super) enum Action {
    /// Write a log message about the pool.
    Log(LogMessage),
    /// Write a log message about a request.
    LogRequest(LogMessage, Box<Request>),
    /// Pass an event to the lifecycle of the pool.
    Raise(Event),
    /// Pass an event to the workers.
    Worker(WorkerEvent),
    /// Send a signal to a process.
    Signal(Pid, Signal),
    /// Write a log message about a slow request of this worker, and the stacks of its threads.
    LogSlow(LogMessage, Pid),
    /// Write a log message about a slow request, which has the stacks, to the slow log.
    WriteSlow(LogMessage),
    /// Ask the process with this number for its stacks, for a client. Without a number, list the
    /// processes.
    AskForStacks(UnixStream, Option<i32>),
    /// Send a response to a client.
    Answer(UnixStream, String),
    /// Fork a worker from the current template.
    Fork(WorkerOrder),
    /// Load the code in a new template.
    Load(Preload),
    /// Execute the installed program of wsgate, and reload.
    Upgrade,
    /// Release the current template: the pool is idle.
    Rest,
    /// Stop growing: no request waits for another attempt to load the code.
    ShrinkToMin,
    /// Record that a request was served.
    NoteRequest,
    /// Record that code could be loaded, by a template or a worker.
    NoteLoadSuccess,
    /// Record that code could not be loaded.
    NoteLoadFailure,
    /// Keep gateways from starting another warm pool for this code.
    ForbidWarm,
    /// Count an event for the status.
    Count(CountedEvent),
}

impl Action {
    /// Counts a crash.
    pub(super) fn crash(status: ExitStatus) -> Self {
        Self::Count(CountedEvent::Crashed(status))
    }

    /// Counts requests that the supervisor has answered with 503.
    pub(super) fn refusals(refused: &[Request]) -> impl Iterator<Item = Self> {
        refused.iter().map(|_| Self::Count(CountedEvent::Refused))
    }

    /// Counts the replacement of a worker.
    pub(super) fn replacement(reason: ReplaceReason) -> Self {
        Self::Count(CountedEvent::Replaced(reason))
    }
}

/// Event that the status counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CountedEvent {
    /// A request was logged as slow.
    Slow,
    /// A request has reached its timeout.
    TimedOut,
    /// The supervisor has answered a request with 503.
    Refused,
    /// A worker or a template has crashed.
    Crashed(ExitStatus),
    /// A worker is replaced or stopped.
    Replaced(ReplaceReason),
}

/// Why a worker is replaced or stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplaceReason {
    /// `--max-requests` was reached.
    MaxRequests,
    /// `--max-age` was reached.
    MaxAge,
    /// `--max-rss` was reached.
    MaxRss,
    /// New code was loaded.
    Reload,
    /// Its request did not end after `--timeout`.
    Timeout,
    /// The worker or its template has crashed.
    Crash,
    /// Fewer workers are needed.
    Idle,
    /// The worker exited for another reason.
    Exit,
}

impl ReplaceReason {
    /// Why a worker is replaced that has reached this limit, or none.
    pub(super) fn of_limit(limit: Option<LimitReached>) -> Self {
        match limit {
            Some(LimitReached::Age) => Self::MaxAge,
            Some(LimitReached::Memory(_)) => Self::MaxRss,
            None => Self::Reload,
        }
    }
}

impl Action {
    /// The actions that ask a worker to stop.
    pub(super) fn stop(worker: Pid) -> Vec<Self> {
        // A stopped process does not receive SIGTERM before SIGCONT (systemd does the same).
        vec![Self::Signal(worker, Signal::TERM), Self::Signal(worker, Signal::CONT)]
    }
}

/// Event in the life of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum WorkerEvent {
    /// An ordered worker is running.
    Started(WorkerOrder, Pid),
    /// The order could not be sent to the template.
    NotOrdered(WorkerOrder),
    /// The template could not fork the worker; the number is that of the error.
    ForkFailed(WorkerOrder, i32),
    /// The worker exited before the application was loaded. The log has the reason.
    StartFailed(WorkerOrder),
    /// A worker exited.
    Exited(Pid, ExitStatus),
    /// A worker is killed since its request did not end after the timeout.
    TimedOut(Pid),
    /// A template exited, and its workers with it.
    TemplateExited {
        /// Generation of the template.
        generation: u64,
    },
    /// The pool stops.
    PoolStops,
}
