//! Interrupts requests that are overdue in other threads than the main one, however busy that is.
//!
//! Python runs signal handlers in the main thread alone, which may be in C code of the application,
//! or may wait for a client. So where several threads serve requests that have a deadline, one more
//! keeps the time. It sleeps until the first deadline, and needs the interpreter only where a
//! request is late.

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
        threads::{
            Stack, {self},
        },
    },
    wsgi::Clock,
};

/// Least time from one look to the next.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// A thread that keeps the time, once it was started.
pub(crate) struct DeadlineThread {
    shared: Arc<DeadlineState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct DeadlineState {
    watched: Arc<WorkerStatus>,
    /// The thread is to end.
    over: Mutex<bool>,
    bell: Condvar,
}

impl DeadlineThread {
    /// For a worker with so many threads; nothing if it needs none.
    pub(crate) fn new(watched: &Arc<WorkerStatus>, threads: u32) -> Option<Self> {
        let is_needed = watched.has_timeout() && threads > 1;
        is_needed.then(|| {
            let shared = DeadlineState {
                watched: watched.clone(),
                over: Mutex::new(false),
                bell: Condvar::new(),
            };
            Self { shared: Arc::new(shared), thread: Mutex::new(None) }
        })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(crate) fn start(&self, stack: Stack) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = fork::without_signals(|| {
            threads::start("wsgate-deadline", stack, move || shared.interrupt_late_requests())
        })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the thread, and waits until it needs the interpreter no more.
    pub(crate) fn end(&self, py: Python<'_>) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| {
            *self.shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.shared.bell.notify_all();
            thread.into_iter().for_each(|thread| drop(thread.join()));
        });
    }
}

impl DeadlineState {
    fn interrupt_late_requests(&self) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            let pause = self.watched.until_next_deadline().max(LEAST_PAUSE);
            (over, _) = running_clock::wait(Some(pause), |patience| {
                let patience = patience.unwrap_or(LEAST_PAUSE);
                self.bell.wait_timeout(over, patience).unwrap_or_else(PoisonError::into_inner)
            });
            if *over {
                break;
            }
            // Who ends this thread may have the interpreter.
            drop(over);
            if self.watched.has_late_follower() {
                Python::attach(|py| self.watched.interrupt_followers(py, Clock::Running));
            }
            over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}
