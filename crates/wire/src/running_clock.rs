//! A clock that runs while this process runs, for deadlines.
//!
//! A machine may be suspended, and processes may be stopped together with those that they wait for
//! (SIGSTOP, the freezer of a control group). The monotonic clock goes on, so that every deadline
//! would have passed afterwards. So a process that waits for a deadline wakes every second. A wait
//! that took much longer than asked for shows how long the process was stopped, and that time is
//! subtracted.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::clock;

/// Longest wait before a deadline. Up to this much of a suspension is not noticed.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Longest wait shortly before a deadline.
const MIN_WAIT: Duration = Duration::from_millis(100);

/// Milliseconds by which a wait may be late because the machine is busy.
const MAX_LATENESS_MILLIS: u64 = 1000;

/// Most suspensions that are remembered.
const MAX_SUSPENSIONS: usize = 64;

/// Milliseconds for which this process was stopped, as far as that was noticed.
static STOPPED_MILLIS: AtomicU64 = AtomicU64::new(0);

/// The last suspensions.
static SUSPENSIONS: Mutex<Vec<Suspension>> = Mutex::new(Vec::new());

/// A time in which this process was stopped, in milliseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Suspension {
    begin: u64,
    end: u64,
}

/// Milliseconds of the running clock: the monotonic clock, less the time in which this process was
/// stopped.
pub fn now() -> u64 {
    clock::now().saturating_sub(stopped())
}

/// Milliseconds of the running clock at the kernel's last tick. Costs a fraction of [`now`].
pub fn recently() -> u64 {
    clock::recently().saturating_sub(stopped())
}

/// The running clock as an [`Instant`], to be compared only with others of this function.
pub fn instant() -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(stopped())).unwrap_or(now)
}

/// Time since `since`, which is an [`instant`] of the running clock.
pub fn elapsed(since: Instant) -> Duration {
    instant().saturating_duration_since(since)
}

/// Time in which this process was running since `begin`, which is in milliseconds of the monotonic
/// clock.
pub fn since(begin: u64) -> Duration {
    let now = clock::now();
    let suspensions = SUSPENSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let stopped: u64 = suspensions
        .iter()
        .map(|suspension| suspension.end.saturating_sub(suspension.begin.max(begin)))
        .sum();
    Duration::from_millis(now.saturating_sub(begin).saturating_sub(stopped))
}

/// Calls `wait` with `timeout`, or with at most a second of it. The caller looks at its deadline
/// afterwards and waits again.
pub fn wait<T>(timeout: Option<Duration>, wait: impl FnOnce(Option<Duration>) -> T) -> T {
    let Some(timeout) = timeout.map(|timeout| timeout.min((timeout / 4).clamp(MIN_WAIT, MAX_WAIT)))
    else {
        return wait(None);
    };
    let begin = clock::now();
    let waited = wait(Some(timeout));
    note_wait(begin + u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX), clock::now());
    waited
}

/// Records a suspension if a wait that was due at `due` ended much later, at `end`.
fn note_wait(due: u64, end: u64) {
    if end.saturating_sub(due) <= MAX_LATENESS_MILLIS {
        return;
    }
    let mut suspensions = SUSPENSIONS.lock().unwrap_or_else(PoisonError::into_inner);
    // Other threads wait, too, and notice the same suspension.
    let begin = suspensions.last().map_or(due, |last| due.max(last.end));
    if begin >= end {
        return;
    }
    if suspensions.len() == MAX_SUSPENSIONS {
        suspensions.remove(0);
    }
    suspensions.push(Suspension { begin, end });
    STOPPED_MILLIS.fetch_add(end - begin, Ordering::Relaxed);
}

fn stopped() -> u64 {
    STOPPED_MILLIS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, since the clock is that of the process.
    #[test]
    fn a_wait_that_is_far_too_long_stops_the_clock_once() {
        let begin = clock::now();
        for _ in 0..3 {
            note_wait(begin + 1000, begin + 1900);
        }
        assert_eq!(stopped(), 0);
        note_wait(begin + 1000, begin + 9000);
        note_wait(begin + 500, begin + 9001);
        assert_eq!(stopped(), 8001, "the second has noticed the same, and a millisecond more");
        note_wait(begin + 9500, begin + 19_500);
        assert_eq!(stopped(), 18_001);
        assert!(now() <= clock::now() - 18_000);
        assert!(Instant::now() - instant() >= Duration::from_secs(18));
        assert_eq!(since(clock::now() + 60_000), Duration::ZERO);
        wait(Some(Duration::ZERO), |timeout| assert_eq!(timeout, Some(Duration::ZERO)));
        for (left, expected) in [(50, 50), (300, 100), (2000, 500), (9000, 1000)] {
            let expected = Some(Duration::from_millis(expected));
            wait(Some(Duration::from_millis(left)), |timeout| assert_eq!(timeout, expected));
        }
        wait(None, |timeout| assert_eq!(timeout, None));
    }
}
