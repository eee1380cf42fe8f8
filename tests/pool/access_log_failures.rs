//! An access log on a full disk, or one that cannot be opened.

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    pool::{
        ECHO,
        access_log::{lines, logged, parts},
        only_log_message,
    },
    support::{
        assertions::codes, child_process::run, fastcgi_client::FastcgiRequest, pool::PoolSetup,
    },
};

#[test]
fn a_full_disk_costs_lines_and_one_log_message_and_no_response() {
    let pool = PoolSetup::new(ECHO).args(&["--access-log", "/dev/full"]).start();
    let mut connection = pool.connect();
    for _ in 0..20 {
        assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).text(), "/|");
    }
    let log = pool.stop();
    assert!(only_log_message(&log, "W0740").contains("No space left"), "{log}");
}

/// A file system that is full to the last byte takes a part of a line.
#[test]
fn a_line_that_is_torn_by_a_full_disk_spoils_none_that_follows() {
    let mut pool = logged(ECHO, &[]);
    let worker = Pid::from_raw(pool.workers(1)[0]);
    pool.ask(&FastcgiRequest::get("/whole"));
    let size: u64 = lines(&pool, 1)[0].len() as u64 + 1;
    let limit =
        |bytes| prlimit(worker, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    limit(Some(size + 20));
    assert_eq!(pool.ask(&FastcgiRequest::get("/torn")).text(), "/torn|");
    pool.await_log("W0740");
    limit(None);
    pool.ask(&FastcgiRequest::get("/after"));
    let lines = lines(&pool, 3);
    assert!(lines[1].len() == 20 && !lines[1].contains('"'), "{lines:?}");
    assert!(
        lines[0].contains("\"GET /whole ") && parts(&lines[2]).0[0] == "GET /after HTTP/1.1",
        "{lines:?}"
    );
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0740"; 2], "{log}");
    assert!(log.contains("lines of this process that were lost: 1\n"), "{log}");
}

#[test]
fn a_log_that_cannot_be_opened_is_a_wrong_setting() {
    for (word, path) in
        [("--access-log", "not there/access.log"), ("--error-log", "not there/error.log")]
    {
        let setup = PoolSetup::new(ECHO);
        let log = setup.path(path).display().to_string();
        let setup = setup.args(&[word, &log]);
        let ended = run(&mut setup.command(), "");
        assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
        let line = only_message_of_a_command(&ended.stderr);
        assert!(line.contains("W0105") && line.contains(&log), "{line}");
        assert!(!setup.path("app.sock").exists());
    }
    // Nobody reads this pipe, and nobody waits for that.
    let setup = PoolSetup::new(ECHO);
    let pipe = setup.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let setup = setup.args(&["--access-log", pipe.to_str().unwrap()]);
    assert_eq!(run(&mut setup.command(), "").code(), Some(78));
}

/// The first line of the one log message that a command has ended with.
#[track_caller]
fn only_message_of_a_command(stderr: &str) -> &str {
    assert_eq!(
        (stderr.matches("wsgate: ").count(), stderr.matches("hint: ").count()),
        (1, 1),
        "{stderr}"
    );
    stderr.lines().next().unwrap()
}
