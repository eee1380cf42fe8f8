//! SIGTERM as something to wait for beside other things, in a process that waits for its next
//! request.
//!
//! A handler of C notes the signal. So it does not matter which thread the kernel gives the signal
//! to: those that an application has started have it unblocked, and would end the process if there
//! were no handler.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::SocketType,
    process::Signal,
};

use crate::process::{
    Mask,
    forks::{
        Descriptor, {self},
    },
};

/// Readable when this process has been asked to stop. There is one of them in a process.
pub(crate) struct Sigterm(Descriptor);

impl Sigterm {
    /// Handles SIGTERM from now on, until Python code installs another handler, and unblocks the
    /// signals that `mask` does not block.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub(crate) fn listen(mask: &Mask) -> io::Result<Self> {
        let (ours, bell) = forks::pair(SocketType::STREAM)?;
        forks::wake(&[Signal::TERM.as_raw()], bell, false)?;
        crate::process::unblock_signals(mask);
        Ok(Self(ours))
    }

    /// Handles SIGTERM again, after Python code had installed a handler for a request, and lets
    /// signals through that `mask` does not block.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn listen_again(&self, mask: &Mask) -> io::Result<()> {
        let handled = forks::wake_again(&[Signal::TERM.as_raw()]);
        crate::process::unblock_signals(mask);
        handled
    }

    /// Has the signal come?
    pub(crate) fn has_come(&self) -> bool {
        let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

impl AsFd for Sigterm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
