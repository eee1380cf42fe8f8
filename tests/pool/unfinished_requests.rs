//! Connections whose requests do not come to their end: each wait is bounded, and nobody else
//! waits.

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    time::{Duration, Instant},
};

use crate::{
    pool::ECHO,
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest, PARAMS, record},
        pool::{Pool, PoolSetup, count, resident},
        web_servers::eventually,
    },
};

/// A pool, or a worker without one, and how to connect to it.
struct ServedPool {
    pool: Pool,
    tcp: Option<String>,
}

/// How it is served: by a pool or a lone worker, over a Unix socket or TCP.
const WAYS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

impl ServedPool {
    #[track_caller]
    fn start((is_lone, is_tcp): (bool, bool), args: &[&str]) -> Self {
        let setup = PoolSetup::new(ECHO).args(args);
        match (is_lone, is_tcp) {
            (false, false) => Self { pool: setup.start(), tcp: None },
            (true, false) => {
                let socket = UnixListener::bind(setup.path("app.sock")).unwrap();
                Self { pool: setup.start_on(socket), tcp: None }
            }
            (is_lone, true) => {
                let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
                let tcp = Some(listener.local_addr().unwrap().to_string());
                let pool = if is_lone {
                    setup.start_on(listener)
                } else {
                    drop(listener);
                    setup.listen(&[tcp.as_deref().unwrap()]).start()
                };
                Self { pool, tcp }
            }
        }
    }

    #[track_caller]
    fn connect(&self) -> FastcgiConnection {
        self.tcp
            .as_ref()
            .map_or_else(|| self.pool.connect(), |address| FastcgiConnection::tcp(address))
    }

    /// Requests on new connections are answered, each soon.
    #[track_caller]
    fn requests(&self) {
        for _ in 0..10 {
            let begin = Instant::now();
            assert_eq!(self.connect().ask(&FastcgiRequest::get("/live")).text(), "/live|");
            assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        }
    }
}

/// Beginnings of a request.
fn beginnings() -> [Vec<u8>; 3] {
    let request = FastcgiRequest::get("/").keep();
    let params = [request.begin(), record(PARAMS, 1, &request.pairs())].concat();
    [request.begin()[..4].to_vec(), request.begin(), params]
}

