//! `X-Request-Start`: when the web server received a request, for the time that the request waited.
//!
//! nginx writes `t=1700000000.123` (`t=$msec`), Apache `t=1700000000123456` (`%t`), and others
//! write milliseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A longer time is a wrong clock.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// How long a request has waited at `now`, if the header `value` says so.
pub(super) fn waited(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let number: f64 = text.strip_prefix("t=").unwrap_or(text).parse().ok()?;
    // Seconds have ten digits for the next centuries, milliseconds 13, and microseconds 16.
    let seconds = match number {
        ..1e11 => number,
        ..1e14 => number / 1e3,
        _ => number / 1e6,
    };
    let start = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    now.duration_since(start).ok().filter(|waited| *waited <= MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_milliseconds_and_microseconds_are_recognised() {
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_001_500);
        for value in ["t=1700000000.000", "1700000000", "t=1700000000000", "1700000000000000"] {
            let waited = waited(value.as_bytes(), now).unwrap();
            assert_eq!(waited.as_millis(), 1500, "{value}");
        }
        for value in ["", "t=", "nonsense", "NaN", "inf", "-1", "t=1700000009", "1600000000", "1"] {
            assert_eq!(waited(value.as_bytes(), now), None, "{value}");
        }
        assert_eq!(waited(b"\xff", now), None);
    }
}
