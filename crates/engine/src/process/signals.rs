//! The signal mask of this process.

/// Lets all signals through, when a forked process is ready for them.
pub(crate) fn unblock_signals() {
    // SAFETY: an all-zero set that `sigemptyset` initialises; the call takes a pointer to it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}
