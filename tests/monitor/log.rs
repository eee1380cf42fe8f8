//! The monitor's own log messages, by the rules of the messages of a pool.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    monitor::command,
    support::{child_process::RunningProcess, web_servers::eventually},
};

/// The log of a monitor that has started with `args` and was stopped. With `is_journal`, standard
/// error is the stream that `JOURNAL_STREAM` names.
fn log_of(args: &[&str], is_journal: bool) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut command = prepared(directory.path(), args, &path);
    let found = fs::metadata(&path).unwrap();
    let inode = if is_journal { found.ino() } else { found.ino() + 1 };
    command.env("JOURNAL_STREAM", format!("{}:{inode}", found.dev()));
    let running = RunningProcess::start(&mut command);
    eventually("the monitor answers", || fs::read_to_string(&path).unwrap().contains("W0760"));
    running.signal(Signal::TERM);
    running.end();
    fs::read_to_string(&path).unwrap()
}

fn prepared(run: &Path, args: &[&str], log: &Path) -> Command {
    let mut command = command(run, &[&["--listen", "127.0.0.1:0"], args].concat());
    command.stdout(Stdio::null()).stderr(fs::File::create(log).unwrap());
    command
}

#[test]
fn a_message_of_the_monitor_begins_with_a_time_and_its_name() {
    let log = log_of(&[], false);
    let (time, rest) = log.split_once(' ').unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{log}");
    assert!(rest.starts_with("[monitor] wsgate: notice[W0760]: "), "{log}");
}

#[test]
fn a_message_of_the_monitor_in_the_journal_begins_with_its_priority() {
    let log = log_of(&[], true);
    assert!(log.starts_with("<5>wsgate: notice[W0760]: "), "{log}");
    assert!(log.lines().all(|line| line.starts_with("<5>")), "{log}");
}

#[test]
fn a_message_of_the_monitor_is_one_object_with_log_format_json() {
    for is_journal in [false, true] {
        let log = log_of(&["--log-format", "json"], is_journal);
        let line = log.strip_prefix("<5>").unwrap_or(&log);
        assert_eq!(log.starts_with('<'), is_journal, "{log}");
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&record["code"], &record["pool"]), (&"W0760".into(), &"monitor".into()));
        assert!(record["message"].as_str().unwrap().contains("http://127.0.0.1:"), "{log}");
    }
}
