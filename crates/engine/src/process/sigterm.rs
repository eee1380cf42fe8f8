//! SIGTERM as a pollable event, in a process that waits for its next request.
//!
//! A handler in C records the signal, so the kernel may deliver it to any thread. Threads of the
//! application do not block SIGTERM. Without the handler, the signal would kill the process.

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

/// A descriptor that becomes readable when this process receives SIGTERM. A process has only one
/// such descriptor.
pub(crate) struct Sigterm(Descriptor);

impl Sigterm {
    /// Handles SIGTERM until Python code installs another handler, and delivers the signals that
    /// `mask` does not block.
    ///
    /// # Errors
    /// If no file descriptor is available.
    pub(crate) fn listen(mask: &SignalMask) -> io::Result<Self> {
        let (ours, bell) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], bell, false)?;
        crate::process::unblock_signals(mask);
        Ok(Self(ours))
    }

    /// Handles SIGTERM again after Python code has installed a handler for a request. Delivers the
    /// signals that `mask` does not block.
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