#[test]
fn requests_that_begin_and_do_not_arrive_have_a_deadline_in_every_mode() {
    for way in WAYS {
        for threads in ["1", "8"] {
            let served = ServedPool::start(way, &["--threads", threads, "--header-timeout", "2"]);
            let worker = served.connect().ask(&FastcgiRequest::get("/")).pid();
            let open = count(worker, "fd");
            let beginnings = beginnings();
            let begun: Vec<FastcgiConnection> = (0..999)
                .map(|number| {
                    let mut connection = served.connect();
                    if number % 2 == 0 {
                        connection.ask(&FastcgiRequest::get("/kept").keep());
                    }
                    connection.send(&beginnings[number % 3]);
                    connection
                })
                .collect();
            served.requests();
            for mut connection in begun {
                assert!(matches!(connection.try_next(), Ok(None) | Err(_)), "{way:?}: closed");
            }
            served.requests();
            eventually("all are closed", || count(worker, "fd") <= open + 1);
            let log = served.pool.stop();
            assert_eq!(codes(&log), ["W0403", "W0403"], "{way:?}: {log}");
            assert!(log.contains("did not arrive within 2 s"), "{log}");
            assert!(log.contains("this or the like, 998 times since the last message"), "{log}");
        }
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_has_a_deadline_and_one_that_waits_for_a_worker_has_none() {
    let pool = PoolSetup::new(
        "
        import time
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/busy':
                print('busy')
                time.sleep(4)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ",
    );
    let mut pool = pool.args(&["--header-timeout", "2"]).start();
    let (mut slow, begin) = (pool.connect(), Instant::now());
    for byte in FastcgiRequest::get("/").param("HTTP_X", "x".repeat(1000)).bytes() {
        if slow.try_send(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(begin.elapsed() < Duration::from_secs(20), "the connection is not closed");
    }
    assert!(!matches!(slow.try_next(), Ok(Some(_))));
    // The rest of this one comes in time, while its worker is busy with another.
    let (mut waits, mut busy) = (pool.connect(), pool.connect());
    let bytes = FastcgiRequest::get("/").bytes();
    waits.send(&bytes[..20]);
    eventually("it was begun", || pool.accepted() == 2);
    busy.send(&FastcgiRequest::get("/busy").bytes());
    pool.await_log("busy");
    waits.send(&bytes[20..]);
    assert_eq!(busy.response().text(), "done");
    assert_eq!(waits.response().text(), "done");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0403"], "{log}");
}

#[test]
fn connections_above_the_limit_of_a_worker_replace_others() {
    for way in WAYS {
        let served =
            ServedPool::start(way, &["--worker-connections", "20", "--header-timeout", "0"]);
        let worker = served.connect().ask(&FastcgiRequest::get("/")).pid();
        let open = count(worker, "fd");
        let beginnings = beginnings();
        let mut others: Vec<FastcgiConnection> = Vec::new();
        for number in 0..200 {
            others.push(served.connect());
            if number % 4 > 0 {
                // The worker may have closed the connection for a newer one.
                let _ = others[number].try_send(&beginnings[number % 3]);
            }
            if number % 50 == 49 {
                served.requests();
            }
        }
        eventually("the limit is kept", || count(worker, "fd") <= open + 21);
        let mut kept = served.connect();
        kept.ask(&FastcgiRequest::get("/kept").keep());
        others.extend((0..10).map(|_| served.connect()));
        served.requests();
        assert_eq!(
            kept.ask(&FastcgiRequest::get("/kept").keep()).text(),
            "/kept|",
            "idle ones are the last to be closed"
        );
        drop(others);
        served.requests();
        let log = served.pool.stop();
        assert_eq!(codes(&log), ["W0404", "W0404"], "{log}");
    }
}

#[test]
fn starts_of_requests_take_only_so_much_memory_together() {
    let pool = PoolSetup::new(ECHO).start();
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let before = resident(worker);
    let mut pair = vec![1, 0x80, 0, 0xff, 0x00, b'X'];
    pair.resize(6 + 0xff00, b'x');
    let request = FastcgiRequest::get("/");
    let connections: Vec<FastcgiConnection> = (0..150)
        .map(|_| {
            let connection = pool.connect();
            let _ = connection.try_send(&request.begin());
            for _ in 0..14 {
                let _ = connection.try_send(&record(PARAMS, 1, &pair));
            }
            connection
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/live")).text(), "/live|");
    }
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    drop(connections);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0404", "W0404"], "{log}");
    assert!(log.contains("closes the connection with the most"), "{log}");
}

#[test]
fn each_kind_of_garbage_is_logged_once_a_minute() {
    let pool = PoolSetup::new(ECHO).start();
    let begin = FastcgiRequest::get("/").keep().begin();
    let twice = [begin.clone(), begin.clone()].concat();
    let early = [begin.clone(), FastcgiRequest::get("/").stdin(b"x")].concat();
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[1, 1, 0, 1, 0, 1, 0, 0, 0], &twice, &early] {
        for _ in 0..300 {
            let mut connection = pool.connect();
            let _ = connection.try_send(garbage);
            assert!(!matches!(connection.try_next(), Ok(Some(_))));
        }
    }
    assert_eq!(pool.ask(&FastcgiRequest::get("/live")).text(), "/live|");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0402"; 8], "{log}");
    assert_eq!(
        log.matches("this or the like, 299 times since the last message").count(),
        4,
        "{log}"
    );
}

#[test]
fn a_wait_within_a_request_ends_without_a_limit_for_the_whole() {
    const LARGE: &str = "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/body':
                environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'x' * (4 << 20 if environ['PATH_INFO'] == '/large' else 1)]
        ";
    for (is_lone, threads) in [(false, "1"), (false, "2"), (true, "1")] {
        let setup = PoolSetup::new(LARGE).args(&["--threads", threads, "--socket-timeout", "1"]);
        let socket = setup.path("app.sock");
        let mut pool = if is_lone {
            setup.start_on(UnixListener::bind(socket).unwrap())
        } else {
            setup.start()
        };
        let worker = pool.ask(&FastcgiRequest::get("/")).pid();
        let request = FastcgiRequest::post("/body", "").param("CONTENT_LENGTH", "10");
        let mut stalled: Vec<FastcgiConnection> = (0..2).map(|_| pool.connect()).collect();
        for connection in &stalled {
            connection.send(&request.before_body());
            connection.send(&request.stdin(b"12345"));
        }
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
        for connection in &mut stalled {
            assert_eq!(connection.response().valid().status, 504);
        }
        let mut unread = pool.connect();
        unread.send(&FastcgiRequest::get("/large").bytes());
        assert!(unread.next().is_some(), "the response has begun");
        for _ in 0..5 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/")).pid(), worker);
        }
        pool.await_log("nothing of the response was read for 1 s");
        assert!(!matches!(unread.try_response(), Ok(Some(_))), "cut");
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0604"; 3], "{log}");
        assert_eq!(log.matches("nothing of the request body came for 1 s").count(), 2, "{log}");
    }
}
