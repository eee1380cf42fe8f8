//! `--timeout` and clients that stall: each request ends at its own deadline, and no other request
//! or worker suffers from that.

use std::{
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use crate::support::{
    assertions::codes,
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup},
    web_servers::eventually,
};

/// Responses that are larger than any socket's buffer, given in each way there is; and small ones.
const LARGE: &str = "
    import os, tempfile, threading, time
    SIZE = 4 << 20
    FILE = tempfile.TemporaryFile()
    FILE.write(b'f' * SIZE)
    FILE.flush()
    def pieces():
        for _ in range(SIZE >> 14):
            yield b'p' * (1 << 14)
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/body':
            body = environ['wsgi.input'].read()
        if path == '/lines':
            body = list(environ['wsgi.input'])
        if path == '/into':
            body = environ['wsgi.input'].read(100000)
        if path == '/edge':
            time.sleep(0.98)
        headers = [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))]
        write = start_response('200 OK', headers)
        if path == '/list':
            return [b'l' * SIZE]
        if path == '/pieces':
            return pieces()
        if path == '/file':
            return environ['wsgi.file_wrapper'](open('/proc/self/fd/%d' % FILE.fileno(), 'rb'))
        if path == '/write':
            for _ in range(SIZE >> 16):
                write(b'w' * (1 << 16))
            return []
        if path == '/catches':
            try:
                write(b'c' * SIZE)
            except BaseException as error:
                print('caught', type(error).__name__)
                raise
        return [path.encode('latin-1')]
    ";

/// Small requests, which are all answered by the same worker for `time`.
#[track_caller]
fn innocent_requests(pool: &Pool, worker: i32, time: Duration) {
    let begin = Instant::now();
    let mut kept = pool.connect();
    while begin.elapsed() < time {
        assert_eq!(pool.ask(&FastcgiRequest::get("/small")).pid(), worker);
        let response = kept.ask(&FastcgiRequest::get("/small").keep());
        assert_eq!((response.text().as_str(), response.pid()), ("/small", worker));
    }
}

/// Returns whether the response on a connection is cut.
fn is_cut(connection: &mut FastcgiConnection) -> bool {
    !matches!(connection.try_response(), Ok(Some(_)))
}

#[test]
fn a_client_that_does_not_read_is_cut_at_its_deadline_and_no_other_request_suffers() {
    for (threads, paths) in
        [("2", &["/list", "/pieces", "/file", "/write", "/catches"][..]), ("4", &["/list"])]
    {
        for &path in paths {
            let mut pool =
                PoolSetup::new(LARGE).args(&["--threads", threads, "--timeout", "1"]).start();
            let worker = pool.ask(&FastcgiRequest::get("/")).pid();
            let mut stalled = pool.connect();
            stalled.send(&FastcgiRequest::get(path).bytes());
            // Longer than the supervisor leaves a worker alone whose request is late.
            innocent_requests(&pool, worker, Duration::from_millis(3800));
            pool.await_log("W0604");
            assert!(is_cut(&mut stalled), "{path}");
            innocent_requests(&pool, worker, Duration::from_millis(100));
            let log = pool.stop();
            assert_eq!(codes(&log), ["W0604"], "{path}: {log}");
            assert!(
                log.contains("longer than 1 s: its client did not read the response in time"),
                "{path}: {log}"
            );
            assert_eq!(log.contains("caught Interrupted"), path == "/catches", "{log}");
        }
    }
}

#[test]
fn a_client_that_does_not_send_its_body_gets_504_at_its_deadline_and_no_other_request_suffers() {
    for path in ["/body", "/lines", "/into"] {
        let pool = PoolSetup::new(LARGE).args(&["--threads", "2", "--timeout", "1"]).start();
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        let request = FastcgiRequest::post(path, "").param("CONTENT_LENGTH", "1000000").keep();
        let mut stalled = pool.connect();
        stalled.send(&request.before_body());
        stalled.send(&request.stdin(&vec![b'x'; 70_000]));
        innocent_requests(&pool, worker, Duration::from_millis(3800));
        assert_eq!(stalled.response().valid().status, 504, "{path}");
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0604"], "{path}: {log}");
        assert!(log.contains("longer than 1 s: its body did not come in time"), "{path}: {log}");
        assert!(log.contains("in application\n"), "the stack: {log}");
    }
}

