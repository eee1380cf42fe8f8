//! What the supervisor sees of a worker's threads, and how it ends a request that takes too long.
//!
//! Each thread writes its line of the scoreboard. When the supervisor finds a request overdue it
//! sends SIGUSR2, and the main thread, where Python runs signal handlers, raises the exception in
//! itself. Requests of other threads are the [`DeadlineThread`]'s to interrupt.
//!
//! [`DeadlineThread`]: crate::pool::deadline_thread::DeadlineThread

use std::{
    ffi::c_long,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::{Signal, getpid};
use wire::{
    running_clock::recently,
    scoreboard::{Scoreboard, ScoreboardLine},
};

use crate::{
    process::forks::{
        Descriptor, {self},
    },
    wsgi::{Clock, Interrupted, Interruptible},
};

/// What the supervisor sees, and what makes it look.
pub(crate) struct StatusDescriptors {
    pub(crate) scoreboard: Descriptor,
    /// Without it there is no supervisor.
    pub(crate) bell: Option<Descriptor>,
}

/// The threads of this worker.
pub(crate) struct WorkerStatus {
    scoreboard: Scoreboard,
    /// This process.
    pid: i32,
    bell: Option<Descriptor>,
    first_line: usize,
    timeout_milliseconds: u64,
    /// The request that each thread serves, if requests have a deadline.
    serving: Vec<Mutex<Option<Interruptible>>>,
}

impl WorkerStatus {
    /// The threads of the worker with the slot `slot`, none of which serves yet.
    pub(crate) fn new(
        status: StatusDescriptors,
        slot: u32,
        threads: u32,
        timeout_seconds: u64,
    ) -> std::io::Result<Arc<Self>> {
        let threads = threads.max(1);
        let watched = Self {
            scoreboard: Scoreboard::attach(status.scoreboard.into_owned())?,
            pid: getpid().as_raw_nonzero().get(),
            bell: status.bell,
            first_line: usize::try_from(u64::from(slot) * u64::from(threads))
                .map_err(std::io::Error::other)?,
            timeout_milliseconds: timeout_seconds.saturating_mul(1000),
            serving: (0..threads).map(|_| Mutex::new(None)).collect(),
        };
        for thread in 0..threads {
            if let Some(line) = watched.any_line(thread) {
                line.take(watched.pid, thread);
            }
        }
        // The supervisor has been waiting for this worker to be there.
        watched.ring();
        Ok(Arc::new(watched))
    }

    /// Tells the supervisor that no thread of any worker is idle, if it wants to know.
    fn ring_if_crowded(&self) {
        if self.bell.is_some() && self.scoreboard.is_crowded() {
            self.ring();
        }
    }

    /// Makes the supervisor look at the scoreboard.
    fn ring(&self) {
        if let Some(bell) = &self.bell {
            // One that is full has rung already.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// Has the supervisor replace this worker, which has so many bytes of memory.
    pub(crate) fn tell_memory(&self, thread: u32, resident: u64) {
        if let Some(line) = self.line(thread) {
            line.measured(resident);
        }
        self.ring();
    }

    /// The thread takes no connection any more.
    pub(crate) fn leave(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.leave();
        }
        // From now on it is looked whether this process ends.
        self.ring();
    }

    /// Have requests a deadline?
    pub(crate) fn has_timeout(&self) -> bool {
        self.timeout_milliseconds > 0
    }

    /// What stands for a request that this thread begins to serve now. `python_thread` is Python's
    /// name of this thread, unless it is the main thread.
    pub(crate) fn interruptible(&self, python_thread: Option<c_long>) -> Interruptible {
        match self.timeout_milliseconds {
            0 => Interruptible::yes(),
            timeout => Interruptible::until(recently().saturating_add(timeout), python_thread),
        }
    }

    /// The thread with the number `thread` begins to serve `request`.
    pub(crate) fn begin(&self, thread: u32, request: &str, interruptible: &Interruptible) {
        // Before the scoreboard knows of it: what is overdue for the supervisor, which interrupts
        // once, must be so here.
        if self.has_timeout() {
            *self.serving(thread) = Some(interruptible.clone());
        }
        if let Some(line) = self.line(thread) {
            line.begin(request);
        }
        self.ring_if_crowded();
    }

    /// It has served it.
    pub(crate) fn end(&self, py: Python<'_>, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.end();
        }
        if self.has_timeout() {
            let served = self.serving(thread).take();
            served.iter().for_each(|request| request.end(py));
        }
    }

    /// The thread with the number `thread` cannot be started.
    pub(crate) fn miss(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.miss();
        }
        self.ring_if_crowded();
    }

    /// The thread with the number `thread` can be started after all.
    pub(crate) fn find(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.take(self.pid, thread);
        }
        self.ring();
    }

    /// The web server of a request went away before the response was whole.
    pub(crate) fn count_abandoned(&self) {
        self.scoreboard.count_abandoned();
    }

    /// Makes SIGUSR2 interrupt what is overdue, and SIGUSR1 write the stacks of all threads to the
    /// log at once, whoever holds the interpreter. A function that the application has for SIGUSR2
    /// is called if nothing is overdue.
    pub(crate) fn listen(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let watched = self.clone();
        let theirs =
            py.import("_signal")?.call_method1("getsignal", (Signal::USR2.as_raw(),))?.unbind();
        let interrupt = PyCFunction::new_closure(
            py,
            Some(c"interrupt"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                let py = arguments.py();
                let is_ours = watched.interrupt_overdue(py)?;
                let theirs = theirs.bind(py);
                if is_ours || !theirs.is_callable() {
                    Ok(())
                } else {
                    theirs.call1(arguments).map(drop)
                }
            },
        )?;
        forks::handle(py, Signal::USR2.as_raw(), &interrupt)?;
        forks::report_stacks(py, Signal::USR1.as_raw())
    }

    /// Runs in the main thread, which is the first. Was anything overdue?
    fn interrupt_overdue(&self, py: Python<'_>) -> PyResult<bool> {
        let has_late_follower = self.has_late_follower();
        // Where nothing is late by the clock of this process, only this process was stopped.
        for clock in [Clock::Running, Clock::Monotonic] {
            let has_interrupted = self.interrupt_followers(py, clock);
            let request = self.serving(0).clone();
            if request.is_some_and(|request| request.interrupt_here(clock)) {
                return Err(Interrupted::new_err("timeout"));
            }
            if has_interrupted || has_late_follower {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Interrupts what is overdue by `clock` in other threads than the main one. Was anything?
    pub(crate) fn interrupt_followers(&self, py: Python<'_>, clock: Clock) -> bool {
        self.followers().filter(|request| request.interrupt_thread(py, clock)).count() > 0
    }

    /// Is a request of another thread than the main one overdue, so that
    /// [`WorkerStatus::interrupt_followers`] is to be called?
    pub(crate) fn has_late_follower(&self) -> bool {
        self.followers().filter_map(|request| request.left()).any(|left| left.is_zero())
    }

    /// How long a request may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.has_timeout().then(|| Duration::from_millis(self.timeout_milliseconds))
    }

    /// What the supervisor looks at, where there is one.
    pub(crate) fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// How long until a request is overdue that the [`DeadlineThread`] has to interrupt, of those that
    /// have begun by now or begin later.
    ///
    /// [`DeadlineThread`]: crate::pool::deadline_thread::DeadlineThread
    pub(crate) fn until_next_deadline(&self) -> Duration {
        let left = self.followers().filter_map(|request| request.left()).min();
        left.unwrap_or(Duration::from_millis(self.timeout_milliseconds))
    }

    /// Is there no supervisor?
    pub(crate) fn is_alone(&self) -> bool {
        self.bell.is_none()
    }

    /// The requests of other threads than the main one. None of their locks is held while they are
    /// looked at.
    fn followers(&self) -> impl Iterator<Item = Interruptible> {
        self.serving
            .iter()
            .skip(1)
            .filter_map(|cell| cell.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The line of a thread, unless it is another worker's by now.
    fn line(&self, thread: u32) -> Option<&ScoreboardLine> {
        self.any_line(thread).filter(|line| line.is_of(self.pid))
    }

    fn any_line(&self, thread: u32) -> Option<&ScoreboardLine> {
        self.scoreboard.line(self.first_line + usize::try_from(thread).ok()?)
    }

    fn serving(&self, thread: u32) -> MutexGuard<'_, Option<Interruptible>> {
        let number = usize::try_from(thread).unwrap_or(0).min(self.serving.len() - 1);
        self.serving[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
