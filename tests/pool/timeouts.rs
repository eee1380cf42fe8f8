//! Requests that take long: logged, interrupted, and in the end killed, while the pool answers for
//! itself.

use rustix::process::Signal;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, signal},
        web_servers::eventually,
    },
};

/// Hangs at `/hang`, and takes no notice of being interrupted at `/hold`.
const HANGS: &str = "
    import os, time
    def hold():
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                print('caught')
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/hang':
            time.sleep(1000)
        if path == '/hold':
            hold()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [path.encode('latin-1')]
    ";

#[test]
fn a_slow_request_is_logged_once_with_the_stacks_of_its_worker_and_finishes() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--slow", "1"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("W0605");
    pool.await_log("in application\n");
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0605"], "{log}");
    assert!(log.contains("GET /slow` has been running for "), "{log}");
    assert!(log.contains("app.wsgi\", line "), "{log}");
}

#[test]
fn a_request_that_hangs_is_interrupted_with_504_and_its_worker_keeps_running() {
    let pool = PoolSetup::new(HANGS).args(&["--timeout", "1"]).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let response = pool.ask(&FastcgiRequest::get("/hang"));
    assert_eq!(response.valid().status, 504, "{response:?}");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0604"], "{log}");
    assert!(
        log.contains("in application\n") && log.contains("time.sleep(1000)"),
        "the stack: {log}"
    );
}

#[test]
fn a_worker_whose_request_cannot_be_interrupted_is_killed_and_named_with_it() {
    let mut pool = PoolSetup::new(HANGS).args(&["--timeout", "1"]).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/hold").bytes());
    assert!(!matches!(connection.try_response(), Ok(Some(_))), "a response that was never made");
    pool.await_log("W0701");
    assert_ne!(pool.ask(&FastcgiRequest::get("/after")).pid(), worker);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0604", "W0701"], "{log}");
    assert!(log.contains("caught\n"), "it was interrupted first: {log}");
    assert!(log.contains("could not be interrupted") && log.contains("in hold\n"), "{log}");
    assert!(log.contains("was killed by SIGABRT") && log.contains("  it was serving `"), "{log}");
    assert!(log.contains("GET /hold`"), "{log}");
}

#[test]
fn the_pool_answers_commands_while_every_worker_is_stuck_and_can_be_stopped() {
    let pool = PoolSetup::new(HANGS).args(&["--workers", "2", "--drain", "1"]).start();
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let connection = pool.connect();
            connection.send(&FastcgiRequest::get("/hold").bytes());
            connection
        })
        .collect();
    let busy = || {
        let status: serde_json::Value =
            serde_json::from_slice(&pool.run_wsgate(&["status", "--json", "app"]).stdout).unwrap();
        let workers = status["workers"].as_array().unwrap().clone();
        workers.iter().filter(|worker| worker["busy"] == true).count()
    };
    eventually("both are busy", || busy() == 2);
    pool.workers(2).into_iter().for_each(|worker| signal(worker, Signal::STOP));
    assert_eq!(busy(), 2);
    assert!(pool.run_wsgate(&["status", "app"]).text().contains(" GET /hold "));
    assert_eq!(pool.run_wsgate(&["stop", "app"]).code(), Some(0));
    assert_eq!(pool.end().code(), Some(0));
    drop(stuck);
}
