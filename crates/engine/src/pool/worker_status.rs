//! Writes the status of a worker's threads for the supervisor, and interrupts overdue requests.
//!
//! Each thread writes its line of the scoreboard. The lines of a worker are its block. If a request
//! is overdue, the supervisor sends SIGUSR2. Python runs the signal handler in the main thread,
//! which raises the exception in itself. The [`DeadlineThread`] interrupts requests of other
//! threads.
//!
//! [`DeadlineThread`]: crate::pool::deadline_thread::DeadlineThread

use std::{
    ffi::c_long,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pyo3::{
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use rustix::process::{Signal, getpid};
use wire::{
    clock,
    path_timeouts::{self, PathTimeout, timeout_of},
    scoreboard::{Scoreboard, ScoreboardLine},
};

use crate::{
    process::{
        forks::{self, Descriptor},
        title::WorkerTitle,
    },
    wsgi::{Clock, Enforcer, Interrupted, Interruptible, MoreTime},
};

/// How often a thread looks how many threads are busy: at the first request in this time, and at
/// the end of each longer request. Of requests that overlap, the first to end finds the others
/// busy.
const BUSY_CHECK_MICROSECONDS: u64 = 4096;

/// The scoreboard, and the bell that makes the supervisor read it.
pub(crate) struct StatusDescriptors {
    pub(crate) scoreboard: Descriptor,
    /// Wakes the supervisor. `None` without a supervisor.
    pub(crate) bell: Option<Descriptor>,
}

/// The timeouts of requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTimeouts {
    /// The timeout of a request in seconds; 0 for none.
    pub(crate) seconds: u64,
    /// Other timeouts for some paths.
    pub(crate) by_path: Vec<PathTimeout>,
}

impl RequestTimeouts {
    /// The shortest timeout, if there is any.
    fn shortest(&self) -> Option<Duration> {
        let seconds = path_timeouts::shortest(self.seconds, &self.by_path);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// The timeout of a request for `path` in milliseconds; 0 for none.
    fn milliseconds_of(&self, path: impl FnOnce() -> Vec<u8>) -> u64 {
        let own = (!self.by_path.is_empty()).then(|| timeout_of(&path(), &self.by_path)).flatten();
        own.unwrap_or(self.seconds).saturating_mul(1000)
    }
}

/// The status of a worker's threads.
pub(crate) struct WorkerStatus {
    scoreboard: Scoreboard,
    /// The process ID of this process.
    pid: i32,
    bell: Option<Descriptor>,
    first_line: usize,
    title: WorkerTitle,
    timeouts: RequestTimeouts,
    /// When each thread began its request, in microseconds of the monotonic clock.
    begun: Vec<AtomicU64>,
    /// The request that each thread serves, if requests have a deadline.
    requests: Vec<Mutex<Option<Interruptible>>>,
}

impl WorkerStatus {
    /// The threads of the worker whose lines are in `block`, all of them idle.
    ///
    /// # Errors
    /// If the scoreboard cannot be mapped.
    pub(crate) fn new(
        descriptors: StatusDescriptors,
        block: u32,
        threads: u32,
        timeouts: RequestTimeouts,
    ) -> std::io::Result<Arc<Self>> {
        let threads = threads.max(1);
        let status = Self {
            scoreboard: Scoreboard::attach(descriptors.scoreboard.into_owned())?,
            pid: getpid().as_raw_nonzero().get(),
            bell: descriptors.bell,
            first_line: usize::try_from(u64::from(block) * u64::from(threads))
                .map_err(std::io::Error::other)?,
            title: WorkerTitle::new(block.saturating_add(1)),
            timeouts,
            begun: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            requests: (0..threads).map(|_| Mutex::new(None)).collect(),
        };
        for thread in 0..threads {
            if let Some(line) = status.any_line(thread) {
                line.claim(status.pid, thread);
            }
        }
        // The supervisor waits for the first status of this worker.
        status.wake_supervisor();
        Ok(Arc::new(status))
    }

    /// Wakes the supervisor if no thread of any worker is idle and the supervisor waits for that.
    fn wake_supervisor_if_busy(&self) {
        if self.bell.is_some() && self.scoreboard.needs_wakeup() {
            self.wake_supervisor();
        }
    }

    /// Makes the supervisor read the scoreboard.
    fn wake_supervisor(&self) {
        if let Some(bell) = &self.bell {
            // A full counter wakes the supervisor, too.
            let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
    }

    /// Asks the supervisor to replace this worker, which has this resident memory in bytes.
    pub(crate) fn report_memory(&self, thread: u32, resident: u64) {
        if let Some(line) = self.line(thread) {
            line.set_resident(resident);
        }
        self.wake_supervisor();
    }

    /// Records that the thread accepts no more connections.
    pub(crate) fn mark_stopping(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.leave();
        }
        // From here on, the supervisor checks that this process exits.
        self.wake_supervisor();
    }

    /// Records that the thread cannot be started.
    pub(crate) fn mark_missing(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.mark_missing();
        }
        self.wake_supervisor_if_busy();
    }

    /// Records that the thread was started.
    pub(crate) fn mark_started(&self, thread: u32) {
        if let Some(line) = self.line(thread) {
            line.claim(self.pid, thread);
        }
        self.wake_supervisor();
    }

    /// Do requests have a deadline?
    pub(crate) fn has_timeout(&self) -> bool {
        self.timeouts.shortest().is_some()
    }

    /// The shortest timeout that a request can have.
    pub(crate) fn shortest_timeout(&self) -> Option<Duration> {
        self.timeouts.shortest()
    }

    /// The handle to interrupt the next request of `thread`, which is for `path`. `python_thread`
    /// is Python's name of this thread, unless this is the main thread.
    pub(crate) fn interruptible(
        self: &Arc<Self>,
        thread: u32,
        python_thread: Option<c_long>,
        path: impl FnOnce() -> Vec<u8>,
    ) -> Interruptible {
        match self.timeouts.milliseconds_of(path) {
            0 => Interruptible::without_deadline(),
            timeout => {
                let status = self.clone();
                let supervisor = move |time: MoreTime| {
                    if let Some(line) = status.line(thread) {
                        line.set_timeout(time.from_begin);
                    }
                };
                let enforcer = Enforcer(Box::new(supervisor));
                Interruptible::with_timeout(timeout, python_thread, enforcer)
            }
        }
    }

    /// Records that the thread begins to serve `request`.
    pub(crate) fn begin_request(&self, thread: u32, request: &str, interruptible: &Interruptible) {
        // Set before the scoreboard: the supervisor interrupts only once, so a request that is
        // overdue for the supervisor must be overdue here.
        if self.has_timeout() {
            *self.request(thread) = Some(interruptible.clone());
        }
        if let Some(line) = self.line(thread) {
            line.begin(request);
            if let Some(milliseconds) = interruptible.timeout_milliseconds() {
                line.set_timeout(milliseconds);
            }
        }
        self.title.show_request(request);
        let now = clock::microseconds();
        let earlier = self.begun(thread).swap(now, Ordering::Relaxed);
        if now / BUSY_CHECK_MICROSECONDS != earlier / BUSY_CHECK_MICROSECONDS {
            self.scoreboard.record_busy();
        }
        self.wake_supervisor_if_busy();
    }

    /// Records how long the request of the thread has waited before.
    pub(crate) fn observe_waiting(&self, thread: u32, waited: Duration) {
        self.scoreboard.note_known_waits();
        let is_own = self.line(thread).is_some();
        if let Some(histograms) =
            self.scoreboard.histograms(self.line_number(thread)).filter(|_| is_own)
        {
            histograms.waiting.observe(waited);
        }
    }

    /// Records the status of the response to the thread's request.
    pub(crate) fn record_response(&self, thread: u32, status: Option<u16>) {
        if let (Some(line), Some(status)) = (self.line(thread), status) {
            line.set_response(status);
        }
    }

    /// Records that the thread has served its request.
    pub(crate) fn end_request(&self, py: Python<'_>, thread: u32) {
        if let Some(line) = self.line(thread) {
            let begun = self.begun(thread).load(Ordering::Relaxed);
            let time = clock::microseconds().saturating_sub(begun);
            if time >= BUSY_CHECK_MICROSECONDS {
                self.scoreboard.record_busy();
            }
            line.end();
            if let Some(histograms) = self.scoreboard.histograms(self.line_number(thread)) {
                histograms.duration.observe(Duration::from_micros(time));
            }
        }
        self.scoreboard.record_idle();
        if !self.is_busy() {
            self.title.show_idle();
        }
        if self.has_timeout() {
            let served = self.request(thread).take();
            served.iter().for_each(|request| {
                request.end(py);
            });
        }
    }

    /// Does a thread serve a request?
    fn is_busy(&self) -> bool {
        let threads = 0..u32::try_from(self.requests.len()).unwrap_or(u32::MAX);
        threads.filter_map(|thread| self.line(thread)).any(ScoreboardLine::is_busy)
    }

    /// Counts a request whose web server closed the connection before the end of the response.
    pub(crate) fn count_aborted(&self) {
        self.scoreboard.count_aborted();
    }

    /// Installs handlers: SIGUSR2 interrupts overdue requests, and SIGUSR1 writes the stacks of all
    /// threads to the log at once, even if the interpreter is locked. If no request is overdue, the
    /// application's own handler for SIGUSR2 is called.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn install_handlers(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let status = self.clone();
        let of_application =
            py.import("_signal")?.call_method1("getsignal", (Signal::USR2.as_raw(),))?.unbind();
        let interrupt = PyCFunction::new_closure(
            py,
            Some(c"interrupt"),
            None,
            move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
                let py = arguments.py();
                let was_overdue = status.interrupt_overdue(py)?;
                let of_application = of_application.bind(py);
                if was_overdue || !of_application.is_callable() {
                    Ok(())
                } else {
                    of_application.call1(arguments).map(drop)
                }
            },
        )?;
        forks::handle(py, Signal::USR2.as_raw(), &interrupt)?;
        forks::report_stacks(py, Signal::USR1.as_raw())
    }

    /// Interrupts an overdue request of the main thread, which has the number 0. Was a request
    /// overdue?
    fn interrupt_overdue(&self, py: Python<'_>) -> PyResult<bool> {
        let has_late_request = self.has_late_request();
        // If no request is late by the clock of this process, only this process was stopped.
        for clock in [Clock::Running, Clock::Monotonic] {
            let has_interrupted = self.interrupt_other_threads(py, clock);
            let request = self.request(0).clone();
            if request.is_some_and(|request| request.interrupt_if_late(clock)) {
                return Err(Interrupted::new_err("timeout"));
            }
            if has_interrupted || has_late_request {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Interrupts requests that are overdue by `clock`, in all threads but the main thread. Was a
    /// request overdue?
    pub(crate) fn interrupt_other_threads(&self, py: Python<'_>, clock: Clock) -> bool {
        let requests = self.requests_of_other_threads();
        requests.filter(|request| request.interrupt_thread(py, clock)).count() > 0
    }

    /// Must [`WorkerStatus::interrupt_other_threads`] be called, because a request outside the main
    /// thread is overdue?
    pub(crate) fn has_late_request(&self) -> bool {
        self.requests_of_other_threads()
            .filter_map(|request| request.time_left())
            .any(|left| left.is_zero())
    }

    /// The scoreboard.
    pub(crate) fn scoreboard(&self) -> &Scoreboard {
        &self.scoreboard
    }

    /// Time until a request outside the main thread may be overdue, including requests that begin
    /// later.
    pub(crate) fn until_next_deadline(&self) -> Duration {
        let left = self.requests_of_other_threads().filter_map(|request| request.time_left()).min();
        left.into_iter().chain(self.timeouts.shortest()).min().unwrap_or(Duration::MAX)
    }

    /// Is there no supervisor?
    pub(crate) fn is_alone(&self) -> bool {
        self.bell.is_none()
    }

    /// The requests outside the main thread. Their locks are not held when the caller gets the
    /// requests.
    fn requests_of_other_threads(&self) -> impl Iterator<Item = Interruptible> {
        self.requests
            .iter()
            .skip(1)
            .filter_map(|cell| cell.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The line of a thread, unless the line belongs to another worker by now.
    fn line(&self, thread: u32) -> Option<&ScoreboardLine> {
        self.any_line(thread).filter(|line| line.is_of(self.pid))
    }

    fn any_line(&self, thread: u32) -> Option<&ScoreboardLine> {
        self.scoreboard.line(self.line_number(thread))
    }

    fn line_number(&self, thread: u32) -> usize {
        self.first_line.saturating_add(usize::try_from(thread).unwrap_or(usize::MAX))
    }

    fn begun(&self, thread: u32) -> &AtomicU64 {
        let number = usize::try_from(thread).unwrap_or(0).min(self.begun.len() - 1);
        &self.begun[number]
    }

    fn request(&self, thread: u32) -> MutexGuard<'_, Option<Interruptible>> {
        let number = usize::try_from(thread).unwrap_or(0).min(self.requests.len() - 1);
        self.requests[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
