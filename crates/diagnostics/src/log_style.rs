//! How this process writes its log: as text or JSON, and with which time and name.
//!
//! A text message begins with a time and the pool's name, unless the program that reads the log
//! adds a time itself: the web server of a CGI request, or the journal. A record of JSON has them
//! in any case.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::timestamp::{TIMESTAMP_BYTES, Timestamp};

/// The start of each record of JSON, before its time.
pub(crate) const JSON_START: &str = "{\"time\":\"";

/// The form of log messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How a process writes its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStyle {
    /// The form of log messages.
    pub format: LogFormat,
    /// The name of the pool, or of the application of a CGI request. Empty for a command at a
    /// terminal.
    pub pool: String,
    /// Does a text message begin with time and name?
    pub has_time: bool,
}

static FORMAT_AND_POOL: OnceLock<(LogFormat, String)> = OnceLock::new();

/// A process of a warm pool changes this for each request.
static HAS_TIME: AtomicBool = AtomicBool::new(false);

/// Sets the style of this process. Format and name are set once.
pub fn set(style: LogStyle) {
    set_has_time(style.has_time);
    // A second call can only repeat the first one.
    let _ = FORMAT_AND_POOL.set((style.format, style.pool));
}

/// Sets whether text messages begin with time and name.
pub fn set_has_time(has_time: bool) {
    HAS_TIME.store(has_time, Ordering::Relaxed);
}

/// The style of this process.
pub fn get() -> LogStyle {
    LogStyle {
        format: format(),
        pool: pool().to_owned(),
        has_time: HAS_TIME.load(Ordering::Relaxed),
    }
}

/// The form of log messages of this process.
pub fn format() -> LogFormat {
    FORMAT_AND_POOL.get().map(|(format, _)| *format).unwrap_or_default()
}

/// The name of the pool. Empty for a command at a terminal.
pub fn pool() -> &'static str {
    FORMAT_AND_POOL.get().map_or("", |(_, pool)| pool)
}

/// The start of a text message: `TIME [POOL] `, or nothing.
pub(crate) fn text_prefix() -> String {
    if !HAS_TIME.load(Ordering::Relaxed) {
        return String::new();
    }
    [Timestamp::now().as_str(), " [", pool(), "] "].concat()
}

/// Returns where the time of a message of [`crate::message::LogMessage::for_log`] begins, if it
/// has one. A message that was made before it is written gets a new time there.
/// Async-signal-safe.
pub fn time_position(message: &[u8]) -> Option<usize> {
    let position = if message.starts_with(JSON_START.as_bytes()) { JSON_START.len() } else { 0 };
    let time = message.get(position..position + TIMESTAMP_BYTES)?;
    (time[0].is_ascii_digit() && time[TIMESTAMP_BYTES - 1] == b'Z').then_some(position)
}
