//! Signals that mean nothing to a pool, and files that may not grow: nobody is ended by them.

use std::fs::{
    File, {self},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::{
    pool::ECHO,
    support::{
        assertions::codes,
        child_process::run,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, signal},
        web_servers::eventually,
    },
};

/// Signals that only timers, limits and the system send.
const STRAY: [Signal; 7] = [
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::XCPU,
    Signal::IO,
    Signal::POWER,
    Signal::STKFLT,
];

#[test]
fn a_supervisor_keeps_running_after_unused_signals_and_logs_each_once() {
    let mut pool = PoolSetup::new(ECHO).start();
    let worker = pool.workers(1);
    for (number, stray) in STRAY.into_iter().enumerate() {
        pool.signal(stray);
        pool.await_times("W0732", number + 1);
        pool.signal(stray);
    }
    pool.signal(Signal::XFSZ);
    // The first and the last of real time, which have no names.
    // The first ones are the C library's own.
    for number in ["36", "64"] {
        let mut kill = std::process::Command::new("/bin/kill");
        let sent = run(kill.args([format!("-{number}"), pool.pid().to_string()]), "");
        assert_eq!(sent.code(), Some(0), "{}", sent.stderr);
        pool.await_log(&format!("signal {number}"));
    }
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    assert_eq!(pool.workers(1), worker);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0732"; 9], "{log}");
    assert!(log.contains("ulimit -t"), "{log}");
}

#[test]
fn sigquit_stops_a_pool_gracefully() {
    let pool = PoolSetup::new(ECHO).start();
    pool.signal(Signal::QUIT);
    let ended = pool.end();
    assert_eq!((ended.code(), codes(&ended.stderr).len()), (Some(0), 0), "{}", ended.stderr);
}

#[test]
fn a_template_keeps_running_after_unused_signals() {
    for preload in ["yes", "no"] {
        let pool = PoolSetup::new(ECHO).args(&["--preload", preload]).start();
        // A worker that has not served counts as one that cannot start.
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
        let (template, worker) = (pool.template(), pool.workers(1)[0]);
        for stray in STRAY.into_iter().chain([Signal::HUP, Signal::USR1, Signal::USR2]) {
            signal(template, stray);
        }
        // A worker that is forked now has none of them handled.
        signal(worker, Signal::ALARM);
        eventually("another worker serves", || pool.workers(1)[0] != worker);
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
        assert_eq!(pool.template(), template);
        signal(pool.workers(1)[0], Signal::PROF);
        eventually("another worker serves", || {
            pool.ask(&FastcgiRequest::get("/")).valid().status == 200
        });
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0701"; 2], "{log}");
        assert!(log.contains("killed by SIGALRM") && log.contains("killed by SIGPROF"), "{log}");
    }
}

#[test]
fn a_pool_outlives_a_log_that_may_not_grow() {
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("error.log");
    let pool = setup.launch_to(File::create(&path).unwrap());
    let log = || fs::read_to_string(&path).unwrap();
    eventually("it serves", || log().contains("W0710"));
    let supervisor = Pid::from_raw(pool.pid());
    let limit = |bytes| {
        prlimit(supervisor, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap()
    };
    limit(Some(1));
    let worker = pool.workers(1)[0];
    signal(worker, Signal::KILL);
    eventually("another worker serves", || pool.workers(1)[0] != worker);
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    assert!(!log().contains("W0701"));
    limit(None);
    pool.signal(Signal::HUP);
    eventually("it logs again", || log().contains("W0711"));
    pool.stop();
}
