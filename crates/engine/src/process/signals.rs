//! The signal mask of this process.

/// The signals that a thread blocks.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// None.
    pub(crate) fn none() -> Self {
        // SAFETY: an all-zero set that `sigemptyset` initialises; the call takes a pointer to it.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            Self(none)
        }
    }

    /// Those of this thread, but for SIGTERM: a process that nobody can end is of no use.
    pub(crate) fn now() -> Self {
        let mut now = Self::none().0;
        // SAFETY: `now` is a live set, which the first call overwrites; without a new set nothing
        // changes.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut now);
            libc::sigdelset(&raw mut now, libc::SIGTERM);
        }
        Self(now)
    }

    /// The same without signals by which a supervisor reaches the workers of a FastCGI pool.
    pub(crate) fn of_worker(mut self) -> Self {
        for signal in [libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: the call takes a pointer to a live set.
            unsafe { libc::sigdelset(&raw mut self.0, signal) };
        }
        self
    }
}

/// Lets signals through that `mask` does not block, when the child is ready for them.
pub(crate) fn unblock_signals(mask: &Mask) {
    // SAFETY: the call takes a pointer to a live set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask.0, std::ptr::null_mut()) };
}
