//! Interrupts overdue requests of all threads but the main thread, even if the main thread is busy.
//!
//! Python runs signal handlers only in the main thread, which may run C code of the application or
//! wait for a client. So a worker with several threads and a request timeout has one more thread.
//! This thread sleeps until the next deadline, and needs the interpreter only if a request is late.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use pyo3::prelude::*;
use wire::running_clock;

use crate::{
    pool::worker_status::WorkerStatus,
    process::{
        fork,
        threads::{self, StackSize},
    },
    wsgi::Clock,
};

/// Minimum time between two checks.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// The thread that interrupts requests, and its state.
pub(crate) struct DeadlineThread {
    state: Arc<DeadlineState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct DeadlineState {
    status: Arc<WorkerStatus>,
    /// The thread was asked to end.
    is_over: Mutex<bool>,
    wakeup: Condvar,
}

impl DeadlineThread {
    /// The state for a worker with this number of threads; `None` if the worker does not need the
    /// thread.
    pub(crate) fn new(status: &Arc<WorkerStatus>, threads: u32) -> Option<Self> {
        let is_needed = status.has_timeout() && threads > 1;
        is_needed.then(|| {
            let (is_over, wakeup) = (Mutex::new(false), Condvar::new());
            let state = DeadlineState { status: status.clone(), is_over, wakeup };
            Self { state: Arc::new(state), thread: Mutex::new(None) }
        })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the system cannot start another thread.
    pub(crate) fn start(&self, stack: StackSize) -> io::Result<()> {
        let state = self.state.clone();
        let thread = fork::without_signals(|| {
            threads::start("wsgate-deadline", stack, move || state.interrupt_late_requests())
        })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the thread, and waits until the thread no longer needs the interpreter.
    pub(crate) fn end(&self, py: Python<'_>) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| {
            *self.state.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.state.wakeup.notify_all();
            // A panic has ended the thread, too.
            thread.into_iter().for_each(|thread| drop(thread.join()));
        });
    }
}

impl DeadlineState {
    fn interrupt_late_requests(&self) {
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_over {
            let pause = self.status.until_next_deadline().max(MIN_PAUSE);
            (is_over, _) = running_clock::wait(Some(pause), |timeout| {
                let timeout = timeout.unwrap_or(MIN_PAUSE);
                self.wakeup.wait_timeout(is_over, timeout).unwrap_or_else(PoisonError::into_inner)
            });
            if *is_over {
                break;
            }
            // The thread that joins this one may hold the interpreter.
            drop(is_over);
            if self.status.has_late_request() {
                Python::attach(|py| self.status.interrupt_other_threads(py, Clock::Running));
            }
            is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}
