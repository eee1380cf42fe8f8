//! Requests while code cannot be loaded and no worker is left: each is answered with 503 at once.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    fastcgi_client::{FastcgiConnection, FastcgiRequest, FastcgiResponse},
    pool::{Pool, PoolSetup, children, signal},
    web_servers::eventually,
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// Longer than any load of these tests takes, and shorter than the pauses grow to.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Ways to break an application.
const BROKEN: [&str; 4] = [
    "this is no Python\n",
    "import no_such_module\n",
    "import os\nos.kill(os.getpid(), 11)\n",
    "application = None\n",
];

/// A pool that rests between requests.
fn resting() -> PoolSetup {
    PoolSetup::new(HELLO).dynamic(&["--max", "3", "--idle", "1"])
}

#[track_caller]
fn await_rest(pool: &mut Pool) {
    pool.await_log("W0716");
    eventually("no process of Python is left", || children(pool.pid()).is_empty());
}

/// Asserts that `response` is the refusal of a request with the id `id`.
#[track_caller]
fn assert_refused(response: &FastcgiResponse, id: &str) {
    let page = response.valid();
    assert_eq!(page.status, 503, "{:?}", String::from_utf8_lossy(&response.stdout));
    assert!(String::from_utf8_lossy(&page.body).contains(id), "{page:?}");
}

/// Asks, and asserts that the answer is a refusal that comes at once and is in the log.
#[track_caller]
fn is_refused(pool: &mut Pool, number: usize) {
    let id = format!("refused-{number:04}");
    let begun = Instant::now();
    let response = pool.ask(&FastcgiRequest::get("/refused").param("UNIQUE_ID", &id));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_refused(&response, &id);
    pool.await_log(&format!("request: {id} GET /refused pid"));
    assert!(pool.log().contains("error[W0717]"), "{}", pool.log());
}

#[track_caller]
fn serves_again(pool: &Pool) {
    pool.setup().release(HELLO);
    eventually("the pool serves again", || {
        let response = pool.ask(&FastcgiRequest::get("/")).valid();
        assert!([200, 503].contains(&response.status), "{response:?}");
        response.status == 200
    });
}

#[test]
fn a_pool_that_rests_and_cannot_load_its_code_refuses() {
    for broken in BROKEN {
        let mut pool = resting().start();
        await_rest(&mut pool);
        pool.setup().release(broken);
        for number in 0..4 {
            is_refused(&mut pool, number);
        }
        let shown = pool.run_wsgate(&["status", "--json", "app"]).text();
        assert!(shown.contains(r#""refused":4,"#), "{shown}");
        serves_again(&pool);
        pool.stop();
    }
}

#[test]
fn a_pool_whose_processes_were_killed_and_that_cannot_load_its_code_refuses() {
    for preload in ["yes", "no"] {
        for broken in BROKEN {
            let mut pool = PoolSetup::new(HELLO).args(&["--preload", preload]).start();
            assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "hello");
            pool.setup().release(broken);
            // The supervisor notices the change, and goes on with the code that it has.
            pool.await_log("W0715");
            is_not_refused(&pool);
            signal(pool.workers(1)[0], Signal::KILL);
            if preload == "yes" {
                eventually("the worker is replaced", || pool.workers(1).len() == 1);
                is_not_refused(&pool);
                signal(pool.template(), Signal::KILL);
                pool.await_log("was killed by SIGKILL\n");
            } else {
                pool.await_log("W0701");
            }
            for number in 0..4 {
                is_refused(&mut pool, number);
            }
            serves_again(&pool);
            pool.stop();
        }
    }
}

/// A worker may have been killed a moment ago.
#[track_caller]
fn is_not_refused(pool: &Pool) {
    eventually("the pool serves", || {
        let mut connection = pool.connect();
        let response = connection
            .try_send(&FastcgiRequest::get("/").bytes())
            .and_then(|()| connection.try_response());
        let Ok(Some(response)) = response else { return false };
        assert_eq!(response.valid().status, 200);
        true
    });
}

/// A pool whose code cannot be loaded, and that has refused.
#[track_caller]
fn refusing(setup: PoolSetup) -> Pool {
    let mut pool = setup.start();
    await_rest(&mut pool);
    pool.setup().release(BROKEN[0]);
    is_refused(&mut pool, 0);
    pool
}

#[test]
fn requests_that_wait_while_code_is_loaded_are_refused_when_that_has_failed() {
    let mut pool = resting().start();
    await_rest(&mut pool);
    pool.setup().release(BROKEN[0]);
    let mut connections: Vec<_> = (0..100)
        .map(|_| {
            let connection = pool.connect();
            connection.send(&FastcgiRequest::get("/").keep().bytes());
            connection
        })
        .collect();
    for connection in &mut connections {
        assert_eq!(connection.response().valid().status, 503);
        connection.assert_closed();
    }
    pool.stop();
}

#[test]
fn a_refusal_is_whole_whatever_the_request_is() {
    let pool = refusing(resting());
    let response = pool.ask(&FastcgiRequest::get("/").param("REQUEST_METHOD", "HEAD")).stdout;
    assert!(response.starts_with(b"Status: 503 ") && response.ends_with(b"\r\n\r\n"));
    // Its end is never sent.
    let mut unfinished = pool.connect();
    unfinished.send(&FastcgiRequest::post("/", vec![b'x'; 60_000]).before_body());
    unfinished.send(&FastcgiRequest::post("/", "").stdin(&[b'x'; 60_000]));
    assert_eq!(unfinished.response().valid().status, 503);
    let mut large = pool.connect();
    let sending = large.send_beside(FastcgiRequest::post("/", vec![b'x'; 2_000_000]).bytes());
    assert_eq!(large.response().valid().status, 503);
    sending.join().unwrap().unwrap();
    let mut long = pool.connect();
    let sending =
        long.send_beside(FastcgiRequest::get("/").param("LONG", vec![b'x'; 300_000]).bytes());
    assert_eq!(long.response().valid().status, 503);
    sending.join().unwrap().unwrap();
    let log = pool.stop();
    assert!(!log.contains("W0999"), "{log}");
}

#[test]
fn clients_that_send_nothing_or_garbage_do_not_delay_refusals_of_others() {
    let pool = refusing(resting());
    let begin = FastcgiRequest::get("/").begin();
    let _silent: Vec<FastcgiConnection> = (0..40)
        .map(|number| {
            let connection = pool.connect();
            connection.send(&begin[..number % begin.len()]);
            connection
        })
        .collect();
    let mut garbage = pool.connect();
    garbage.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let begun = Instant::now();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 503);
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
    assert!(matches!(garbage.try_next(), Ok(None) | Err(_)));
    let status = pool.run_wsgate(&["status", "app"]);
    assert_eq!(status.code(), Some(0), "{}", status.stderr);
    pool.stop();
}