#[test]
fn the_only_thread_of_a_worker_serves_on_after_a_client_that_stalls() {
    for is_alone in [false, true] {
        let setup = PoolSetup::new(LARGE).args(&["--timeout", "1"]);
        let socket = setup.path("app.sock");
        let mut pool = if is_alone {
            setup.start_on(UnixListener::bind(socket).unwrap())
        } else {
            setup.start()
        };
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        for (count, path) in ["/list", "/pieces", "/file", "/write"].into_iter().enumerate() {
            let mut stalled = pool.connect();
            stalled.send(&FastcgiRequest::get(path).bytes());
            assert!(stalled.next().is_some(), "the response has begun");
            assert_eq!(pool.ask(&FastcgiRequest::get("/small")).pid(), worker, "{path}");
            assert!(is_cut(&mut stalled), "{path}");
            pool.await_times("its client did not read the response in time", count + 1);
        }
        let request = FastcgiRequest::post("/body", "").param("CONTENT_LENGTH", "10");
        let mut stalled = pool.connect();
        stalled.send(&request.before_body());
        assert_eq!(pool.ask(&FastcgiRequest::get("/small")).pid(), worker);
        assert_eq!(stalled.response().valid().status, 504);
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0604"; 5], "{log}");
    }
}

#[test]
fn a_request_that_finishes_at_its_deadline_interrupts_no_other() {
    for threads in ["1", "3"] {
        let pool = PoolSetup::new(LARGE).args(&["--threads", threads, "--timeout", "1"]).start();
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        let count = threads.parse().unwrap();
        for _ in 0..4 {
            let mut connections: Vec<_> = (0..count).map(|_| pool.connect()).collect();
            connections
                .iter()
                .for_each(|connection| connection.send(&FastcgiRequest::get("/edge").bytes()));
            for connection in &mut connections {
                let status = connection.response().valid().status;
                assert!([200, 504].contains(&status), "{status}");
            }
            innocent_requests(&pool, worker, Duration::from_millis(100));
        }
        let log = pool.stop();
        assert!(codes(&log).iter().all(|code| *code == "W0604"), "{log}");
    }
}

#[test]
fn a_slow_client_within_the_deadline_gets_all_and_no_request_is_interrupted() {
    let pool = PoolSetup::new(LARGE).args(&["--threads", "2", "--timeout", "3"]).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let mut slow: Vec<_> = ["/list", "/file"].map(|path| (path, pool.connect())).into();
    for (path, connection) in &slow {
        connection.send(&FastcgiRequest::get(path).bytes());
    }
    eventually("both threads are busy", || {
        let status: serde_json::Value =
            serde_json::from_slice(&pool.run_wsgate(&["status", "--json", "app"]).stdout).unwrap();
        status["workers"].as_array().unwrap().iter().filter(|thread| thread["busy"] == true).count()
            == 2
    });
    for (path, connection) in &mut slow {
        assert_eq!(connection.response().text().len(), 4 << 20, "{path}");
    }
    innocent_requests(&pool, worker, Duration::from_millis(3200));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

/// The main thread waits in C code, which no signal ends, until the other thread is interrupted.
const WAITS_IN_C: &str = "
    import ctypes, os, threading
    libc = ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/':
            pass
        elif threading.current_thread() is threading.main_thread():
            libc.pthread_mutex_lock(mutex)
        else:
            try:
                while True:
                    pass
            finally:
                libc.pthread_mutex_unlock(mutex)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'done']
    ";

#[test]
fn a_request_is_interrupted_though_the_main_thread_runs_no_python() {
    let pool = PoolSetup::new(WAITS_IN_C).args(&["--threads", "2", "--timeout", "1"]).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let mut connections: Vec<_> = (0..2).map(|_| pool.connect()).collect();
    connections
        .iter()
        .for_each(|connection| connection.send(&FastcgiRequest::get("/either").bytes()));
    let mut statuses: Vec<_> =
        connections.iter_mut().map(|connection| connection.response().valid().status).collect();
    statuses.sort_unstable();
    assert!([[200, 504], [504, 504]].contains(&[statuses[0], statuses[1]]), "{statuses:?}");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
    let log = pool.stop();
    assert!(codes(&log).iter().all(|code| *code == "W0604"), "{log}");
}

#[test]
fn a_worker_without_a_supervisor_interrupts_overdue_requests() {
    const SPINS: &str = "
        import os, time
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/spin':
                while True:
                    pass
            if environ['PATH_INFO'] == '/sleep':
                time.sleep(1000)
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'done']
        ";
    let setup = PoolSetup::new(SPINS).args(&["--timeout", "1"]);
    let socket = setup.path("app.sock");
    let pool = setup.start_on(UnixListener::bind(socket).unwrap());
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    for path in ["/spin", "/sleep"] {
        assert_eq!(pool.ask(&FastcgiRequest::get(path)).valid().status, 504, "{path}");
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0604", "W0604"], "{log}");
}
