//! Requests while code cannot be loaded and no worker is left: each is answered with 503 at once.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    assertions::codes,
    fastcgi_client::{Answer, Ask, Wire},
    pool::{Pool, Setup, children, signal},
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
fn resting() -> Setup {
    Setup::new(HELLO).dynamic(&["--max", "3", "--idle", "1"])
}

#[track_caller]
fn await_rest(pool: &mut Pool) {
    pool.await_log("W0716");
    eventually("no process of Python is left", || children(pool.pid()).is_empty());
}

/// Asserts that `answer` is the refusal of a request with the id `id`.
#[track_caller]
fn assert_refused(answer: &Answer, id: &str) {
    let head = answer.head();
    assert_eq!(head.status, 503, "{:?}", String::from_utf8_lossy(&answer.stdout));
    assert!(String::from_utf8_lossy(&head.body).contains(id), "{head:?}");
}

/// Asks, and asserts that the answer is a refusal that comes at once and is in the log.
#[track_caller]
fn is_refused(pool: &mut Pool, number: usize) {
    let id = format!("refused-{number:04}");
    let begun = Instant::now();
    let answer = pool.ask(&Ask::get("/refused").param("UNIQUE_ID", &id));
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    assert_refused(&answer, &id);
    pool.await_log(&format!("request: {id} GET /refused pid"));
    assert!(pool.log().contains("error[W0717]"), "{}", pool.log());
}

#[track_caller]
fn serves_again(pool: &Pool) {
    pool.setup().release(HELLO);
    eventually("the pool serves again", || {
        let head = pool.ask(&Ask::get("/")).head();
        assert!([200, 503].contains(&head.status), "{head:?}");
        head.status == 200
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
        serves_again(&pool);
        pool.stop();
    }
}

#[test]
fn a_pool_whose_processes_were_killed_and_that_cannot_load_its_code_refuses() {
    for preload in ["yes", "no"] {
        for broken in BROKEN {
            let mut pool = Setup::new(HELLO).words(&["--preload", preload]).start();
            assert_eq!(pool.ask(&Ask::get("/")).text(), "hello");
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
        let mut wire = pool.connect();
        let answer = wire.try_send(&Ask::get("/").bytes()).and_then(|()| wire.try_answer());
        let Ok(Some(answer)) = answer else { return false };
        assert_eq!(answer.head().status, 200);
        true
    });
}

/// A pool whose code cannot be loaded, and that has refused.
#[track_caller]
fn refusing(setup: Setup) -> Pool {
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
    let mut wires: Vec<_> = (0..100)
        .map(|_| {
            let wire = pool.connect();
            wire.send(&Ask::get("/").keep().bytes());
            wire
        })
        .collect();
    for wire in &mut wires {
        assert_eq!(wire.answer().head().status, 503);
        wire.assert_closed();
    }
    pool.stop();
}

#[test]
fn a_refusal_is_whole_whatever_the_request_is() {
    let pool = refusing(resting());
    let head = pool.ask(&Ask::get("/").param("REQUEST_METHOD", "HEAD")).stdout;
    assert!(head.starts_with(b"Status: 503 ") && head.ends_with(b"\r\n\r\n"));
    // Its end is never sent.
    let mut unfinished = pool.connect();
    unfinished.send(&Ask::post("/", vec![b'x'; 60_000]).before_body());
    unfinished.send(&Ask::post("/", "").stdin(&[b'x'; 60_000]));
    assert_eq!(unfinished.answer().head().status, 503);
    let mut large = pool.connect();
    let sending = large.send_beside(Ask::post("/", vec![b'x'; 2_000_000]).bytes());
    assert_eq!(large.answer().head().status, 503);
    sending.join().unwrap().unwrap();
    let mut long = pool.connect();
    let sending = long.send_beside(Ask::get("/").param("LONG", vec![b'x'; 300_000]).bytes());
    assert_eq!(long.answer().head().status, 503);
    sending.join().unwrap().unwrap();
    let log = pool.stop();
    assert!(!log.contains("W0999"), "{log}");
}

#[test]
fn clients_that_send_nothing_or_garbage_do_not_delay_refusals_of_others() {
    let pool = refusing(resting());
    let begin = Ask::get("/").begin();
    let _silent: Vec<Wire> = (0..40)
        .map(|number| {
            let wire = pool.connect();
            wire.send(&begin[..number % begin.len()]);
            wire
        })
        .collect();
    let mut garbage = pool.connect();
    garbage.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let begun = Instant::now();
    assert_eq!(pool.ask(&Ask::get("/")).head().status, 503);
    assert!(begun.elapsed() < 2 * AT_ONCE, "{:?}", begun.elapsed());
    assert!(matches!(garbage.try_next(), Ok(None) | Err(_)));
    let status = pool.tell(&["status", "app"]);
    assert_eq!(status.code(), Some(0), "{}", status.stderr);
    pool.stop();
}

#[test]
fn peers_that_may_not_connect_are_not_refused_but_closed() {
    for setup in [
        resting().listen(&["127.0.0.1:0"]).variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.2"),
        resting().listen(&["127.0.0.1:0"]).words(&["--env", "FCGI_WEB_SERVER_ADDRS=127.0.0.2"]),
    ] {
        let mut pool = setup.start();
        await_rest(&mut pool);
        pool.setup().release(BROKEN[0]);
        let mut wire = pool.connect();
        let _ = wire.try_send(&Ask::get("/").bytes());
        assert!(matches!(wire.try_next(), Ok(None) | Err(_)));
        pool.stop();
    }
}

#[test]
fn an_endless_load_of_a_dormant_pool_keeps_no_client_waiting() {
    let mut pool = resting().start();
    await_rest(&mut pool);
    pool.setup().release("import time\ntime.sleep(1000)\n");
    let begun = Instant::now();
    let mut wire = pool.connect();
    wire.send(&Ask::get("/refused").param("UNIQUE_ID", "refused-hanging").bytes());
    // The pool waits for a minute, and the wire for no longer.
    let answer = wire.try_answer().or_else(|_| wire.try_answer()).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60) + AT_ONCE, "{:?}", begun.elapsed());
    assert_refused(&answer, "refused-hanging");
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
    let mut pool = Setup::new(HELLO).start();
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
    let shown = |words: &[&str]| {
        let mut setup = resting();
        for word in words {
            setup = setup.words(&[word]);
        }
        let pool = refusing(setup);
        let body = pool.ask(&Ask::get("/")).head().body;
        pool.stop();
        String::from_utf8(body).unwrap().contains("cannot load the application")
    };
    assert!(shown(&["--debug"]) && !shown(&[]));
}
