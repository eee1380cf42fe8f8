//! Time in which this process was running, for deadlines.
//!
//! A machine may be suspended, and processes may be stopped, together with those that they wait for
//! (SIGSTOP, the freezer of a control group). The monotonic clock goes on, so that afterwards every
//! deadline would have passed. So whoever waits for a deadline wakes every second: a wait that
//! took much longer than it was to take shows for how long the process was stopped, and that time
//! counts for no deadline.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::scoreboard;

/// Longest wait of a process that keeps a deadline, and the shortest before the deadline: so much
/// of the time for which it was stopped may count.
const TICK: Duration = Duration::from_secs(1);
const SHORT_TICK: Duration = Duration::from_millis(100);

/// How many milliseconds a wait may be late because the machine is busy.
const TOLERANCE: u64 = 1000;

/// Most stops that are remembered.
const REMEMBERED: usize = 64;

/// Milliseconds for which this process was stopped, as far as that was noticed.
static STOPPED: AtomicU64 = AtomicU64::new(0);

/// The same, stop by stop.
static STOPS: Mutex<Vec<Stop>> = Mutex::new(Vec::new());

/// A time in which this process was stopped, in milliseconds of the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Stop {
    begin: u64,
    end: u64,
}

/// Milliseconds of the monotonic clock, without those for which this process was stopped.
pub fn now() -> u64 {
    scoreboard::now().saturating_sub(stopped())
}

/// The same as of the kernel's last tick; costs a fraction.
pub fn recently() -> u64 {
    scoreboard::recently().saturating_sub(stopped())
}

/// The same clock as [`now`], for deadlines that are [`Instant`]s. Compare them only with each
/// other.
pub fn instant() -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(stopped())).unwrap_or(now)
}

/// How long ago `since` is, by the clock of [`instant`].
pub fn elapsed(since: Instant) -> Duration {
    instant().saturating_duration_since(since)
}

/// How long this process has been running since `begin`, in milliseconds of the monotonic clock.
pub fn since(begin: u64) -> Duration {
    let now = scoreboard::now();
    let stops = STOPS.lock().unwrap_or_else(PoisonError::into_inner);
    let stopped: u64 =
        stops.iter().map(|stop| stop.end.saturating_sub(stop.begin.max(begin))).sum();
    Duration::from_millis(now.saturating_sub(begin).saturating_sub(stopped))
}

/// Waits by `wait` for at most `patience`, and at most a second if there is a limit: the caller
/// looks at its deadline and waits again.
pub fn wait<T>(patience: Option<Duration>, wait: impl FnOnce(Option<Duration>) -> T) -> T {
    let Some(patience) =
        patience.map(|patience| patience.min((patience / 4).clamp(SHORT_TICK, TICK)))
    else {
        return wait(None);
    };
    let begin = scoreboard::now();
    let waited = wait(Some(patience));
    take_note(begin + u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), scoreboard::now());
    waited
}

/// A wait that was to end at `due` has ended at `end`.
fn take_note(due: u64, end: u64) {
    if end.saturating_sub(due) <= TOLERANCE {
        return;
    }
    let mut stops = STOPS.lock().unwrap_or_else(PoisonError::into_inner);
    // Other threads wait, too, and notice the same stop.
    let begin = stops.last().map_or(due, |last| due.max(last.end));
    if begin >= end {
        return;
    }
    if stops.len() == REMEMBERED {
        stops.remove(0);
    }
    stops.push(Stop { begin, end });
    STOPPED.fetch_add(end - begin, Ordering::Relaxed);
}

fn stopped() -> u64 {
    STOPPED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test, since the clock is that of the process.
    #[test]
    fn a_wait_that_is_far_too_long_stops_the_clock_once() {
        let begin = scoreboard::now();
        for _ in 0..3 {
            take_note(begin + 1000, begin + 1900);
        }
        assert_eq!(stopped(), 0);
        take_note(begin + 1000, begin + 9000);
        take_note(begin + 500, begin + 9001);
        assert_eq!(stopped(), 8001, "the second has noticed the same, and a millisecond more");
        take_note(begin + 9500, begin + 19_500);
        assert_eq!(stopped(), 18_001);
        assert!(now() <= scoreboard::now() - 18_000);
        assert!(Instant::now() - instant() >= Duration::from_secs(18));
        assert_eq!(since(scoreboard::now() + 60_000), Duration::ZERO);
        wait(Some(Duration::ZERO), |patience| assert_eq!(patience, Some(Duration::ZERO)));
        for (left, tick) in [(50, 50), (300, 100), (2000, 500), (9000, 1000)] {
            let tick = Some(Duration::from_millis(tick));
            wait(Some(Duration::from_millis(left)), |patience| assert_eq!(patience, tick));
        }
        wait(None, |patience| assert_eq!(patience, None));
    }
}
