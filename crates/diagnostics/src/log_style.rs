//! How this process writes its log: as text or JSON, and what its messages begin with.
//!
//! A text message begins with a time and the pool's name, unless the program that reads the log
//! adds a time itself: the web server of a CGI request, or the journal. A record of JSON has them
//! in any case. For the journal, each line begins with the priority of its message.

use std::sync::{
    OnceLock,
    atomic::{AtomicU8, Ordering},
};

use crate::{
    code::Severity,
    timestamp::{TIMESTAMP_BYTES, Timestamp},
};

/// The start of each record of JSON, before its time.
pub(crate) const JSON_START: &str = "{\"time\":\"";

/// Length of a priority, such as `<4>`.
const PRIORITY_BYTES: usize = 3;

/// The form of log messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What log messages begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Prefix {
    /// Nothing: the reader adds a time.
    #[default]
    Nothing,
    /// Time and pool.
    Time,
    /// A priority for the journal, such as `<4>`, in each line (sd-daemon(3)).
    Priority,
}

/// How a process writes its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStyle {
    /// The form of log messages.
    pub format: LogFormat,
    /// The name of the pool, or of the application of a CGI request. Empty for a command at a
    /// terminal.
    pub pool: String,
    /// What messages begin with.
    pub prefix: Prefix,
}

static FORMAT_AND_POOL: OnceLock<(LogFormat, String)> = OnceLock::new();

/// A process of a warm pool changes this for each request.
static PREFIX: AtomicU8 = AtomicU8::new(Prefix::Nothing as u8);

/// Sets the style of this process. Format and name are set once.
pub fn set(style: LogStyle) {
    set_prefix(style.prefix);
    // A second call can only repeat the first one.
    let _ = FORMAT_AND_POOL.set((style.format, style.pool));
}

/// Sets what messages begin with.
pub fn set_prefix(prefix: Prefix) {
    PREFIX.store(prefix as u8, Ordering::Relaxed);
}

fn prefix() -> Prefix {
    let prefix = PREFIX.load(Ordering::Relaxed);
    let known = [Prefix::Time, Prefix::Priority].into_iter();
    known.clone().find(|known| *known as u8 == prefix).unwrap_or_default()
}

/// The style of this process.
pub fn get() -> LogStyle {
    LogStyle { format: format(), pool: pool().to_owned(), prefix: prefix() }
}

/// The form of log messages of this process.
pub fn format() -> LogFormat {
    FORMAT_AND_POOL.get().map(|(format, _)| *format).unwrap_or_default()
}

/// The name of the pool. Empty for a command at a terminal.
pub fn pool() -> &'static str {
    FORMAT_AND_POOL.get().map_or("", |(_, pool)| pool)
}

/// Adds `TIME [POOL] ` to the text message `message` of the severity `severity`, or the priority
/// to each of its lines and to those of a record of JSON.
pub(crate) fn with_prefix(message: String, severity: Severity) -> String {
    match prefix() {
        Prefix::Time => with_time(message),
        Prefix::Nothing => message,
        Prefix::Priority => {
            let lines = message.split_inclusive('\n');
            lines.flat_map(|line| [priority(severity), line]).collect()
        }
    }
}

/// Adds `TIME [POOL] ` to `message`, unless it is a record of JSON.
pub(crate) fn with_time(message: String) -> String {
    match format() {
        LogFormat::Text => [Timestamp::now().as_str(), " [", pool(), "] ", &message].concat(),
        LogFormat::Json => message,
    }
}

/// The priority of the journal for messages of `severity`.
fn priority(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "<3>",
        Severity::Warning => "<4>",
        Severity::Notice => "<5>",
    }
}

/// Returns where the time of a message of [`crate::message::LogMessage::for_log`] begins, if it
/// has one. A message that was made before it is written gets a new time there.
/// Async-signal-safe.
pub fn time_position(message: &[u8]) -> Option<usize> {
    let has_priority = message.first() == Some(&b'<');
    let start = if has_priority { PRIORITY_BYTES } else { 0 };
    let is_json = message.get(start..).is_some_and(|rest| rest.starts_with(JSON_START.as_bytes()));
    let position = if is_json { start + JSON_START.len() } else { start };
    let time = message.get(position..position + TIMESTAMP_BYTES)?;
    (time[0].is_ascii_digit() && time[TIMESTAMP_BYTES - 1] == b'Z').then_some(position)
}
