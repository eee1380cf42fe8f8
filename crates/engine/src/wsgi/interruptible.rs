//! Whether a request may be interrupted, and by when it has to be over.
//!
//! One lock decides who interrupts a request: a signal handler, another thread, or a wait of our
//! own that has reached the deadline. The thread that ends the request holds the same lock, and
//! takes an exception back that the thread has not seen yet. So no request is ever interrupted for
//! another.

use std::{
    ffi::c_long,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{
        ThreadId, {self},
    },
    time::Duration,
};

use pyo3::{ffi, prelude::*};
use wire::{
    clock,
    running_clock::{now, recently},
};

use crate::wsgi::error::{Interrupted, is_timeout};

/// How much longer than its deadline a request may wait for its client, once it was interrupted:
/// for an error page, or to end what it has begun. The supervisor gives it twice as long.
const GRACE_MILLISECONDS: u64 = 1000;

/// Whether an application may be interrupted. Web servers end a CGI program as soon as they have
/// all of its response, and what it does afterwards (`close()`, `atexit`) must not suffer from
/// that; the deadline of the request holds for `close()`, too.
#[derive(Clone, Debug)]
pub(crate) struct Interruptible(Arc<Request>);

#[derive(Debug)]
struct Request {
    limit: Option<Limit>,
    /// The thread that serves the request.
    thread: ThreadId,
    state: Mutex<State>,
}

/// The clock by which a request is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// That of [`wire::running_clock`] in this process.
    Running,
    /// The monotonic clock. The supervisor's clock is behind it, and ahead of this process's where
    /// only this process was stopped.
    Monotonic,
}

/// By when a request has to be over.
#[derive(Debug)]
struct Limit {
    /// By the clock of [`wire::running_clock`].
    deadline: u64,
    /// The same by the monotonic clock.
    monotonic_deadline: u64,
    /// Python's name of the thread; nothing for the main thread, which is interrupted by signal
    /// handlers.
    python_thread: Option<c_long>,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    awaited: Option<Awaited>,
    /// When the supervisor has had the request interrupted, if that was before the deadline of
    /// [`Clock::Running`].
    interrupted_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request may be interrupted.
    Open,
    /// The response has ended, and the application has not: only the deadline interrupts it.
    Answered,
    /// The request was interrupted, and the application may not have noticed yet.
    Interrupted,
    /// The request may not be interrupted any more.
    Over,
}

impl State {
    /// May the deadline interrupt the request?
    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Answered)
    }
}

/// What a request waited for when the wait reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// More of the request body.
    Body,
    /// That the client reads the response.
    Reader,
    /// More of the request body, for as long as one wait may take.
    NextPiece,
    /// That the client reads more of the response, for as long as one wait may take.
    NextRead,
}

impl Interruptible {
    /// A request without a deadline.
    pub(crate) fn yes() -> Self {
        Self::new(None)
    }

    /// A request that this thread serves, and that has to be over at `deadline`, by the clock of
    /// [`wire::running_clock`]. `python_thread` is Python's name of this thread, unless it is the
    /// main thread.
    pub(crate) fn until(deadline: u64, python_thread: Option<c_long>) -> Self {
        let stopped = clock::recently().saturating_sub(recently());
        let monotonic_deadline = deadline.saturating_add(stopped);
        Self::new(Some(Limit { deadline, monotonic_deadline, python_thread }))
    }

    fn new(limit: Option<Limit>) -> Self {
        let state =
            Mutex::new(State { stage: Stage::Open, awaited: None, interrupted_at: u64::MAX });
        Self(Arc::new(Request { limit, thread: thread::current().id(), state }))
    }

    /// May the request be interrupted?
    pub(crate) fn get(&self) -> bool {
        self.state().stage == Stage::Open
    }

