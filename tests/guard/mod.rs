//! Failures of every kind: the web server gets a valid response or a quiet end, the log gets one
//! message that says what to do, and no process or file stays behind.

mod applications;
mod conditions;
mod deadlocks;
mod engine;
mod files;
mod interpreter;
mod leaving;
mod signals;
mod streams;
mod timeout;

use std::fs;

use crate::support::{
    assertions::{complete_response, only_log_message},
    child_process::ExitedProcess,
    probe::CgiResponse,
    web_servers::eventually,
};

/// The response is an error page with this status, the log has a log message with this code, and
/// the gateway has done its work. Gives the log message's first line.
#[track_caller]
fn page<'a>(response: &'a CgiResponse, status: u16, code: &str) -> &'a str {
    let page = complete_response(&response.raw);
    assert_eq!((page.status, response.exit.code()), (status, Some(0)), "{response:?}");
    silent(&page.body);
    only_log_message(&response.log, code)
}

/// Like [`page`], for a process.
#[track_caller]
fn page_of<'a>(ended: &'a ExitedProcess, status: u16, code: &str) -> &'a str {
    let page = complete_response(&ended.stdout);
    assert_eq!((page.status, ended.code()), (status, Some(0)), "{ended:?}");
    silent(&page.body);
    only_log_message(&ended.stderr, code)
}

/// An error page shows nobody what is behind it.
#[track_caller]
fn silent(page: &[u8]) {
    let page = String::from_utf8_lossy(page);
    for word in ["Traceback", "File", "python", "/", "wsgi"] {
        let reported = page.replace("</", "").contains(word);
        assert!(!reported, "the page has `{word}`: {page}");
    }
}

/// Processes, other than zombies, that have `mark` among their variables.
fn marked(mark: &str) -> Vec<i32> {
    let has_mark = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(has_mark).collect()
}

/// Waits until no process has `mark` among its variables.
#[track_caller]
pub(crate) fn nothing_is_left_of(mark: &str) {
    eventually(&format!("no process with {mark} is left"), || marked(mark).is_empty());
}
