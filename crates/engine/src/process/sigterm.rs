//! SIGTERM as an event to wait for, in a process that waits for its next request.
//!
//! A handler in C notes the signal, so the kernel may deliver it to any thread. Threads that an
//! application has started do not block SIGTERM, and without a handler it would end the process.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{net::SocketType, process::Signal};

use crate::process::{
    SignalMask,
    forks::{
        Descriptor, {self},
    },
    poll::is_readable,
};

/// A descriptor that is readable once this process has received SIGTERM. A process has one.
pub(crate) struct Sigterm(Descriptor);

impl Sigterm {
    /// Handles SIGTERM from now on, until Python code installs another handler, and delivers the
    /// signals that `mask` does not block.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub(crate) fn listen(mask: &SignalMask) -> io::Result<Self> {
        let (ours, bell) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], bell, false)?;
        crate::process::unblock_signals(mask);
        Ok(Self(ours))
    }

    /// Handles SIGTERM again, after Python code has installed a handler for a request, and delivers
    /// the signals that `mask` does not block.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn listen_again(&self, mask: &SignalMask) -> io::Result<()> {
        let handled = forks::wake_again(&[Signal::TERM.as_raw()]);
        crate::process::unblock_signals(mask);
        handled
    }

    /// Has this process received SIGTERM?
    pub(crate) fn has_come(&self) -> bool {
        is_readable(&self.0)
    }
}

impl AsFd for Sigterm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
