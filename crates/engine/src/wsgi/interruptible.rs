//! Decides whether a request may be interrupted, and enforces its deadline.
//!
//! One lock decides who interrupts a request: a signal handler, another thread, or a wait that has
//! reached the deadline. The thread that ends the request takes the same lock, and withdraws an
//! exception that was not raised yet. So an interruption never hits another request.

use std::{
    ffi::c_long,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{
        ThreadId, {self},
    },
    time::Duration,
};

use pyo3::prelude::*;
use wire::{
    clock,
    running_clock::{now, recently},
};

use crate::{
    process::python_api::set_async_exception,
    wsgi::exceptions::{Interrupted, is_timeout},
};

/// How long an interrupted request may wait for its client after the deadline, to send an error
/// page or the rest of a response. The supervisor allows twice as long.
const GRACE_MILLISECONDS: u64 = 1000;

/// The interruption state of a request. Web servers stop a CGI program after receiving its whole
/// response. This signal must not interrupt `close()` and `atexit` handlers. The deadline of the
/// request also limits `close()`.
#[derive(Clone, Debug)]
pub(crate) struct Interruptible(Arc<InterruptibleRequest>);

#[derive(Debug)]
struct InterruptibleRequest {
    limit: Option<RequestDeadline>,
    /// When the request began, by [`Clock::Running`].
    begun: u64,
    /// For how many milliseconds since `begun` the application has asked; 0 if it has not.
    extended: AtomicU64,
    /// The other party that enforces the deadline. Without it the deadline does not change.
    enforcer: Option<Enforcer>,
    /// The thread that serves the request.
    thread: ThreadId,
    state: Mutex<InterruptState>,
}

/// Another thread or process that enforces the deadline of a request: tells it that the request may
/// take longer.
pub(crate) struct Enforcer(pub(crate) Box<dyn Fn(MoreTime) + Send + Sync>);

/// For how long a request may go on, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MoreTime {
    /// Since now.
    pub(crate) from_now: u64,
    /// Since the request began.
    pub(crate) from_begin: u64,
}

impl fmt::Debug for Enforcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enforcer").finish_non_exhaustive()
    }
}

/// The clock that decides whether a request is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The clock of [`wire::running_clock`] in this process.
    Running,
    /// The monotonic clock. The supervisor's clock is behind this clock, and ahead of this
    /// process's clock if only this process was stopped.
    Monotonic,
}

/// The deadline of a request.
#[derive(Debug)]
struct RequestDeadline {
    /// The deadline by [`Clock::Running`].
    deadline: AtomicU64,
    /// The deadline by [`Clock::Monotonic`].
    monotonic_deadline: AtomicU64,
    /// Python's identifier of the thread; `None` for the main thread, which signal handlers
    /// interrupt.
    python_thread: Option<c_long>,
}

#[derive(Debug)]
struct InterruptState {
    stage: InterruptStage,
    awaited: Option<ClientWait>,
    /// When the supervisor interrupted the request, if earlier than the deadline by
    /// [`Clock::Running`].
    interrupted_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InterruptStage {
    /// The request may be interrupted.
    Open,
    /// The response has ended and the application continues: only the deadline interrupts it.
    ResponseEnded,
    /// The request was interrupted; the exception may not have been raised yet.
    Interrupted,
    /// The request may no longer be interrupted.
    Over,
}

impl RequestDeadline {
    fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }
}

impl InterruptState {
    /// May the deadline interrupt the request?
    fn is_running(&self) -> bool {
        matches!(self.stage, InterruptStage::Open | InterruptStage::ResponseEnded)
    }
}

/// A wait for the client that has reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientWait {
    /// Waited for more of the request body until the deadline of the request.
    RequestBody,
    /// Waited for the client to read the response until the deadline of the request.
    ResponseRead,
    /// Waited for more of the request body until the limit of one wait.
    NextBodyPiece,
    /// Waited for the client to read more of the response until the limit of one wait.
    NextResponseRead,
}

impl Interruptible {
    /// A request without a deadline.
    pub(crate) fn without_deadline() -> Self {
        Self::new(None, None)
    }

    /// A request whose deadline `enforcer` alone enforces, from outside of this process.
    pub(crate) fn of_enforcer(enforcer: Enforcer) -> Self {
        Self::new(None, Some(enforcer))
    }

