//! `--slow-log`: slow requests and their stacks in a file of their own.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup},
        web_servers::eventually,
    },
};

/// A pool with a slow log `slow.log` beside its application, and its path.
fn logged(args: &[&str]) -> (Pool, PathBuf) {
    let setup = PoolSetup::new(GATED).gated();
    let path = setup.path("slow.log");
    let setup = setup.args(&["--slow", "1", "--slow-log", path.to_str().unwrap()]).args(args);
    (setup.start(), path)
}

/// Sends a request that waits, and returns what the file at `path` holds once it is logged.
#[track_caller]
fn slow_request(pool: &mut Pool, target: &str, path: &PathBuf) -> String {
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get(target).bytes());
    let mut held = String::new();
    eventually("the request is logged", || {
        held = fs::read_to_string(path).unwrap_or_default();
        held.contains(target) && held.ends_with('\n')
    });
    pool.open_gate();
    assert_eq!(connection.response().text(), format!("{target}|"));
    held
}

#[test]
fn a_slow_request_is_one_message_with_its_stacks_in_the_slow_log_alone() {
    for threads in ["1", "3"] {
        let (mut pool, path) = logged(&["--name", "shop", "--threads", threads]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        let held = slow_request(&mut pool, "/slow", &path);
        let lines: Vec<_> = held.lines().collect();
        assert!(lines[0].contains("Z [shop] wsgate: warning[W0605]: the request `"), "{held}");
        assert!(lines[0].contains("GET /slow` has been running for 1."), "{held}");
        assert!(lines[1].starts_with("  Process ") && lines[1].ends_with(": worker"), "{held}");
        assert!(lines[2].starts_with("  Thread 0 ") && lines[2].contains("GET /slow"), "{held}");
        let frame = |line: &&str| line.starts_with("      application (/");
        assert!(lines.iter().any(frame) && held.contains("app.wsgi:"), "{held}");
        assert_eq!(held.matches("W0605").count(), 1, "{held}");
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
        assert!(!log.contains("GET /slow"), "{log}");
    }
}

#[test]
fn a_record_of_json_has_the_stacks_as_its_detail() {
    let (mut pool, path) = logged(&["--log-format", "json"]);
    let held = slow_request(&mut pool, "/slow", &path);
    pool.stop();
    assert_eq!(held.lines().count(), 1, "{held}");
    let record: Value = serde_json::from_str(&held).unwrap();
    assert_eq!((&record["log"], &record["code"]), (&"error".into(), &"W0605".into()), "{record}");
    assert_eq!((&record["method"], &record["target"]), (&"GET".into(), &"/slow".into()));
    assert!(record["request_id"].is_string(), "{record}");
    let stacks = record["detail"].as_str().unwrap();
    assert!(!stacks.ends_with('\n'), "{record}");
    assert!(stacks.contains(": worker\n") && stacks.contains("    application (/"), "{record}");
}

#[test]
fn usr1_reopens_the_slow_log() {
    let (mut pool, path) = logged(&[]);
    let renamed = path.with_extension("old");
    fs::rename(&path, &renamed).unwrap();
    pool.signal(Signal::USR1);
    pool.await_log("W0742");
    let held = slow_request(&mut pool, "/slow-after", &path);
    assert!(held.contains("application (/"), "{held}");
    assert_eq!(fs::read_to_string(renamed).unwrap(), "");
    pool.stop();
}

#[test]
fn what_the_slow_log_cannot_take_is_in_the_error_log() {
    let args = ["--slow", "1", "--slow-log", "/dev/full"];
    let mut pool = PoolSetup::new(GATED).gated().args(&args).start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("W0605");
    pool.open_gate();
    connection.response();
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0744", "W0605"], "{log}");
    assert!(log.contains("`/dev/full`: No space left on device"), "{log}");
    assert!(log.contains("GET /slow` has been") && log.contains("application (/"), "{log}");
}

#[test]
fn a_slow_log_that_has_no_effect_or_cannot_be_opened_is_refused() {
    for (args, status, said) in [
        (&["--slow-log", "/dev/null"][..], 2, "--slow-log has no effect without --slow"),
        (&["--slow", "0", "--slow-log", "/dev/null"], 2, "--slow-log has no effect without --slow"),
        (&["--slow", "1", "--slow-log", "-"], 2, "slow requests are in the error log without"),
        (&["--slow", "1", "--slow-log", "/no/such/s.log"], 78, "`/no/such/s.log`"),
    ] {
        let refused = PoolSetup::new(GATED).args(args).launch().end();
        assert_eq!(refused.code(), Some(status), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(said), "{args:?}: {}", refused.stderr);
    }
}
