//! The end of a pool: requests are finished, nothing is left, and nobody waits longer than was
//! said.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    pool::{ECHO, GATED},
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, children, count, signal},
        web_servers::eventually,
    },
};

#[test]
fn f45_f46_a_pool_that_is_asked_to_stop_exits_at_once_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
        let mut kept = pool.connect();
        kept.ask(&FastcgiRequest::get("/").keep());
        let begin = Instant::now();
        pool.signal(signal);
        kept.assert_closed();
        let ended = pool.end();
        assert_eq!((ended.code(), codes(&ended.stderr).len()), (Some(0), 0), "{}", ended.stderr);
        assert!(ended.stderr.contains("W0712"), "{}", ended.stderr);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

#[test]
fn a_request_that_is_being_served_is_finished() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::post("/slow", "body").bytes());
    pool.await_log("at the gate");
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|body");
    slow.assert_closed();
    let (ended, setup) = pool.end_and_leave();
    assert_eq!((ended.code(), setup.path("app.sock").exists()), (Some(0), false));
    assert_eq!(codes(&ended.stderr), [""; 0], "{}", ended.stderr);
}

#[test]
fn a_request_whose_body_is_still_coming_is_finished() {
    let mut pool = PoolSetup::new(
        "
        def application(environ, start_response):
            print('reads')
            body = environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [body]
        ",
    )
    .start();
    let mut connection = pool.connect();
    let request = FastcgiRequest::post("/", "the body");
    connection.send(&request.before_body());
    connection.send(&request.stdin(b"the "));
    pool.await_log("reads");
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().text(), "the body");
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_request_that_waits_on_a_keep_alive_connection_is_finished() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut kept = pool.connect();
    kept.ask(&FastcgiRequest::get("/").keep());
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    kept.send(&FastcgiRequest::post("/waits", "body").keep().bytes());
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    assert_eq!(kept.response().text(), "/waits|body");
    kept.assert_closed();
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_second_signal_stops_a_pool_at_once() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--drain", "1000"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    pool.signal(Signal::TERM);
    assert!(!matches!(slow.try_response(), Ok(Some(_))));
    let (ended, setup) = pool.end_and_leave();
    assert_eq!((ended.code(), setup.path("app.sock").exists()), (Some(0), false));
}

#[test]
fn a_request_that_exceeds_the_stop_timeout_is_ended() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--drain", "1"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.signal(Signal::TERM);
    assert!(!matches!(slow.try_response(), Ok(Some(_))));
    let ended = pool.end();
    assert_eq!((ended.code(), codes(&ended.stderr)), (Some(0), vec!["W0733"]), "{}", ended.stderr);
    assert!(ended.stderr.contains(" GET /slow`\nhint: "), "{}", ended.stderr);
}

#[test]
fn a_pool_that_is_asked_to_stop_right_after_its_start_stops() {
    for _ in 0..10 {
        let pool = PoolSetup::new(ECHO).args(&["--workers", "4"]).start();
        pool.signal(Signal::TERM);
        assert_eq!(pool.end().code(), Some(0));
    }
}

#[test]
fn a_pool_that_is_asked_to_stop_while_the_application_is_loaded_stops() {
    let setup = PoolSetup::new(
        "
        import os
        print('loading')
        os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
        def application(environ, start_response):
            raise RuntimeError
        ",
    )
    .gated();
    let mut pool = setup.launch();
    pool.await_log("loading");
    pool.signal(Signal::TERM);
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(
        (ended.code(), setup.path("app.sock").exists()),
        (Some(0), false),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_pool_that_is_asked_to_stop_while_new_code_is_loaded_stops() {
    let mut pool = PoolSetup::new(ECHO).gated().start();
    pool.setup().release(
        "
        import os
        print('loading')
        os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
        ",
    );
    pool.signal(Signal::HUP);
    pool.await_log("loading");
    assert_eq!(pool.ask(&FastcgiRequest::get("/meanwhile")).text(), "/meanwhile|");
    pool.stop();
}

#[test]
fn exit_handlers_of_an_application_run() {
    let mut pool = PoolSetup::new(
        "
        import atexit
        def application(environ, start_response):
            atexit.register(print, 'the last word')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'']
        ",
    )
    .start();
    pool.ask(&FastcgiRequest::get("/"));
    pool.signal(Signal::TERM);
    pool.await_log("the last word\n");
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn all_threads_of_a_worker_finish_their_requests() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--threads", "3"]).start();
    let worker = pool.workers(1)[0];
    let mut slow = ["/slow/1", "/slow/2"].map(|path| {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        connection
    });
    pool.await_log("at the gate: /slow/1");
    pool.await_log("at the gate: /slow/2");
    assert_eq!(count(worker, "task"), 3);
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    pool.open_gate();
    pool.open_gate();
    for connection in &mut slow {
        assert!(connection.response().text().starts_with("/slow/"));
    }
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_template_that_the_application_keeps_from_exiting_does_not_delay_the_pool() {
    let pool = PoolSetup::new(
        "
        import atexit, os, signal
        at = os.getpid()
        def stay():
            while os.getpid() == at:
                signal.pause()
        atexit.register(stay)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'served']
        ",
    )
    .args(&["--drain", "1"])
    .start();
    let old = pool.template();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "served");
    // A template that new code has replaced exits, too.
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    eventually("the template of the old code has ended", || !children(pool.pid()).contains(&old));
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0718", "W0718"], "{log}");
}

#[test]
fn a_worker_that_the_application_keeps_from_exiting_blocks_no_slot() {
    let mut pool = PoolSetup::new(
        "
        import atexit, signal
        def stay():
            while True:
                signal.pause()
        def application(environ, start_response):
            atexit.register(stay)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'served']
        ",
    )
    .args(&["--workers", "1", "--max-requests", "1", "--drain", "1"])
    .start();
    for times in 1..=2 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "served");
        pool.await_times("W0705", times);
    }
    pool.stop();
}

#[test]
fn a_pool_whose_template_and_worker_are_suspended_stops() {
    let pool = PoolSetup::new(ECHO).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    for pid in [worker, pool.template()] {
        signal(pid, Signal::STOP);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
