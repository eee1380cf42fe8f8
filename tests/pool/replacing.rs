//! Workers that have served, lived or grown long enough are replaced, and nobody notices.

use std::{collections::BTreeMap, os::unix::net::UnixListener};

use crate::{
    pool::{ECHO, GATED},
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{PoolSetup, children},
        web_servers::eventually,
    },
};

/// Takes 30 MB more at each request, and keeps them.
const GROWS: &str = "
    import os
    kept = []
    def application(environ, start_response):
        environ['wsgi.input'].read()
        if environ['PATH_INFO'] == '/grow':
            kept.append(b'x' * 30_000_000)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'served']
    ";

#[test]
fn workers_exit_after_max_requests_or_a_tenth_fewer() {
    let pool = PoolSetup::new(ECHO).args(&["--max-requests", "30"]).start();
    let mut workers: Vec<(i32, u32)> = Vec::new();
    for _ in 0..400 {
        let pid = pool.ask(&FastcgiRequest::get("/")).pid();
        match workers.iter_mut().find(|(known, _)| *known == pid) {
            Some((_, count)) => *count += 1,
            None => workers.push((pid, 1)),
        }
    }
    // A worker that is to end takes one more connection, which it may have been woken for.
    let (_, whole) = workers.split_last().unwrap();
    assert!(whole.iter().all(|(_, count)| (27..=31).contains(count)), "{workers:?}");
    let mut counts = BTreeMap::new();
    whole.iter().for_each(|(_, count)| *counts.entry(count).or_insert(0) += 1);
    assert!(counts.len() > 1, "all have the same limit: {counts:?}");
    let log = pool.stop();
    assert!(log.contains("notice[W0708]") && log.contains("--max-requests reached"), "{log}");
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn an_old_worker_is_replaced_and_none_of_its_requests_fails() {
    for args in [&["--workers", "2"][..], &["--max", "2", "--min", "1"]] {
        let setup = PoolSetup::new(ECHO);
        let setup = if args[0] == "--max" { setup.dynamic(args) } else { setup.args(args) };
        let mut pool = setup.args(&["--max-age", "1"]).start();
        let first = pool.ask(&FastcgiRequest::get("/")).pid();
        eventually("another worker answers", || {
            pool.ask(&FastcgiRequest::post("/", "body")).pid() != first
        });
        pool.await_log("s old");
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
        assert!(log.contains("notice[W0708]"), "{log}");
    }
}

#[test]
fn the_next_worker_serves_while_the_old_one_finishes_its_request() {
    let mut pool =
        PoolSetup::new(GATED).gated().args(&["--max-age", "1", "--drain", "1000"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    let old = pool.workers(1)[0];
    let response = pool.ask(&FastcgiRequest::get("/meanwhile"));
    assert_eq!(response.text(), "/meanwhile|");
    assert_ne!(response.pid(), old);
    pool.open_gate();
    let response = slow.response();
    assert_eq!((response.text().as_str(), response.pid()), ("/slow|", old));
    // The worker may not have received SIGTERM yet.
    eventually("the connection is another's", || {
        slow.ask(&FastcgiRequest::get("/after").keep()).pid() != old
    });
    pool.stop();
}

#[test]
fn a_worker_that_has_grown_is_replaced_after_its_requests() {
    for threads in ["1", "3"] {
        let mut pool =
            PoolSetup::new(GROWS).args(&["--max-rss", "100M", "--threads", threads]).start();
        let first = pool.ask(&FastcgiRequest::get("/small")).pid();
        for _ in 0..4 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/grow")).text(), "served");
        }
        pool.await_log("MiB of memory");
        eventually("another worker answers", || {
            pool.ask(&FastcgiRequest::get("/small")).pid() != first
        });
        eventually("the first has ended", || !pool.workers(1).contains(&first));
        // Workers that do not grow are not replaced.
        let second = pool.ask(&FastcgiRequest::get("/small")).pid();
        (0..20).for_each(|_| assert_eq!(pool.ask(&FastcgiRequest::get("/small")).pid(), second));
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
        assert!(log.contains("notice[W0708]"), "{log}");
    }
}

#[test]
fn a_pool_whose_application_is_larger_than_it_may_be_serves_all_the_same() {
    let pool = PoolSetup::new(ECHO).args(&["--max-rss", "1M", "--workers", "2"]).start();
    for number in 0..30 {
        assert_eq!(
            pool.ask(&FastcgiRequest::post(&format!("/{number}"), "body")).text(),
            format!("/{number}|body")
        );
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_lone_worker_exits_at_its_limits_of_requests_age_and_memory() {
    for (args, why) in [
        (["--max-requests", "3"], "--max-requests reached (3 requests served)"),
        (["--max-rss", "60M"], "--max-rss reached"),
        (["--max-age", "1"], "--max-age reached (1 s)"),
    ] {
        let setup = PoolSetup::new(GROWS).args(&args);
        let socket = setup.path("app.sock");
        let pool = setup.start_on(UnixListener::bind(&socket).unwrap());
        // At first it may look for its user.
        eventually("it has no child process", || children(pool.pid()).is_empty());
        let mut asked = 0;
        // The worker exits by itself. Without a process manager no worker follows.
        while asked < 3 && (asked == 0 || args[0] != "--max-age") {
            assert_eq!(
                FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/grow")).text(),
                "served"
            );
            asked += 1;
            if args[0] == "--max-rss" && asked == 2 {
                break;
            }
        }
        let ended = pool.end();
        assert_eq!(ended.code(), Some(0), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{args:?}: {}", ended.stderr);
    }
}