#[test]
fn peers_that_may_not_connect_are_not_refused_but_closed() {
    for setup in [
        resting().listen(&["127.0.0.1:0"]).variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.2"),
        resting().listen(&["127.0.0.1:0"]).args(&["--env", "FCGI_WEB_SERVER_ADDRS=127.0.0.2"]),
    ] {
        let mut pool = setup.start();
        await_rest(&mut pool);
        pool.setup().release(BROKEN[0]);
        let mut connection = pool.connect();
        let _ = connection.try_send(&FastcgiRequest::get("/").bytes());
        assert!(matches!(connection.try_next(), Ok(None) | Err(_)));
        pool.stop();
    }
}

#[test]
fn an_endless_load_of_a_dormant_pool_keeps_no_client_waiting() {
    let mut pool = resting().start();
    await_rest(&mut pool);
    pool.setup().release("import time\ntime.sleep(1000)\n");
    let begun = Instant::now();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/refused").param("UNIQUE_ID", "refused-hanging").bytes());
    // The pool waits for a minute, and the wire for no longer.
    let response =
        connection.try_response().or_else(|_| connection.try_response()).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60) + AT_ONCE, "{:?}", begun.elapsed());
    assert_refused(&response, "refused-hanging");
    is_refused(&mut pool, 1);
    assert!(
        pool.log().contains("has been loading the application for more than 60 s"),
        "{}",
        pool.log()
    );
    serves_again(&pool);
    pool.stop();
}

#[test]
fn an_endless_first_load_keeps_no_client_waiting() {
    thread::scope(|scope| {
        for preload in ["yes", "no"] {
            scope.spawn(move || {
                let setup = PoolSetup::new("import time\ntime.sleep(1000)\n");
                let pool = setup.args(&["--preload", preload]).launch();
                eventually("the pool listens", || pool.socket().exists());
                let begun = Instant::now();
                let mut connection = pool.connect();
                let request = FastcgiRequest::get("/refused").param("UNIQUE_ID", "refused-first");
                connection.send(&request.bytes());
                let response = connection
                    .try_response()
                    .or_else(|_| connection.try_response())
                    .unwrap()
                    .unwrap();
                assert!(begun.elapsed() < Duration::from_secs(62), "{:?}", begun.elapsed());
                assert_refused(&response, "refused-first");
                pool.signal(Signal::TERM);
                pool.end();
            });
        }
    });
}

#[test]
fn an_endless_load_keeps_no_client_waiting() {
    let mut pool = refusing(resting());
    pool.setup().release("import time\ntime.sleep(1000)\n");
    for number in 1..3 {
        is_refused(&mut pool, number);
    }
    pool.setup().release(HELLO);
    serves_again(&pool);
    pool.stop();
}

#[test]
fn a_killed_template_costs_no_refused_request() {
    let mut pool = PoolSetup::new(HELLO).start();
    for times in 1..4 {
        signal(pool.template(), Signal::KILL);
        pool.await_times("W0703", times);
        is_not_refused(&pool);
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0703"; 3], "{log}");
}

#[test]
fn why_a_request_is_refused_is_shown_with_debug_alone() {
    let shown = |args: &[&str]| {
        let mut setup = resting();
        for word in args {
            setup = setup.args(&[word]);
        }
        let pool = refusing(setup);
        let body = pool.ask(&FastcgiRequest::get("/")).valid().body;
        pool.stop();
        String::from_utf8(body).unwrap().contains("cannot load the application")
    };
    assert!(shown(&["--debug"]) && !shown(&[]));
}
