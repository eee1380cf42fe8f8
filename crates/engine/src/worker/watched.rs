//! What the supervisor sees of a worker's threads, and how it ends a request that takes too long.
//!
//! Each thread writes its line of the scoreboard. When the supervisor finds a request overdue it sends SIGUSR2; the main thread, where
//! Python runs signal handlers, raises the exception in itself or has it raised in the thread that is late.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use link::scoreboard::{Line, Scoreboard, now, recently};
use pyo3::{
    ffi,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::{Signal, getpid};

use crate::wsgi::{Interrupted, Interruptible};

/// What the supervisor sees, and what makes it look.
pub(super) struct Board {
    pub(super) scoreboard: OwnedFd,
    /// Without it there is no supervisor.
    pub(super) bell: Option<OwnedFd>,
}

/// The threads of this worker.
pub(super) struct Watched {
    scoreboard: Scoreboard,
    /// This process.
    pid: i32,
    bell: Option<OwnedFd>,
    first_line: usize,
    timeout_milliseconds: u64,
    serving: Vec<Mutex<Option<Serving>>>,
}

/// A request that a thread serves.
struct Serving {
    /// Python's name of the thread.
    thread: std::ffi::c_long,
    since: u64,
    interruptible: Interruptible,
}

impl Watched {
    /// The threads of the worker with the slot `slot`, none of which serves yet.
    pub(super) fn new(board: Board, slot: u32, threads: u32, timeout_seconds: u64) -> std::io::Result<Arc<Self>> {
        let threads = threads.max(1);
        let watched = Self {
            scoreboard: Scoreboard::attach(board.scoreboard)?,
            pid: getpid().as_raw_nonzero().get(),
            bell: board.bell,
            first_line: usize::try_from(u64::from(slot) * u64::from(threads)).map_err(std::io::Error::other)?,
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
    pub(super) fn tell_memory(&self, thread: u32, resident: u64) {
        if let Some(line) = self.line(thread) {
            line.measured(resident);
        }
        self.ring();
    }

    /// The thread takes no connection any more.
    pub(super) fn leave(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.leave();
        }
        // From now on it is looked whether this process ends.
        self.ring();
    }

    /// The thread with the number `thread` begins to serve `request`.
    pub(super) fn begin(&self, py: Python<'_>, thread: u32, request: &str, interruptible: Interruptible) {
        // Before the scoreboard knows of it: what is overdue for the supervisor, which interrupts once, must be so here.
        if self.timeout_milliseconds > 0 {
            let ident = py.import("_thread").and_then(|module| module.call_method0("get_ident")?.extract());
            // A thread without a name is not interrupted; the supervisor ends the process in the end.
            *self.serving(thread) = ident.ok().map(|ident| Serving { thread: ident, since: recently(), interruptible });
        }
        if let Some(line) = self.line(thread) {
            line.begin(request);
        }
        self.ring_if_crowded();
    }

    /// It has served it.
    pub(super) fn end(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.end();
        }
        if self.timeout_milliseconds > 0 {
            *self.serving(thread) = None;
        }
    }

    /// The web server of a request went away before the reply was whole.
    pub(super) fn count_abandoned(&self) {
        self.scoreboard.count_abandoned();
    }

    /// Makes SIGUSR2 interrupt what is overdue, and SIGUSR1 write the stacks of all threads to the log at once, whoever holds the
    /// interpreter.
    pub(super) fn listen(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let watched = self.clone();
        let interrupt = PyCFunction::new_closure(
            py,
            Some(c"interrupt"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                watched.interrupt_overdue(arguments.py())
            },
        )?;
        py.import("_signal")?.call_method1("signal", (Signal::USR2.as_raw(), interrupt))?;
        py.import("faulthandler")?.call_method1("register", (Signal::USR1.as_raw(), 2, true, false))?;
        Ok(())
    }

    /// Runs in the main thread, which is the first.
    fn interrupt_overdue(&self, py: Python<'_>) -> PyResult<()> {
        let mut ours = false;
        for (number, cell) in self.serving.iter().enumerate() {
            let late = {
                let mut serving = cell.lock().unwrap_or_else(PoisonError::into_inner);
                let is_late = serving.as_ref().is_some_and(|serving| {
                    serving.interruptible.get() && now().saturating_sub(serving.since) >= self.timeout_milliseconds
                });
                // Taken out, so that it is interrupted once.
                if is_late { serving.take() } else { None }
            };
            match late {
                Some(_) if number == 0 => ours = true,
                Some(serving) => {
                    let exception = py.get_type::<Interrupted>();
                    // SAFETY: this thread is attached; the exception is a live class, of which the call takes its own reference. A
                    // thread that has ended meanwhile is not found, which the result says and nobody needs.
                    unsafe { ffi::PyThreadState_SetAsyncExc(serving.thread, exception.as_ptr()) };
                }
                None => {}
            }
        }
        if ours { Err(Interrupted::new_err("timeout")) } else { Ok(()) }
    }

    /// The line of a thread, unless it is another worker's by now.
    fn line(&self, thread: u32) -> Option<&Line> {
        self.any_line(thread).filter(|line| line.is_of(self.pid))
    }

    fn any_line(&self, thread: u32) -> Option<&Line> {
        self.scoreboard.line(self.first_line + usize::try_from(thread).ok()?)
    }

    fn serving(&self, thread: u32) -> MutexGuard<'_, Option<Serving>> {
        let number = usize::try_from(thread).unwrap_or(0).min(self.serving.len() - 1);
        self.serving[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
