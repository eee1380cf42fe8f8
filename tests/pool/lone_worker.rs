//! A worker without a supervisor, as mod_fcgid, lighttpd and spawn-fcgi start it: no hang of the
//! application keeps it, and the log says where it was.

use std::{
    os::unix::{net::UnixListener, process::ExitStatusExt as _},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    child_process::ExitedProcess,
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup},
};

/// Hangs in several ways, and says so in the log first.
const HANGS: &str = "
    import ctypes, os, sys, time
    def application(environ, start_response):
        path = environ['PATH_INFO']
        print('begun', path)
        if path == '/sleep':
            time.sleep(1000)
        if path == '/spin':
            while True:
                pass
        if path == '/c':
            # Never releases the interpreter, and no signal ends the loop.
            libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)
        if path == '/catches':
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
        if path == '/slow':
            time.sleep(2.5)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'done']
    ";

#[track_caller]
fn start(args: &[&str]) -> Pool {
    let setup = PoolSetup::new(HANGS).args(args);
    let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
    setup.start_on(listener)
}

/// Asserts that the worker has been ended within this time, and with its stacks in the log.
#[track_caller]
fn was_ended(pool: Pool, begin: Instant, limit: Duration, code: &str) -> ExitedProcess {
    let ended = pool.end();
    assert!(begin.elapsed() < limit, "{:?}: {}", begin.elapsed(), ended.stderr);
    assert_eq!(ended.status.signal(), Some(Signal::ABORT.as_raw()), "{ended:?}");
    assert_eq!(codes(&ended.stderr), [code], "{}", ended.stderr);
    assert!(ended.stderr.contains(" in application"), "{}", ended.stderr);
    ended
}

#[test]
fn a_hang_that_cannot_be_interrupted_kills_the_worker() {
    for threads in ["1", "8"] {
        for path in ["/c", "/catches"] {
            let pool = start(&["--timeout", "1", "--threads", threads]);
            let connection = pool.connect();
            let begin = Instant::now();
            connection.send(&FastcgiRequest::get(path).bytes());
            let ended = was_ended(pool, begin, Duration::from_secs(12), "W0604");
            assert!(ended.stderr.contains("could not be interrupted after"), "{}", ended.stderr);
            assert!(
                begin.elapsed() > Duration::from_secs(2),
                "{path}: it has time to end by itself"
            );
        }
    }
}

#[test]
fn a_slow_request_is_logged_with_the_stacks_and_continues() {
    for (threads, timeout) in [("1", "0"), ("8", "0"), ("1", "60")] {
        let mut pool = start(&["--slow", "1", "--threads", threads, "--timeout", timeout]);
        let mut connection = pool.connect();
        connection.send(&FastcgiRequest::get("/slow").bytes());
        pool.await_log("W0605");
        assert_eq!(connection.response().text(), "done");
        pool.await_log(" in application");
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0605"], "{log}");
    }
}

#[test]
fn a_worker_that_is_asked_to_stop_while_it_hangs_exits_within_a_limit() {
    for threads in ["1", "8"] {
        for path in ["/sleep", "/spin", "/c", "/catches"] {
            let mut pool = start(&["--drain", "2", "--threads", threads]);
            let connection = pool.connect();
            connection.send(&FastcgiRequest::get(path).bytes());
            pool.await_log("begun");
            let begin = Instant::now();
            pool.signal(Signal::TERM);
            let ended = was_ended(pool, begin, Duration::from_secs(10), "W0612");
            assert!(
                ended.stderr.contains("was asked to stop and still runs after 2 s"),
                "{}",
                ended.stderr
            );
            assert!(begin.elapsed() > Duration::from_millis(1800), "{path}: {:?}", begin.elapsed());
        }
    }
}

#[test]
fn a_worker_that_is_asked_to_stop_finishes_its_request_first() {
    for threads in ["1", "8"] {
        let mut pool = start(&["--drain", "20", "--threads", threads]);
        let mut connections: Vec<FastcgiConnection> = vec![pool.connect()];
        connections[0].send(&FastcgiRequest::get("/slow").bytes());
        pool.await_log("begun");
        pool.signal(Signal::TERM);
        pool.signal(Signal::TERM);
        assert_eq!(connections[0].response().text(), "done");
        let log = pool.end();
        assert!(log.status.success(), "{log:?}");
        assert_eq!(codes(&log.stderr), [""; 0], "{}", log.stderr);
    }
}

#[test]
fn a_worker_that_is_asked_to_stop_and_continues_logs_its_stack() {
    for path in ["/sleep", "/c"] {
        let mut pool = start(&["--drain", "30"]);
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        pool.await_log("begun");
        pool.signal(Signal::TERM);
        pool.await_log("W0611");
        pool.await_log(" in application");
        pool.signal(Signal::KILL);
        let log = pool.end().stderr;
        assert_eq!(codes(&log), ["W0611"], "{log}");
    }
}

#[test]
fn a_thread_that_does_not_end_has_no_longer_than_the_drain_timeout() {
    let code = "
        import threading, time
        def application(environ, start_response):
            threading.Thread(target=time.sleep, args=(600,)).start()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    let setup = PoolSetup::new(code).args(&["--drain", "3", "--timeout", "60"]);
    let listener = UnixListener::bind(setup.path("app.sock")).unwrap();
    let pool = setup.start_on(listener);
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "done");
    let begin = Instant::now();
    pool.signal(Signal::TERM);
    let ended = pool.end();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}: {ended:?}", begin.elapsed());
}
