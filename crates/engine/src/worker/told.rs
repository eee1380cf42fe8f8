//! SIGTERM, as something that can be waited for beside other things. It is blocked meanwhile, so that none is lost between a look and a
//! wait, nor between a wait and the handler that a request gets.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Readable when this process was told to end.
pub(super) struct Told(OwnedFd);

impl Told {
    /// Blocks SIGTERM, and no other signal, until [`super::fork::unblock_signals`].
    ///
    /// # Errors
    /// If descriptors are short.
    pub(super) fn listen() -> io::Result<Self> {
        // SAFETY: an all-zero set that `sigemptyset` initialises; the calls take pointers to it while it lives. The descriptor is new and
        // nobody else's.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                number if number < 0 => Err(io::Error::last_os_error()),
                number => Ok(Self(OwnedFd::from_raw_fd(number))),
            }
        }
    }
}

impl AsFd for Told {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