    /// What the request waited for when it reached its deadline, if it waited for its client.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.state().awaited
    }

    /// How long the deadline is away, while the request may be interrupted.
    pub(crate) fn left(&self) -> Option<Duration> {
        let limit = self.0.limit.as_ref()?;
        self.state()
            .is_running()
            .then(|| Duration::from_millis(limit.deadline.saturating_sub(now())))
    }

    /// How long a wait for the client may last from now on; without an end if there is no deadline.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let deadline = self.0.limit.as_ref()?.deadline;
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

    /// Interrupts the request if it is late by `clock`. Tells the caller, a signal handler in the
    /// thread of the request, whether to raise the exception.
    pub(crate) fn interrupt_here(&self, clock: Clock) -> bool {
        self.interrupt_late(&mut self.state(), clock)
    }

    /// Interrupts the request, which another thread than the main one serves, if it is late by
    /// `clock`. Tells whether it is.
    pub(crate) fn interrupt_thread(&self, py: Python<'_>, clock: Clock) -> bool {
        let exception = py.get_type::<Interrupted>();
        let mut state = self.state();
        self.python_thread().is_some_and(|thread| {
            let is_late = self.interrupt_late(&mut state, clock);
            if is_late {
                set_exception(py, thread, Some(&exception));
            }
            is_late
        })
    }

    /// The response has ended. From now on only the deadline interrupts the request. An exception
    /// that its thread has not seen is taken back.
    pub(crate) fn answered(&self, py: Python<'_>) {
        let mut state = self.state();
        self.take_back(py, &state);
        if state.is_running() {
            state.stage = Stage::Answered;
        }
    }

    /// Interrupts the request, which the calling signal handler's thread serves, since its time is
    /// over. Tells the caller whether to raise the exception.
    pub(crate) fn time_out(&self) -> bool {
        let mut state = self.state();
        let is_running = state.is_running();
        if is_running {
            state.stage = Stage::Interrupted;
        }
        is_running
    }

    /// From now on the request may not be interrupted. An exception that its thread has not seen is
    /// taken back. Could it be interrupted until now?
    pub(crate) fn end(&self, py: Python<'_>) -> bool {
        let mut state = self.state();
        self.take_back(py, &state);
        let was_running = state.is_running();
        state.stage = Stage::Over;
        was_running
    }

    /// From now on the deadline interrupts the request again.
    pub(crate) fn resume(&self) {
        self.state().stage = Stage::Answered;
    }

    /// A wait for the client has reached the deadline of the request, or its own limit. Gives the
    /// exception that says so.
    pub(crate) fn expire(&self, py: Python<'_>, awaited: Awaited) -> PyErr {
        let mut state = self.state();
        // Other threads of the application may read the body, and only the request's own can be
        // interrupted.
        let is_ours = self.0.thread == thread::current().id();
        let is_late = self
            .0
            .limit
            .as_ref()
            .is_some_and(|limit| now() >= limit.deadline.min(state.interrupted_at));
        if is_ours && !is_late {
            // The request may still be interrupted at its deadline.
            let piece =
                if awaited == Awaited::Body { Awaited::NextPiece } else { Awaited::NextRead };
            state.awaited.get_or_insert(piece);
        } else if is_ours {
            self.take_back(py, &state);
            if state.is_running() {
                state.stage = Stage::Interrupted;
            }
            state.awaited.get_or_insert(awaited);
        }
        Interrupted::new_err("timeout")
    }

    /// Runs the signal handlers that are due after a wait for the client. If one of them ends the
    /// request at its deadline, that was what the request waited for.
    ///
    /// # Errors
    /// What a handler raises.
    pub(crate) fn heed_signals(&self, py: Python<'_>, awaited: Awaited) -> PyResult<()> {
        py.check_signals().inspect_err(|error| {
            if is_timeout(py, error) {
                self.state().awaited.get_or_insert(awaited);
            }
        })
    }

    fn take_back(&self, py: Python<'_>, state: &State) {
        if let Some(thread) = self.python_thread()
            && state.stage == Stage::Interrupted
        {
            set_exception(py, thread, None);
        }
    }

    fn interrupt_late(&self, state: &mut State, clock: Clock) -> bool {
        let is_late = state.is_running()
            && self.0.limit.as_ref().is_some_and(|limit| match clock {
                Clock::Running => now() >= limit.deadline,
                Clock::Monotonic => clock::now() >= limit.monotonic_deadline,
            });
        if is_late {
            state.stage = Stage::Interrupted;
            state.interrupted_at = now();
        }
        is_late
    }

    fn python_thread(&self) -> Option<c_long> {
        self.0.limit.as_ref()?.python_thread
    }

    /// No code of Python's runs under this lock, so that a thread with the interpreter gets the
    /// lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has `exception` raised in a thread, or takes back one that was not raised yet.
fn set_exception(_py: Python<'_>, thread: c_long, exception: Option<&Bound<'_, PyAny>>) {
    let exception = exception.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: this thread is attached, which the token shows; the exception is a live class, of
    // which the call takes its own reference, or null. A thread that has ended is not found, which
    // the result says and nobody needs.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread, exception) };
}
