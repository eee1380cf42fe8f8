//! The threads of a worker beside its main thread. If the system cannot start a thread, the worker
//! tries again later.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use pyo3::prelude::*;
use wire::launch::Service;

use crate::{
    log::Log,
    pool::{deadline_thread::DeadlineThread, watchdog::Watchdog, worker_status::WorkerStatus},
    process::threads::{self, PendingThreads, StackSize},
    stdlib,
};

/// The task of a thread.
enum ThreadRole {
    /// Serves requests; the thread has this number.
    Serve(u32),
    /// Interrupts requests at their deadline.
    Deadlines,
    /// Ends requests that take too long, in a worker without a supervisor.
    Watchdog,
}

/// The threads of a worker beside its main thread.
pub(super) struct WorkerThreads {
    status: Arc<WorkerStatus>,
    missing: PendingThreads<ThreadRole>,
    /// Is a thread missing? This check is cheap enough for each request.
    are_missing: AtomicBool,
    serving: Mutex<Vec<JoinHandle<()>>>,
    deadline_thread: Option<DeadlineThread>,
    watchdog: Option<Watchdog>,
}

impl WorkerThreads {
    /// The threads for a worker of `service`, not started yet.
    pub(super) fn new(status: &Arc<WorkerStatus>, service: &Service) -> Self {
        let threads = service.threads;
        let deadline_thread = DeadlineThread::new(status, threads);
        let slow = Some(service.slow_seconds).filter(|&seconds| seconds > 0);
        let watchdog = Watchdog::new(status, slow.map(Duration::from_secs));
        let missing: Vec<_> = (1..threads)
            .map(ThreadRole::Serve)
            .chain(deadline_thread.iter().map(|_| ThreadRole::Deadlines))
            .chain(watchdog.iter().map(|_| ThreadRole::Watchdog))
            .collect();
        Self {
            status: status.clone(),
            are_missing: AtomicBool::new(!missing.is_empty()),
            missing: PendingThreads::new(missing),
            serving: Mutex::default(),
            deadline_thread,
            watchdog,
        }
    }

    /// Must threads be started?
    pub(super) fn are_missing(&self) -> bool {
        self.are_missing.load(Ordering::Relaxed)
    }

    /// Time until the next attempt to start missing threads.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.are_missing().then(|| self.missing.left())
    }

    /// Starts the threads that are missing, if it is time. `serve` serves requests in a thread with
    /// the given number.
    pub(super) fn start_missing<F>(&self, py: Python<'_>, serve: F)
    where
        F: Fn(Python<'_>, u32) + Clone + Send + 'static,
    {
        if !self.are_missing() {
            return;
        }
        let stack = StackSize::of_python(py);
        let start = |role: &ThreadRole| match role {
            ThreadRole::Serve(thread) => self.start_serving(*thread, stack, serve.clone()),
            ThreadRole::Deadlines => {
                self.deadline_thread.iter().try_for_each(|thread| thread.start(stack))
            }
            ThreadRole::Watchdog => self.watchdog.iter().try_for_each(Watchdog::start),
        };
        let log = Log::without_request("worker");
        let left = self.missing.try_again(start, |message| log.write(message));
        if let Some(left) = left {
            self.are_missing.store(left > 0, Ordering::Relaxed);
        }
    }

    fn start_serving<F>(&self, thread: u32, stack: StackSize, serve: F) -> io::Result<()>
    where
        F: Fn(Python<'_>, u32) + Clone + Send + 'static,
    {
        let status = self.status.clone();
        let run = move || {
            status.mark_started(thread);
            Python::attach(move |py| {
                if let Err(error) = make_non_daemon(py) {
                    error.print(py);
                }
                serve(py, thread);
                // Dropped while this thread is attached, so that no Python object of the engine is
                // left when the interpreter is finalised.
                drop(serve);
            });
        };
        match threads::start("wsgate-serve", stack, run) {
            Ok(started) => {
                self.serving.lock().unwrap_or_else(PoisonError::into_inner).push(started);
                Ok(())
            }
            Err(error) => {
                self.status.mark_missing(thread);
                Err(error)
            }
        }
    }

    /// Waits until all threads have ended; the main thread has asked them to end.
    pub(super) fn end(&self, py: Python<'_>) {
        let next = || self.serving.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The threads need the interpreter to end. A thread may be starting another one.
        py.detach(|| {
            while let Some(thread) = next() {
                // A panic has ended the thread, too.
                drop(thread.join());
            }
        });
        self.deadline_thread.iter().for_each(|thread| thread.end(py));
        self.watchdog.iter().for_each(Watchdog::end);
    }
}

/// Makes this thread a non-daemon thread for Python, which treats foreign threads as daemon
/// threads. Threads that a request starts inherit this flag, and Python waits only for non-daemon
/// threads when the process exits.
fn make_non_daemon(py: Python<'_>) -> PyResult<()> {
    let Ok(threading) = stdlib::import(py, "threading") else {
        // The application has replaced the `threading` module by one without daemon threads.
        return Ok(());
    };
    threading.call_method0("current_thread")?.setattr("_daemonic", false)
}
