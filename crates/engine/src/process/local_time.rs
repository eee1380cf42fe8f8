//! The local time of log lines, in the time zone of the C library.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time in the local time zone.
pub(crate) struct LocalTime {
    parts: libc::tm,
}

impl LocalTime {
    /// Converts `time`. Must be called while this thread is attached to the interpreter. The C
    /// library may read the variable `TZ`, which Python code changes only while attached.
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or(0);
        // SAFETY: all-zero is a valid value of the C structure: numbers, and a pointer that may be
        // null.
        let mut parts: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are those of live values of their types; the call keeps neither.
        // The caller is attached to the interpreter, so no thread changes `TZ` meanwhile.
        unsafe { libc::localtime_r(&raw const seconds, &raw mut parts) };
        Self { parts }
    }

    /// The time as in `21/Nov/2026:03:09:39 +0100` (Common Log Format).
    pub(crate) fn common(&self) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let parts = &self.parts;
        let month = usize::try_from(parts.tm_mon)
            .ok()
            .and_then(|month| MONTHS.get(month))
            .unwrap_or(&"Jan");
        let (sign, hours, minutes) = self.offset();
        format!(
            "{:02}/{month}/{:04}:{:02}:{:02}:{:02} {sign}{hours:02}{minutes:02}",
            parts.tm_mday,
            parts.tm_year + 1900,
            parts.tm_hour,
            parts.tm_min,
            parts.tm_sec
        )
    }

    fn offset(&self) -> (char, i64, i64) {
        let minutes = self.parts.tm_gmtoff / 60;
        (if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
    }
}
