//! What the status of a pool counts, the accept queues in it, and how soon it is there.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    pool::{Pool, PoolSetup},
    support::{
        child_process::run,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        processes::signal,
        web_servers::eventually,
    },
};

/// Responds with the status in the path, or is killed by the signal there.
const ANSWERS: &str = "
    import os
    def application(environ, start_response):
        number = environ['PATH_INFO'].strip('/')
        if number.startswith('signal-'):
            os.kill(os.getpid(), int(number[7:]))
        if number.startswith('exit-'):
            os._exit(int(number[5:]))
        start_response(number + ' Some', [('Content-Type', 'text/plain')])
        return [b'body']
    ";

/// How long the status may take while every worker is stopped.
const MAX_STATUS_TIME: Duration = Duration::from_millis(10);

fn status(pool: &Pool) -> Value {
    let ended = pool.run_wsgate(&["status", "--json", "app"]);
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Waits until `field` of the status is `expected`.
#[track_caller]
fn await_field(pool: &Pool, field: &str, expected: &Value) {
    let what = format!("{field} is {expected}: {} {}", status(pool), pool.log());
    eventually(&what, || status(pool).pointer(field) == Some(expected));
}

#[test]
fn responses_crashes_and_replacements_are_counted_through_workers_and_reloads() {
    let pool = PoolSetup::new(ANSWERS).start();
    for path in ["/200", "/201", "/302", "/404", "/500"] {
        pool.ask(&FastcgiRequest::get(path));
    }
    let responses = json!({"1xx": 0, "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1});
    await_field(&pool, "/responses", &responses);
    let shown = status(&pool);
    let worker = &shown["workers"][0];
    assert_eq!(worker["last_status"], 500, "{shown}");
    assert_eq!((&shown["requests"], &worker["requests"]), (&json!(5), &json!(5)), "{shown}");
    assert_eq!((&shown["busy"], &shown["idle"]), (&json!(0), &json!(1)), "{shown}");
    assert!(worker["rss"].as_u64().unwrap() > 1 << 20, "{shown}");
    assert!(worker["cpu_milliseconds"].is_u64() && worker["age"].as_u64().unwrap() < 600);
    assert!(shown["started"].as_u64().unwrap() > 1_600_000_000, "{shown}");

    for (path, cause, crashes) in [("/signal-11", "SIGSEGV", 1), ("/exit-3", "exit", 2)] {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        await_field(&pool, &format!("/crashed/{cause}"), &json!(1));
        await_field(&pool, "/replaced/crash", &json!(crashes));
    }
    let worker = pool.loaded_workers(1)[0];
    // A worker that exits before its first request has failed at its start.
    pool.ask(&FastcgiRequest::get("/200"));
    signal(worker, Signal::TERM);
    await_field(&pool, "/replaced/exit", &json!(1));
    pool.loaded_workers(1);
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    await_field(&pool, "/replaced/reload", &json!(1));
    let shown = status(&pool);
    assert_eq!(shown["last_reload"]["succeeded"], true, "{shown}");
    assert_eq!(shown["responses"]["2xx"], 3, "{shown}");
    assert_eq!(shown["requests"], 8, "{shown}");
    let text = pool.run_wsgate(&["status", "app"]).text();
    assert!(text.contains("\n  last reload succeeded "), "{text}");
    pool.setup().release("raise RuntimeError");
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1));
    let shown = status(&pool);
    assert_eq!(shown["last_reload"]["succeeded"], false, "{shown}");
    let reason = shown["last_reload"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("W0301: "), "{shown}");
    let text = pool.run_wsgate(&["status", "app"]).text();
    assert!(
        text.contains("\n  loading new code failed ") && !text.contains("last reload"),
        "{text}"
    );
    pool.stop();
}

#[test]
fn limits_timeouts_and_slow_requests_are_counted() {
    let code = "
        import time
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            if 'slow' in environ['PATH_INFO']:
                time.sleep(600)
            return [b'body']
        ";
    let pool = PoolSetup::new(code).args(&["--max-requests", "2"]).start();
    // A worker may have accepted one more connection than its limit.
    eventually("two workers are replaced", || {
        pool.ask(&FastcgiRequest::get("/"));
        status(&pool)["replaced"]["max-requests"] == 2
    });
    pool.stop();
    let pool = PoolSetup::new(code).args(&["--timeout", "2", "--slow", "1"]).start();
    let connection = pool.connect();
    connection.send(&FastcgiRequest::get("/slow").bytes());
    await_field(&pool, "/slow", &json!(1));
    await_field(&pool, "/timed_out", &json!(1));
    let shown = status(&pool);
    assert_eq!((&shown["peak_busy"], &shown["max_reached"]), (&json!(1), &json!(1)), "{shown}");
    pool.stop();
}

/// Connections in the accept queue and its maximum, as ss(8) shows them for the socket whose line
/// contains `name`.
fn shown_by_ss(args: &[&str], name: &str) -> (u64, u64) {
    let shown = run(Command::new("ss").args(args), "").text();
    let line = shown.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{shown}"));
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn accept_queues_are_those_that_ss_shows_while_every_worker_is_stopped() {
    let setup = PoolSetup::new(ANSWERS).args(&["--workers", "2"]);
    let directory = setup.path("").to_str().unwrap().to_owned();
    let unix = format!("unix:{directory}app.sock");
    let pool = setup.listen(&[&unix, "127.0.0.1:0"]).start();
    let workers = pool.loaded_workers(2);
    workers.iter().for_each(|&worker| signal(worker, Signal::STOP));
    let address = status(&pool)["listeners"][1]["address"].as_str().unwrap().to_owned();
    let _unix: Vec<_> = (0..3).map(|_| FastcgiConnection::unix(&pool.socket())).collect();
    let _tcp: Vec<_> = (0..2).map(|_| FastcgiConnection::tcp(&address)).collect();
    let shown = status(&pool)["listeners"].clone();
    let queue = |number: usize| {
        let listener = &shown[number];
        (listener["accept_queue"].as_u64().unwrap(), listener["backlog"].as_u64().unwrap())
    };
    assert_eq!((queue(0).0, queue(1).0), (3, 2), "{shown}");
    assert_eq!(queue(0), shown_by_ss(&["-lxH"], &format!("{directory}app")), "{shown}");
    assert_eq!(queue(1), shown_by_ss(&["-ltHn"], &address), "{shown}");

    let control = pool.setup().path("run/app.pool");
    let times = (0..20).map(|_| {
        let begin = Instant::now();
        let mut stream = UnixStream::connect(&control).unwrap();
        stream.write_all(b"status\n").unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
        begin.elapsed()
    });
    // Other processes may delay some answers.
    let time = times.min().unwrap();
    assert!(time < MAX_STATUS_TIME, "{time:?}");

    workers.iter().for_each(|&worker| signal(worker, Signal::CONT));
    await_field(&pool, "/listeners/0/accept_queue", &json!(0));
    assert_eq!(status(&pool)["listeners"][0]["peak_accept_queue"], 3);
    pool.stop();
}
