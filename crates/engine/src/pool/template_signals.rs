//! Signals in the template of a pool: some wake it, and what loading has made of them is kept for
//! the workers.

use std::os::fd::{AsFd, BorrowedFd};

use pyo3::prelude::*;
use rustix::net::{RecvFlags, SocketType, recv};

use crate::process::forks::{
    Descriptor, {self},
};

/// Signals that wake the template. It ends when its last worker has, and not by a signal that a
/// terminal or a service manager gives to all, nor by one that is left of a timer: all its workers
/// would end with it.
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

/// Readable when a signal has come that wakes the template.
pub(crate) struct TemplateSignals {
    ours: Descriptor,
    /// What loading has made of those that the template needs for itself: a handler of the
    /// application's would wait for our children.
    theirs: Vec<(i32, Py<PyAny>)>,
}

impl TemplateSignals {
    /// Handles the signals from now on.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub(crate) fn register(py: Python<'_>) -> PyResult<Self> {
        let (ours, bell) = forks::pair(SocketType::STREAM)?;
        let signal = py.import("_signal")?;
        let mut theirs = Vec::new();
        for number in [libc::SIGCHLD, libc::SIGUSR1] {
            let handler = signal.call_method1("getsignal", (number,))?;
            // `None`, or the default though there is another, is one that was not set by Python
            // (`faulthandler.register`): it is called all the same.
            if !handler.is_none() && !handler.eq(libc::SIG_DFL)? {
                signal.call_method1("signal", (number, 0))?;
                theirs.push((number, handler.unbind()));
            }
        }
        forks::wake(&SIGNALS, bell, true)?;
        Ok(Self { ours, theirs })
    }

    /// Takes note of those that have come.
    pub(crate) fn take(&self) {
        while matches!(recv(&self.ours, &mut [0; 64], RecvFlags::DONTWAIT), Ok((1.., _))) {}
    }

    /// In a worker, before it lets signals through: makes of these signals what loading has made of
    /// them.
    ///
    /// # Errors
    /// If Python raises.
    pub(crate) fn give_back(self, py: Python<'_>) -> PyResult<()> {
        forks::stop_waking(&SIGNALS);
        // What has come since the fork, while hooks of the application ran, is for this worker.
        forks::repeat_signals();
        let signal = py.import("_signal")?;
        for (number, handler) in self.theirs {
            signal.call_method1("signal", (number, handler))?;
        }
        Ok(())
    }
}

impl AsFd for TemplateSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}
