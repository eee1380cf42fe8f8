//! Stops a request on a signal, and escalates if the process does not stop.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal as StopSignal;
use rustix::{
    net::{SendFlags, send},
    process::Signal,
};
use wire::{report::StopReason, running_clock};

use crate::{
    guard::{ServingProcess, channels::is_client_disconnected},
    system::signals::SignalPipe,
};

/// How long an application may take to stop after SIGTERM. Apache kills the gateway three seconds
/// after it has sent SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long python may take to write its stacks to the log after SIGABRT.
const ABORT_TIMEOUT: Duration = Duration::from_millis(500);

/// The signals by which the web server, or a person, stops a request.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn stop_signals() -> io::Result<SignalPipe> {
    SignalPipe::of_request_stop()
}

/// The reason of the last signal.
pub(crate) fn stop_reason(signals: &SignalPipe) -> StopReason {
    match signals.last() {
        Some(StopSignal::SIGINT) => StopReason::Interrupted,
        Some(StopSignal::SIGHUP) => StopReason::HungUp,
        Some(_) => StopReason::Terminated,
        None => StopReason::OtherSignal,
    }
}

/// The stop of a request: SIGTERM, then SIGABRT, then SIGKILL.
pub(super) struct StopSequence {
    reason: StopReason,
    next: Escalation,
    due: Instant,
}

/// The next signal for a process that has not stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escalation {
    /// Python writes its stacks to the log, and dies.
    Abort,
    Kill,
}

impl StopSequence {
    /// Asks `process` to stop, by the file descriptor `reports` and by SIGTERM.
    pub(super) fn begin(reason: StopReason, process: &ServingProcess, reports: &OwnedFd) -> Self {
        // If python has exited already, the guard handles that as an exit.
        if let Ok(packet) = reason.encode() {
            let _ = send(reports, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        }
        process.signal(Signal::TERM);
        Self { reason, next: Escalation::Abort, due: running_clock::instant() + TERM_TIMEOUT }
    }

    /// Gives a process some time to exit after its request. Only the application can delay the
    /// exit, so stacks in the log would not help.
    pub(super) fn after_request(reason: StopReason) -> Self {
        Self { reason, next: Escalation::Kill, due: running_clock::instant() + TERM_TIMEOUT }
    }

    /// Why the request is stopped.
    pub(super) fn reason(&self) -> StopReason {
        self.reason
    }

    /// When the next signal is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends the next signal to `process`, if it is due. `response` is the file descriptor of the
    /// response, unless the response is complete.
    pub(super) fn escalate(&mut self, process: &ServingProcess, response: Option<&OwnedFd>) {
        if running_clock::instant() < self.due {
            return;
        }
        self.due = running_clock::instant() + ABORT_TIMEOUT;
        match std::mem::replace(&mut self.next, Escalation::Kill) {
            // Stacks would explain nothing, because no log message follows.
            Escalation::Abort
                if self.reason == StopReason::Terminated
                    && response.is_some_and(is_client_disconnected) =>
            {
                process.signal_group(Signal::KILL);
            }
            Escalation::Abort => process.signal(Signal::ABORT),
            Escalation::Kill => process.signal_group(Signal::KILL),
        }
    }
}
