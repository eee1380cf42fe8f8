//! The monotonic clock of the kernel, which all processes share. The running clock
//! ([`crate::running_clock`]) leaves out time in which this process was stopped.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the monotonic clock.
pub fn now() -> u64 {
    milliseconds(ClockId::Monotonic)
}

/// Microseconds of the monotonic clock.
pub fn microseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

/// Milliseconds of the monotonic clock at the kernel's last tick, up to some ten milliseconds ago.
/// Costs a fraction of [`now`].
pub fn recently() -> u64 {
    milliseconds(ClockId::MonotonicCoarse)
}

fn milliseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}