    /// A request that this thread serves, and that has to end after `timeout` milliseconds.
    /// `python_thread` is Python's identifier of this thread, `None` for the main thread.
    pub(crate) fn with_timeout(
        timeout: u64,
        python_thread: Option<c_long>,
        enforcer: Enforcer,
    ) -> Self {
        let deadline = RequestDeadline {
            deadline: recently().saturating_add(timeout).into(),
            monotonic_deadline: clock::recently().saturating_add(timeout).into(),
            python_thread,
        };
        Self::new(Some(deadline), Some(enforcer))
    }

    fn new(limit: Option<RequestDeadline>, enforcer: Option<Enforcer>) -> Self {
        let state = Mutex::new(InterruptState {
            stage: InterruptStage::Open,
            awaited: None,
            interrupted_at: u64::MAX,
        });
        Self(Arc::new(InterruptibleRequest {
            limit,
            begun: recently(),
            extended: AtomicU64::new(0),
            enforcer,
            thread: thread::current().id(),
            state,
        }))
    }

    /// Can the request get more time?
    pub(crate) fn is_extensible(&self) -> bool {
        self.0.enforcer.is_some()
    }

    /// Lets the request take at least so many milliseconds from now, if its response has not ended
    /// and it was not interrupted. Never brings the deadline forward.
    pub(crate) fn extend(&self, milliseconds: u64) {
        let state = self.state();
        let Some(enforcer) = self.0.enforcer.as_ref() else {
            return;
        };
        if state.stage != InterruptStage::Open {
            return;
        }
        if let Some(limit) = &self.0.limit {
            let deadline = now().saturating_add(milliseconds);
            if deadline <= limit.deadline.fetch_max(deadline, Ordering::Relaxed) {
                return;
            }
            let deadline = clock::now().saturating_add(milliseconds);
            limit.monotonic_deadline.fetch_max(deadline, Ordering::Relaxed);
        }
        let from_begin = now().saturating_sub(self.0.begun).saturating_add(milliseconds);
        self.0.extended.fetch_max(from_begin, Ordering::Relaxed);
        (enforcer.0)(MoreTime { from_now: milliseconds, from_begin });
    }

    /// For how many milliseconds the request may go on from its beginning, if this process has a
    /// deadline for it.
    pub(crate) fn timeout_milliseconds(&self) -> Option<u64> {
        Some(self.0.limit.as_ref()?.deadline().saturating_sub(self.0.begun))
    }

    /// How many seconds the request may take, if that differs from what all requests may.
    pub(crate) fn own_timeout_seconds(&self) -> Option<u64> {
        let extended = self.0.extended.load(Ordering::Relaxed);
        let extended = Some(extended).filter(|&extended| extended > 0);
        let milliseconds = self.timeout_milliseconds().or(extended)?;
        Some(milliseconds.saturating_add(500) / 1000)
    }

    /// May the request be interrupted?
    pub(crate) fn may_be_interrupted(&self) -> bool {
        self.state().stage == InterruptStage::Open
    }

    /// The wait for the client that has reached its limit, if any.
    pub(crate) fn awaited(&self) -> Option<ClientWait> {
        self.state().awaited
    }

