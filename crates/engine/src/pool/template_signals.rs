//! Signals of a template process. Signals that wake the template have the application's handlers
//! only in workers.

use std::os::fd::{AsFd, BorrowedFd};

use pyo3::prelude::*;
use rustix::net::{RecvFlags, SocketType, recv};

use crate::process::forks::{
    Descriptor, {self},
};

/// Signals that wake the template instead of killing it: signals of timers, and signals that a
/// terminal or a service manager sends to all processes. All workers would exit with the template,
/// which must exit last.
const SIGNALS: [i32; 12] = [
    libc::SIGCHLD,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGHUP,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGXCPU,
    libc::SIGIO,
    libc::SIGPWR,
    libc::SIGSTKFLT,
];

/// Readable when a signal has woken the template.
pub(crate) struct TemplateSignals {
    wakeup: Descriptor,
    /// Handlers that the application has set for the template's signals. Such a handler might reap
    /// the template's children.
    handlers: Vec<(i32, Py<PyAny>)>,
}

impl TemplateSignals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub(crate) fn register(py: Python<'_>) -> PyResult<Self> {
        let (wakeup, waker) = forks::pair(SocketType::STREAM)?;
        let signal = py.import("_signal")?;
        let mut handlers = Vec::new();
        for number in [libc::SIGCHLD, libc::SIGUSR1] {
            let handler = signal.call_method1("getsignal", (number,))?;
            // `None`, or a default that is not in effect, means a handler that Python has not set
            // (`faulthandler.register`). The kernel still calls such a handler.
            if !handler.is_none() && !handler.eq(libc::SIG_DFL)? {
                signal.call_method1("signal", (number, 0))?;
                handlers.push((number, handler.unbind()));
            }
        }
        forks::wake(&SIGNALS, waker, true)?;
        Ok(Self { wakeup, handlers })
    }

    /// Clears the signals that have arrived.
    pub(crate) fn take(&self) {
        while matches!(recv(&self.wakeup, &mut [0; 64], RecvFlags::DONTWAIT), Ok((1.., _))) {}
    }

    /// Restores the application's handlers in a worker, before it unblocks signals.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn give_back(self, py: Python<'_>) -> PyResult<()> {
        forks::stop_waking(&SIGNALS);
        // Signals that arrived since the fork, while fork hooks of the application ran, are for
        // this worker.
        forks::repeat_signals();
        let signal = py.import("_signal")?;
        for (number, handler) in self.handlers {
            signal.call_method1("signal", (number, handler))?;
        }
        Ok(())
    }
}

impl AsFd for TemplateSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}
