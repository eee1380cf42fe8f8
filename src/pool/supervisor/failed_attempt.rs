//! An attempt to load the code that failed, for the status of the pool.

use std::time::Instant;

use control::pool_status::FailedLoad;
use wire::running_clock;

/// An attempt to load the code that failed.
pub(super) struct FailedAttempt {
    when: Instant,
    /// Code and sentence of the log message.
    reason: String,
}

impl FailedAttempt {
    /// An attempt that fails now, for `reason`.
    pub(super) fn now(reason: String) -> Self {
        Self { when: running_clock::instant(), reason }
    }

    /// The attempt as the status shows it.
    pub(super) fn status(&self) -> FailedLoad {
        FailedLoad {
            seconds: running_clock::elapsed(self.when).as_secs(),
            reason: self.reason.clone(),
        }
    }
}
