//! Supervisors that are stopped by a signal, or were killed, beside pools that run.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    pool::ECHO,
    support::{
        pool::{Pool, PoolSetup, signal},
        web_servers::eventually,
    },
};

/// Two pools in one runtime directory: `app`, and `other`.
fn two_pools() -> (Pool, Pool) {
    let pool = PoolSetup::new(ECHO).start();
    let other = PoolSetup::new(ECHO).args(&["--name", "other"]);
    let other = other.variable("WSGATE_RUNTIME_DIR", pool.setup().path("run")).start();
    (pool, other)
}

#[test]
fn a_stopped_supervisor_is_named_at_once_with_the_command_that_continues_it() {
    let (pool, other) = two_pools();
    signal(pool.pid(), Signal::STOP);
    let sentence = format!("its supervisor, process {}, is stopped by a signal", pool.pid());
    let command = format!("kill -CONT {}", pool.pid());
    let begun = Instant::now();
    let mut texts = Vec::new();
    for args in [
        &["status"][..],
        &["status", "app"],
        &["reload", "app"],
        &["reload", "--binary", "app"],
        &["stop", "app"],
        &["stacks", "app"],
    ] {
        let ended = pool.run_wsgate(args);
        assert_eq!(ended.code(), Some(1), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("W0905"), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&sentence), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&command), "{args:?}: {}", ended.stderr);
        texts.push(ended.text());
    }
    let top = pool.run_wsgate(&["top", "-n", "1"]).text();
    // Each of them would take its limit of 3 s if it waited.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(texts[0].starts_with("other "), "{texts:?}");
    assert!(top.contains(&sentence) && top.contains(&command), "{top}");
    assert!(top.contains("\nother "), "{top}");
    signal(pool.pid(), Signal::CONT);
    eventually("it answers again", || pool.run_wsgate(&["status"]).code() == Some(0));
    pool.stop();
    other.stop();
}

#[test]
fn a_killed_supervisor_is_named_until_its_socket_is_removed() {
    let (pool, other) = two_pools();
    let control = pool.setup().path("run/app.pool");
    signal(pool.pid(), Signal::KILL);
    eventually("it is named", || {
        let ended = pool.run_wsgate(&["status"]);
        ended.code() == Some(1) && ended.stderr.contains("the pool `app` was killed")
    });
    for args in [["status", "app"], ["reload", "app"], ["stop", "app"]] {
        let ended = pool.run_wsgate(&args);
        assert_eq!(ended.code(), Some(1), "{args:?}");
        let remedy =
            format!("start the pool again, or remove the socket: rm {}", control.display());
        assert!(ended.stderr.contains("the pool `app` was killed"), "{}", ended.stderr);
        assert!(ended.stderr.contains(&remedy), "{}", ended.stderr);
    }
    std::fs::remove_file(control).unwrap();
    assert_eq!(pool.run_wsgate(&["status"]).code(), Some(0));
    other.stop();
}
