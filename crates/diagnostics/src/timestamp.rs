//! The time of a log message: UTC with milliseconds (ISO 8601, RFC 3339).
//!
//! UTC needs no time zone data, so the gateway links none, and a signal handler can write the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Length of a time in bytes.
pub const TIMESTAMP_BYTES: usize = 24;

const SECONDS_PER_DAY: u64 = 86_400;

/// A time as in `2026-12-01T09:43:04.123Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp([u8; TIMESTAMP_BYTES]);

impl Timestamp {
    /// The current time. Async-signal-safe.
    pub fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// Converts `time`. Async-signal-safe.
    pub fn of(time: SystemTime) -> Self {
        // A clock before 1970 is wrong in any case.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (year, month, day) = date(since.as_secs() / SECONDS_PER_DAY);
        let second = since.as_secs() % SECONDS_PER_DAY;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (at, width, value) in [
            (0, 4, year),
            (5, 2, month),
            (8, 2, day),
            (11, 2, second / 3600),
            (14, 2, second / 60 % 60),
            (17, 2, second % 60),
            (20, 3, u64::from(since.subsec_millis())),
        ] {
            let mut value = value;
            for digit in text[at..at + width].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        Self(text)
    }

    /// The text as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // All bytes are ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Year, month and day of the Gregorian calendar, `days` after 1 January 1970.
///
/// Counts from 1 March of the year 0, so that a leap day is the last day of its year. 400 years
/// have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_gregorian_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_796_118_184_123, "2026-12-01T09:43:04.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(Timestamp::of(time).as_str(), text);
        }
    }
}
