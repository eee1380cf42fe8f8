//! Timers of the kernel that end, interrupt or report what takes too long.

pub(crate) mod application_timers;
pub(crate) mod close_timer;
pub(crate) mod exit_deadline;
pub(crate) mod stack_dump;

/// How long the stacks may take to be written.
const STACKS_TIMEOUT_SECONDS: libc::c_uint = 2;

/// Ends this process by SIGABRT, upon which `faulthandler` writes the stacks; by SIGALRM if nobody
/// reads the log. Returns where the application handles SIGABRT. Called by signal handlers.
fn abort() {
    // SAFETY: all-zero is a valid value of each structure, and the calls are async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const alarm, std::ptr::null_mut());
        libc::alarm(STACKS_TIMEOUT_SECONDS);
        libc::raise(libc::SIGABRT);
    }
}
