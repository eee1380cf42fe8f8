//! The threads of a worker beside its main thread: started when the worker begins, and tried again
//! where the system has no thread left for it.

use std::{
    ffi::c_long,
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
    pool::{
        deadline_thread::DeadlineThread, serving::Worker, watchdog::Watchdog,
        worker_status::WorkerStatus,
    },
    process::threads::{
        Missing, Stack, {self},
    },
    stdlib,
};

/// What a worker starts a thread for.
enum ThreadRole {
    /// Serves requests, under this number.
    Follower(u32),
    /// Interrupts requests.
    DeadlineThread,
    /// Ends what takes too long, where there is no supervisor.
    Watchdog,
}

/// The threads of a worker beside its main thread.
pub(crate) struct WorkerThreads {
    missing: Missing<ThreadRole>,
    /// Some are missing. To be asked at every request.
    are_missing: AtomicBool,
    followers: Mutex<Vec<JoinHandle<()>>>,
    deadline_thread: Option<DeadlineThread>,
    watchdog: Option<Watchdog>,
}

impl WorkerThreads {
    /// For a worker of `service`. None is started yet.
    pub(crate) fn new(watched: &Arc<WorkerStatus>, service: &Service) -> Self {
        let threads = service.threads;
        let deadline_thread = DeadlineThread::new(watched, threads);
        let slow =
            Some(service.slow_seconds).filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let watchdog = Watchdog::new(watched, slow);
        let followers = (1..threads).map(ThreadRole::Follower);
        let missing: Vec<_> = followers
            .chain(deadline_thread.iter().map(|_| ThreadRole::DeadlineThread))
            .chain(watchdog.iter().map(|_| ThreadRole::Watchdog))
            .collect();
        Self {
            are_missing: AtomicBool::new(!missing.is_empty()),
            missing: Missing::new(missing),
            followers: Mutex::default(),
            deadline_thread,
            watchdog,
        }
    }

    /// Are there threads to be started?
    pub(crate) fn are_missing(&self) -> bool {
        self.are_missing.load(Ordering::Relaxed)
    }

    /// How long until threads that could not be started are tried again.
    pub(crate) fn next_try(&self) -> Option<Duration> {
        self.are_missing().then(|| self.missing.left())
    }
}

impl Worker {
    /// Starts the threads that are missing, if it is time.
    pub(crate) fn start_missing(self: &Arc<Self>, application: &Bound<'_, PyAny>) {
        if !self.helpers.are_missing() || self.is_draining() {
            return;
        }
        let stack = Stack::of_python(application.py());
        let left = self.helpers.missing.try_again(|helper| match helper {
            ThreadRole::Follower(thread) => self.start_follower(application, *thread, stack),
            ThreadRole::DeadlineThread => self
                .helpers
                .deadline_thread
                .iter()
                .try_for_each(|deadline_thread| deadline_thread.start(stack)),
            ThreadRole::Watchdog => self.helpers.watchdog.iter().try_for_each(Watchdog::start),
        });
        if let Some(left) = left {
            self.helpers.are_missing.store(left > 0, Ordering::Relaxed);
        }
    }

    fn start_follower(
        self: &Arc<Self>,
        application: &Bound<'_, PyAny>,
        thread: u32,
        stack: Stack,
    ) -> io::Result<()> {
        let (worker, application) = (self.clone(), Arc::new(application.clone().unbind()));
        let serve = move || {
            worker.watched.find(thread);
            Python::attach(move |py| {
                if let Err(error) = be_no_daemon(py) {
                    error.print(py);
                }
                worker.run_thread(application.bind(py), thread);
                // While this thread is attached: nothing of ours is left when the process finalises
                // what there is.
                drop(application);
            });
        };
        match threads::start("wsgate-follower", stack, serve) {
            Ok(follower) => {
                self.helpers
                    .followers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(follower);
                Ok(())
            }
            Err(error) => {
                self.watched.miss(thread);
                Err(error)
            }
        }
    }

    /// ConnectionLimits until all threads have come to their ends, which the main thread's has made them do.
    pub(crate) fn end_threads(&self, py: Python<'_>) {
        let next = || self.helpers.followers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // They need the interpreter for it. One of them may be starting another.
        py.detach(|| {
            while let Some(follower) = next() {
                drop(follower.join());
            }
        });
        self.helpers.deadline_thread.iter().for_each(|deadline_thread| deadline_thread.end(py));
        self.helpers.watchdog.iter().for_each(Watchdog::end);
        self.queue.iter().for_each(|queue| queue.end());
    }
}

/// Makes this thread one that is no daemon, for Python, which takes threads that it has not started
/// for daemons. Threads that a request starts take after it, and only those that are no daemons are
/// waited for when the process exits.
fn be_no_daemon(py: Python<'_>) -> PyResult<()> {
    let Ok(threading) = stdlib::import(py, "threading") else {
        // The application's `threading` is a module of its own, which knows no daemons.
        return Ok(());
    };
    threading.call_method0("current_thread")?.setattr("_daemonic", false)
}

/// Python's name of this thread. Without one its requests are not interrupted, and the supervisor
/// ends the process instead.
pub(crate) fn python_thread(py: Python<'_>) -> Option<c_long> {
    py.import("_thread").and_then(|module| module.call_method0("get_ident")?.extract()).ok()
}
