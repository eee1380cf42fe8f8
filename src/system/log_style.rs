//! Chooses the style of the log by what standard error leads to.

use std::env;

use diagnostics::log_style::{self, LogFormat, LogStyle, Prefix};
use rustix::{
    fs::{FileType, fstat},
    stdio::stderr,
};

/// Sets the style for a CGI request of the application `pool`. Nobody else adds a time to messages
/// in a file. A web server adds one to what it reads from a pipe or a socket.
pub(crate) fn set_for_request(format: LogFormat, pool: String) {
    let is_file = fstat(stderr())
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile);
    let prefix = if is_file { Prefix::Time } else { Prefix::Nothing };
    log_style::set(LogStyle { format, pool, prefix });
}

/// Sets the style for the pool `pool`. The journal adds a time, names the unit, and reads
/// priorities.
pub(crate) fn set_for_pool(format: LogFormat, pool: String) {
    let prefix = if is_journal() { Prefix::Priority } else { Prefix::Time };
    log_style::set(LogStyle { format, pool, prefix });
}

/// Is standard error a stream of systemd's journal, as `JOURNAL_STREAM` says (systemd.exec(5))?
fn is_journal() -> bool {
    let stream = env::var("JOURNAL_STREAM").ok();
    let parts = stream.as_deref().and_then(|stream| stream.split_once(':'));
    let numbers = parts.and_then(|(device, file)| Some((device.parse().ok()?, file.parse().ok()?)));
    let found = fstat(stderr()).ok();
    let found = found.map(|found| (found.st_dev, found.st_ino));
    found.is_some() && numbers == found
}
