//! SIGTERM as something to wait for beside other things, in a process that waits for its next
//! request.
//!
//! A handler of C notes the signal. So it does not matter which thread the kernel gives the signal
//! to: those that an application has started have it unblocked, and would end the process if there
//! were no handler.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    process::Signal,
};

/// The descriptor that the handler writes to; -1 if nothing is to be noted.
static NOTED: AtomicI32 = AtomicI32::new(-1);

/// Readable when this process has been asked to stop. There is one of them in a process.
pub(crate) struct Sigterm(OwnedFd);

impl Sigterm {
    /// Handles SIGTERM from now on, until Python code installs another handler, and unblocks all
    /// signals.
    ///
    /// # Errors
    /// If no file descriptor is left.
    pub(crate) fn listen() -> io::Result<Self> {
        let noted = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        NOTED.store(noted.as_raw_fd(), Ordering::Release);
        handle();
        super::unblock_signals();
        Ok(Self(noted))
    }

    /// Handles SIGTERM again, after Python code had installed a handler for a request.
    pub(crate) fn listen_again(&self) {
        handle();
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

impl Drop for Sigterm {
    fn drop(&mut self) {
        NOTED.store(-1, Ordering::Release);
    }
}

fn handle() {
    // SAFETY: all-zero is a valid value of the structure, whose fields that count are set; the
    // handler is async-signal-safe; the call takes a pointer to a live value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(Signal::TERM.as_raw(), &raw const action, ptr::null_mut());
    }
}

/// Runs as a signal handler, in any thread.
extern "C" fn note(_signal: libc::c_int) {
    let noted = NOTED.load(Ordering::Acquire);
    if noted < 0 {
        return;
    }
    let one = 1_u64.to_ne_bytes();
    // SAFETY: write(2) is async-signal-safe, and the bytes are live; errno, which is this thread's,
    // is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(noted, one.as_ptr().cast(), one.len());
        *libc::__errno_location() = errno;
    }
}
