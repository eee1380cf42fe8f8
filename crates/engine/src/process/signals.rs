//! The signal mask of a thread: the signals that the kernel holds back.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

/// The signals that a thread blocks.
#[derive(Clone, Copy)]
pub(crate) struct SignalMask(SigSet);

impl SignalMask {
    /// Blocks no signal.
    pub(crate) fn none() -> Self {
        Self(SigSet::empty())
    }

    /// The mask of this thread without SIGTERM: an administrator must be able to stop the process.
    pub(crate) fn now() -> Self {
        // The call cannot fail with valid arguments.
        let mut now = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        now.remove(Signal::SIGTERM);
        Self(now)
    }

    /// This mask without the signals that a supervisor sends to the workers of a FastCGI pool.
    pub(crate) fn of_worker(mut self) -> Self {
        self.0.remove(Signal::SIGUSR1);
        self.0.remove(Signal::SIGUSR2);
        self
    }

    /// Makes this the mask of the calling thread.
    pub(super) fn apply(&self) {
        // The call cannot fail with valid arguments.
        let _ = self.0.thread_set_mask();
    }
}

/// Blocks all signals in this thread, and returns the mask from before. Async-signal-safe.
pub(super) fn block_all() -> SignalMask {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    SignalMask(before.unwrap_or_else(|_| SigSet::empty()))
}

/// Delivers the signals that `mask` does not block, once a child is ready for them.
pub(crate) fn unblock_signals(mask: &SignalMask) {
    mask.apply();
}
