//! Interrupts overdue requests of other threads than the main thread, however busy that is.
//!
//! Python runs signal handlers in the main thread alone, which may be in C code of the application
//! or wait for a client. So where several threads serve requests that have a deadline, there is one
//! more thread. It sleeps until the next deadline, and needs the interpreter only if a request is
//! late.

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

/// Least time between two checks.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// A thread that interrupts requests, once it was started.
pub(crate) struct DeadlineThread {
    state: Arc<DeadlineState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct DeadlineState {
    status: Arc<WorkerStatus>,
    /// The thread is to end.
    is_over: Mutex<bool>,
    wakeup: Condvar,
}

impl DeadlineThread {
    /// For a worker with so many threads; nothing if the worker needs none.
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
    /// If the system has no thread left.
    pub(crate) fn start(&self, stack: StackSize) -> io::Result<()> {
        let state = self.state.clone();
        let thread = fork::without_signals(|| {
            threads::start("wsgate-deadline", stack, move || state.interrupt_late_requests())
        })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the thread, and waits until it does not need the interpreter any more.
    pub(crate) fn end(&self, py: Python<'_>) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| {
            *self.state.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.state.wakeup.notify_all();
            // A thread that has panicked has ended, too.
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
            // The thread that ends this one may have the interpreter.
            drop(is_over);
            if self.status.has_late_request() {
                Python::attach(|py| self.status.interrupt_other_threads(py, Clock::Running));
            }
            is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}
