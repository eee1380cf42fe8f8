//! Attempts to load the code of a pool, so that each change of a file causes one reload.
//!
//! The supervisor, the template and each worker watch files, and all of them notice a change
//! within a second. Only the first one may report it. Processes of older code need not report what
//! a newer attempt loads: the processes of that attempt watch the files themselves. But if the
//! attempt fails, only older processes are left to notice the next change.

use std::sync::atomic::{AtomicU64, Ordering};

/// Set if a change was reported since the newest attempt began.
const REPORTED: u64 = 1;
/// Set if the newest attempt has failed.
const FAILED: u64 = 2;
/// The attempt 1, which counts in the bits above.
const ONE_ATTEMPT: u64 = 4;

/// The number of the newest attempt with its flags.
#[derive(Debug)]
#[repr(transparent)]
pub struct CodeLoads(AtomicU64);

/// What becomes of a change that a process has noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeReport {
    /// The process is the first to report a change, and tells the supervisor.
    First,
    /// A reload for this change has begun, or will begin.
    Covered,
    /// Newer code is loading or has been loaded. The process asks again if that fails.
    Later,
}

impl CodeLoads {
    /// Begins an attempt.
    pub fn begin(&self) {
        self.0.store((self.newest() + 1) * ONE_ATTEMPT, Ordering::SeqCst);
    }

    /// Marks the newest attempt as failed.
    pub fn fail(&self) {
        self.0.store((self.newest() * ONE_ATTEMPT) | FAILED, Ordering::SeqCst);
    }

    /// The number of the newest attempt.
    pub fn newest(&self) -> u64 {
        self.0.load(Ordering::SeqCst) / ONE_ATTEMPT
    }

    /// Claims a report of the supervisor itself. Returns whether no other process was first.
    pub fn claim(&self) -> bool {
        self.0.fetch_or(REPORTED, Ordering::SeqCst) & REPORTED == 0
    }

    /// Claims the report of a change that was noticed when `noticed` was the newest attempt. The
    /// process has loaded its code by the attempt `loaded`.
    pub fn report(&self, loaded: u64, noticed: u64) -> ChangeReport {
        let current = self.0.load(Ordering::SeqCst);
        let newest = current / ONE_ATTEMPT;
        if newest > noticed || current & REPORTED != 0 {
            return ChangeReport::Covered;
        }
        if newest > loaded && current & FAILED == 0 {
            return ChangeReport::Later;
        }
        let reported = current | REPORTED;
        match self.0.compare_exchange(current, reported, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => ChangeReport::First,
            // Another process has reported, or the supervisor has begun or ended an attempt.
            Err(_) => ChangeReport::Later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ChangeReport::*, *};

    #[test]
    fn a_change_is_reported_once_and_by_older_processes_only_after_a_failure() {
        let loads = CodeLoads(AtomicU64::new(0));
        loads.begin();
        assert_eq!((loads.report(1, 1), loads.report(1, 1)), (First, Covered));
        assert!(!loads.claim());
        loads.begin();
        // Noticed before the second attempt, during it, and by a process of it.
        assert_eq!((loads.report(1, 1), loads.report(1, 2)), (Covered, Later));
        assert_eq!((loads.report(2, 2), loads.report(2, 2)), (First, Covered));
        loads.begin();
        assert_eq!(loads.report(2, 3), Later);
        loads.fail();
        assert_eq!((loads.newest(), loads.report(2, 3), loads.report(2, 3)), (3, First, Covered));
        loads.begin();
        assert!(loads.claim() && !loads.claim());
        assert_eq!(loads.report(4, 4), Covered);
    }
}
