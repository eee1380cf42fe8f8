//! Records of a log in JSON: one object a line, with the same keys in each log.
//!
//! Whatever a client or an application writes, a record is one line of valid JSON: line ends,
//! control characters and invisible characters are escapes, and bytes that are not UTF-8 became
//! `\\xff` before.

use serde::Serialize;

use crate::{escape, log_style, timestamp::Timestamp};

/// The keys that each record begins with.
#[derive(Debug, Serialize)]
pub struct RecordStart {
    /// When the record was written, or the request began.
    time: String,
    /// Which log the record belongs to.
    log: LogName,
    /// The name of the pool, or of the application of a CGI request.
    pool: &'static str,
    /// The process that wrote the record.
    pid: i32,
}

/// Which log a record belongs to. The logs may share a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogName {
    /// A log message of wsgate.
    Error,
    /// A request.
    Access,
    /// Output of the application.
    Output,
}

impl RecordStart {
    /// The start of a record of `log` at `time`.
    pub fn new(log: LogName, time: Timestamp) -> Self {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        Self { time: time.as_str().to_owned(), log, pool: log_style::pool(), pid }
    }
}

/// A record as one line, with its end.
pub fn line(record: &impl Serialize) -> String {
    // The records of this crate and of the engine have only types that can be serialized.
    let mut line = escape::json(serde_json::to_string(record).unwrap_or_default());
    line.push('\n');
    line
}