    /// The time until the deadline, while the request may be interrupted.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let limit = self.0.limit.as_ref()?;
        self.state()
            .is_running()
            .then(|| Duration::from_millis(limit.deadline().saturating_sub(now())))
    }

    /// The maximum duration of the next wait for the client; `None` for no limit.
    pub(crate) fn client_wait_limit(&self) -> Option<Duration> {
        let deadline = self.0.limit.as_ref()?.deadline();
        let state = self.state();
        let deadline = deadline.min(state.interrupted_at);
        let now = now();
        let until = if state.is_running() || now < deadline {
            deadline
        } else {
            deadline.saturating_add(GRACE_MILLISECONDS)
        };
        Some(Duration::from_millis(until.saturating_sub(now)))
    }

    /// Interrupts the request if it is late by `clock`. Returns whether the caller has to raise the
    /// exception. The caller is a signal handler in the thread of the request.
    pub(crate) fn interrupt_if_late(&self, clock: Clock) -> bool {
        self.interrupt_late(&mut self.state(), clock)
    }

    /// Interrupts the request if it is late by `clock`. Returns whether the request was
    /// interrupted. For requests outside the main thread.
    pub(crate) fn interrupt_thread(&self, py: Python<'_>, clock: Clock) -> bool {
        let exception = py.get_type::<Interrupted>();
        let mut state = self.state();
        self.python_thread().is_some_and(|thread| {
            let is_late = self.interrupt_late(&mut state, clock);
            if is_late {
                set_async_exception(py, thread, Some(&exception));
            }
            is_late
        })
    }

    /// Notes that the response has ended: from now on only the deadline interrupts the request.
    /// Withdraws an exception that was not raised yet.
    pub(crate) fn response_ended(&self, py: Python<'_>) {
        let mut state = self.state();
        self.withdraw(py, &state);
        if state.is_running() {
            state.stage = InterruptStage::ResponseEnded;
        }
    }

    /// Interrupts the request at its time limit. Returns whether the caller has to raise the
    /// exception. The caller is a signal handler in the thread of the request.
    pub(crate) fn time_out(&self) -> bool {
        let mut state = self.state();
        let is_running = state.is_running();
        if is_running {
            state.stage = InterruptStage::Interrupted;
        }
        is_running
    }

    /// Ends interruption of the request. Withdraws an exception that was not raised yet. Returns
    /// whether the deadline could have interrupted the request until now.
    pub(crate) fn end(&self, py: Python<'_>) -> bool {
        let mut state = self.state();
        let was_running = state.is_running();
        self.withdraw(py, &state);
        state.stage = InterruptStage::Over;
        was_running
    }

    /// Lets the deadline interrupt the request again.
    pub(crate) fn resume(&self) {
        self.state().stage = InterruptStage::ResponseEnded;
    }

    /// Notes that a wait for the client has reached the deadline of the request, or its own limit.
    /// Returns the exception to raise.
    pub(crate) fn expire(&self, py: Python<'_>, awaited: ClientWait) -> PyErr {
        let mut state = self.state();
        // Other threads of the application may read the body; only the request's own thread can be
        // interrupted.
        let is_ours = self.0.thread == thread::current().id();
        let is_late = self
            .0
            .limit
            .as_ref()
            .is_some_and(|limit| now() >= limit.deadline().min(state.interrupted_at));
        if is_ours && !is_late {
            // The request may still be interrupted at its deadline.
            let piece = if awaited == ClientWait::RequestBody {
                ClientWait::NextBodyPiece
            } else {
                ClientWait::NextResponseRead
            };
            state.awaited.get_or_insert(piece);
        } else if is_ours {
            self.withdraw(py, &state);
            if state.is_running() {
                state.stage = InterruptStage::Interrupted;
            }
            state.awaited.get_or_insert(awaited);
        }
        Interrupted::new_err("timeout")
    }

    /// Runs pending signal handlers after the wait `awaited` for the client. If a handler ends the
    /// request at its deadline, [`Interruptible::awaited`] names that wait.
    ///
    /// # Errors
    /// Any exception of a handler.
    pub(crate) fn run_signal_handlers(&self, py: Python<'_>, awaited: ClientWait) -> PyResult<()> {
        py.check_signals().inspect_err(|error| {
            if is_timeout(py, error) {
                self.state().awaited.get_or_insert(awaited);
            }
        })
    }

    fn withdraw(&self, py: Python<'_>, state: &InterruptState) {
        if let Some(thread) = self.python_thread()
            && state.stage == InterruptStage::Interrupted
        {
            set_async_exception(py, thread, None);
        }
    }

    fn interrupt_late(&self, state: &mut InterruptState, clock: Clock) -> bool {
        let is_late = state.is_running()
            && self.0.limit.as_ref().is_some_and(|limit| match clock {
                Clock::Running => now() >= limit.deadline(),
                Clock::Monotonic => {
                    clock::now() >= limit.monotonic_deadline.load(Ordering::Relaxed)
                }
            });
        if is_late {
            state.stage = InterruptStage::Interrupted;
            state.interrupted_at = now();
        }
        is_late
    }

    fn python_thread(&self) -> Option<c_long> {
        self.0.limit.as_ref()?.python_thread
    }

    /// No Python code runs under this lock, so a thread that holds the interpreter gets the lock.
    fn state(&self) -> MutexGuard<'_, InterruptState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
