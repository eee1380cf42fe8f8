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
        fastcgi_client::{Ask, PARAMS, Wire, record},
        pool::{Pool, Setup, count, resident},
        web_servers::eventually,
    },
};

/// A pool, or a worker without one, and how to connect to it.
struct Served {
    pool: Pool,
    tcp: Option<String>,
}

/// How it is served: by a pool or a lone worker, over a Unix socket or TCP.
const WAYS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

impl Served {
    #[track_caller]
    fn start((is_lone, is_tcp): (bool, bool), words: &[&str]) -> Self {
        let setup = Setup::new(ECHO).words(words);
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
    fn connect(&self) -> Wire {
        self.tcp.as_ref().map_or_else(|| self.pool.connect(), |address| Wire::tcp(address))
    }

    /// Requests on new connections are answered, each soon.
    #[track_caller]
    fn requests(&self) {
        for _ in 0..10 {
            let begin = Instant::now();
            assert_eq!(self.connect().ask(&Ask::get("/live")).text(), "/live|");
            assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        }
    }
}

/// Beginnings of a request.
fn beginnings() -> [Vec<u8>; 3] {
    let ask = Ask::get("/").keep();
    let params = [ask.begin(), record(PARAMS, 1, &ask.pairs())].concat();
    [ask.begin()[..4].to_vec(), ask.begin(), params]
}

#[test]
fn requests_that_begin_and_do_not_arrive_have_a_deadline_in_every_mode() {
    for way in WAYS {
        for threads in ["1", "8"] {
            let served = Served::start(way, &["--threads", threads, "--header-timeout", "2"]);
            let worker = served.connect().ask(&Ask::get("/")).pid();
            let open = count(worker, "fd");
            let beginnings = beginnings();
            let begun: Vec<Wire> = (0..999)
                .map(|number| {
                    let mut wire = served.connect();
                    if number % 2 == 0 {
                        wire.ask(&Ask::get("/kept").keep());
                    }
                    wire.send(&beginnings[number % 3]);
                    wire
                })
                .collect();
            served.requests();
            for mut wire in begun {
                assert!(matches!(wire.try_next(), Ok(None) | Err(_)), "{way:?}: closed");
            }
            served.requests();
            eventually("all are closed", || count(worker, "fd") <= open + 1);
            let log = served.pool.stop();
            assert_eq!(codes(&log), ["W0403", "W0403"], "{way:?}: {log}");
            assert!(log.contains("did not come within 2 s"), "{log}");
            assert!(log.contains("this or the like, 998 times since the last message"), "{log}");
        }
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_has_a_deadline_and_one_that_waits_for_its_worker_has_not_missed_it()
 {
    let pool = Setup::new(
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
    let mut pool = pool.words(&["--header-timeout", "2"]).start();
    let (mut slow, begin) = (pool.connect(), Instant::now());
    for byte in Ask::get("/").param("HTTP_X", "x".repeat(1000)).bytes() {
        if slow.try_send(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        assert!(begin.elapsed() < Duration::from_secs(20), "the connection is not closed");
    }
    assert!(!matches!(slow.try_next(), Ok(Some(_))));
    // The rest of this one comes in time, while its worker is busy with another.
    let (mut waits, mut busy) = (pool.connect(), pool.connect());
    let bytes = Ask::get("/").bytes();
    waits.send(&bytes[..20]);
    eventually("it was begun", || pool.accepted() == 2);
    busy.send(&Ask::get("/busy").bytes());
    pool.await_log("busy");
    waits.send(&bytes[20..]);
    assert_eq!(busy.answer().text(), "done");
    assert_eq!(waits.answer().text(), "done");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0403"], "{log}");
}

#[test]
fn connections_above_the_limit_of_a_worker_replace_others() {
    for way in WAYS {
        let served = Served::start(way, &["--worker-connections", "20", "--header-timeout", "0"]);
        let worker = served.connect().ask(&Ask::get("/")).pid();
        let open = count(worker, "fd");
        let beginnings = beginnings();
        let mut others: Vec<Wire> = Vec::new();
        for number in 0..200 {
            others.push(served.connect());
            if number % 4 > 0 {
                // It may have been closed already, for one that has come since.
                let _ = others[number].try_send(&beginnings[number % 3]);
            }
            if number % 50 == 49 {
                served.requests();
            }
        }
        eventually("the limit is kept", || count(worker, "fd") <= open + 21);
        let mut kept = served.connect();
        kept.ask(&Ask::get("/kept").keep());
        others.extend((0..10).map(|_| served.connect()));
        served.requests();
        assert_eq!(
            kept.ask(&Ask::get("/kept").keep()).text(),
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
    let pool = Setup::new(ECHO).start();
    let worker = pool.ask(&Ask::get("/")).pid();
    let before = resident(worker);
    let mut pair = vec![1, 0x80, 0, 0xff, 0x00, b'X'];
    pair.resize(6 + 0xff00, b'x');
    let ask = Ask::get("/");
    let wires: Vec<Wire> = (0..150)
        .map(|_| {
            let wire = pool.connect();
            let _ = wire.try_send(&ask.begin());
            for _ in 0..14 {
                let _ = wire.try_send(&record(PARAMS, 1, &pair));
            }
            wire
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(pool.ask(&Ask::get("/live")).text(), "/live|");
    }
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    drop(wires);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0404", "W0404"], "{log}");
    assert!(log.contains("closes the largest"), "{log}");
}

#[test]
fn each_kind_of_garbage_is_logged_once_a_minute() {
    let pool = Setup::new(ECHO).start();
    let begin = Ask::get("/").keep().begin();
    let twice = [begin.clone(), begin.clone()].concat();
    let early = [begin.clone(), Ask::get("/").stdin(b"x")].concat();
    for garbage in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[1, 1, 0, 1, 0, 1, 0, 0, 0], &twice, &early] {
        for _ in 0..300 {
            let mut wire = pool.connect();
            let _ = wire.try_send(garbage);
            assert!(!matches!(wire.try_next(), Ok(Some(_))));
        }
    }
    assert_eq!(pool.ask(&Ask::get("/live")).text(), "/live|");
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
        let setup = Setup::new(LARGE).words(&["--threads", threads, "--socket-timeout", "1"]);
        let socket = setup.path("app.sock");
        let mut pool = if is_lone {
            setup.start_on(UnixListener::bind(socket).unwrap())
        } else {
            setup.start()
        };
        let worker = pool.ask(&Ask::get("/")).pid();
        let ask = Ask::post("/body", "").param("CONTENT_LENGTH", "10");
        let mut stalled: Vec<Wire> = (0..2).map(|_| pool.connect()).collect();
        for wire in &stalled {
            wire.send(&ask.before_body());
            wire.send(&ask.stdin(b"12345"));
        }
        assert_eq!(pool.ask(&Ask::get("/")).pid(), worker);
        for wire in &mut stalled {
            assert_eq!(wire.answer().head().status, 504);
        }
        let mut unread = pool.connect();
        unread.send(&Ask::get("/large").bytes());
        assert!(unread.next().is_some(), "the response has begun");
        for _ in 0..5 {
            assert_eq!(pool.ask(&Ask::get("/")).pid(), worker);
        }
        pool.await_log("nothing of the response was read for 1 s");
        assert!(!matches!(unread.try_answer(), Ok(Some(_))), "cut");
        let log = pool.stop();
        assert_eq!(codes(&log), ["W0604"; 3], "{log}");
        assert_eq!(log.matches("nothing of the request body came for 1 s").count(), 2, "{log}");
    }
}
