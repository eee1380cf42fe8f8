//! Pools whose number of workers follows the work, down to no process of Python at all.

use std::{fs, os::unix::net::UnixListener, process::Command};

use fastcgi_server::values::Values;
use rustix::process::Signal;

use crate::{
    pool::{ECHO, GATED, only_log_message},
    support::{
        artefacts,
        assertions::codes,
        child_process::{ExitedProcess, run},
        fastcgi_client::{FastcgiConnection, FastcgiRequest, Received},
        pool::{Pool, PoolSetup, children, signal},
        web_servers::eventually,
    },
};

/// A pool that rests between requests.
pub(super) fn dormant_setup(code: &str) -> PoolSetup {
    PoolSetup::new(code).dynamic(&["--max", "3", "--idle", "1"])
}

/// Waits until the pool rests for the time with this number.
#[track_caller]
pub(super) fn await_dormant(pool: &mut Pool, times: usize) {
    pool.await_times("W0716", times);
    eventually("no process of Python is left", || children(pool.pid()).is_empty());
}

/// Runs `wsgate WORDS app`.
#[track_caller]
pub(super) fn run_wsgate(pool: &Pool, args: &[&str]) -> ExitedProcess {
    let mut command = Command::new(artefacts::gateway());
    command.args(args).arg("app").env_clear().env("WSGATE_RUNTIME_DIR", pool.setup().path("run"));
    run(&mut command, "")
}

#[track_caller]
pub(super) fn status(pool: &Pool) -> serde_json::Value {
    let ended = run_wsgate(pool, &["status", "--json"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[track_caller]
pub(super) fn slow(pool: &Pool, number: usize) -> FastcgiConnection {
    let connection = pool.connect();
    connection.send(&FastcgiRequest::get(&format!("/slow/{number}")).bytes());
    connection
}

#[test]
fn a_pool_grows_while_all_workers_are_busy_and_connections_wait_and_not_above_its_limit() {
    let mut pool = PoolSetup::new(GATED)
        .gated()
        .dynamic(&["--max", "3", "--min", "1", "--idle", "1000"])
        .start();
    pool.workers(1);
    let mut slow: Vec<_> = (0..6).map(|number| slow(&pool, number)).collect();
    pool.await_times("at the gate", 3);
    assert_eq!(pool.workers(3).len(), 3);
    for passed in 1..=6 {
        pool.open_gate();
        pool.await_times("at the gate", (passed + 3).min(6));
        assert!(children(pool.template()).len() <= 3);
    }
    for connection in &mut slow {
        assert!(connection.response().text().starts_with("/slow/"));
    }
    pool.workers(3);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn threads_are_used_before_another_worker_is_started() {
    let mut pool = PoolSetup::new(GATED)
        .gated()
        .dynamic(&["--max", "2", "--min", "1", "--threads", "2", "--idle", "1000"])
        .start();
    let mut connections: Vec<_> = (0..2).map(|number| slow(&pool, number)).collect();
    pool.await_times("at the gate", 2);
    pool.workers(1);
    connections.extend((2..4).map(|number| slow(&pool, number)));
    pool.await_times("at the gate", 4);
    pool.workers(2);
    (0..4).for_each(|_| pool.open_gate());
    for connection in &mut connections {
        assert!(connection.response().text().starts_with("/slow/"));
    }
    pool.stop();
}

#[test]
fn idle_workers_exit_down_to_the_minimum() {
    let mut pool =
        PoolSetup::new(GATED).gated().dynamic(&["--max", "4", "--min", "1", "--idle", "1"]).start();
    let mut connections: Vec<_> = (0..4).map(|number| slow(&pool, number)).collect();
    pool.await_times("at the gate", 4);
    let before = pool.workers(4);
    (0..4).for_each(|_| pool.open_gate());
    for connection in &mut connections {
        connection.response().text();
    }
    let after = pool.workers(1);
    assert!(before.contains(&after[0]), "{before:?} {after:?}");
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_keep_alive_connection_is_closed_when_the_last_worker_exits_and_keeps_no_pool_awake() {
    let mut pool = PoolSetup::new(ECHO).dynamic(&["--max", "2", "--idle", "1"]).start();
    let mut kept = pool.connect();
    assert_eq!(kept.ask(&FastcgiRequest::get("/kept").keep()).text(), "/kept|");
    kept.assert_closed();
    await_dormant(&mut pool, 1);
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    pool.stop();
}

#[test]
fn a_worker_that_serves_is_not_idle_however_long_it_takes() {
    let mut pool = dormant_setup(GATED).gated().start();
    let mut connection = slow(&pool, 1);
    pool.await_log("at the gate");
    let begin = std::time::Instant::now();
    eventually("more than twice the idle time is over", || begin.elapsed().as_millis() > 2500);
    pool.open_gate();
    assert_eq!(connection.response().text(), "/slow/1|");
    await_dormant(&mut pool, 1);
    pool.stop();
}

#[test]
fn a_reload_while_a_pool_starts_loads_again_and_reports_its_outcome() {
    let waits = "
        import os
        print('loading')
        os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
        ";
    for (code, exit) in [(ECHO, 0), ("import there_is_no_such_module", 1)] {
        let mut pool = dormant_setup(waits).gated().launch();
        pool.await_log("loading");
        assert_eq!(status(&pool)["loading"].as_bool(), Some(true));
        pool.setup().release(code);
        assert_eq!(run_wsgate(&pool, &["reload"]).code(), Some(exit));
        if exit == 0 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/new")).text(), "/new|");
            let log = pool.stop();
            assert_eq!(codes(&log), [""; 0], "{log}");
        } else {
            let ended = pool.end();
            assert_eq!(
                (ended.code(), codes(&ended.stderr)),
                (Some(1), vec!["W0302"]),
                "{}",
                ended.stderr
            );
        }
    }
}

#[test]
fn a_socket_on_standard_input_is_served_by_a_dynamic_pool_if_that_is_wished() {
    let setup = PoolSetup::new(ECHO).dynamic(&["--max", "1", "--idle", "1"]);
    let socket = setup.path("app.sock");
    let mut pool = setup.start_on(UnixListener::bind(&socket).unwrap());
    await_dormant(&mut pool, 1);
    assert_eq!(pool.ask(&FastcgiRequest::get("/wakes")).text(), "/wakes|");
    pool.stop();
}

#[test]
fn an_application_that_cannot_be_loaded_at_the_start_ends_a_pool_without_a_minimum_of_workers() {
    let ended = dormant_setup("raise RuntimeError('no')").launch().end();
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    only_log_message(&ended.stderr, "W0301");
}

#[test]
fn status_shows_the_size_and_limits_of_a_pool_and_whether_it_is_dormant() {
    let mut pool = dormant_setup(GATED).gated().start();
    let mut connection = slow(&pool, 1);
    pool.await_log("at the gate");
    let busy = status(&pool);
    assert_eq!(
        (busy["min"].as_u64(), busy["max"].as_u64(), busy["resting"].as_bool()),
        (Some(0), Some(3), Some(false))
    );
    let [worker] = &busy["workers"].as_array().unwrap()[..] else { panic!("{busy}") };
    assert_eq!(
        (worker["busy"].as_bool(), worker["pid"].as_i64()),
        (Some(true), Some(pool.workers(1)[0].into()))
    );
    pool.open_gate();
    connection.response();
    await_dormant(&mut pool, 1);
    let rests = status(&pool);
    assert_eq!(
        (rests["resting"].as_bool(), rests["workers"].as_array().unwrap().len()),
        (Some(true), 0),
        "{rests}"
    );
    let text = run_wsgate(&pool, &["status"]).text();
    assert!(
        text.contains("0 to 3 workers, 0 of 0 busy, preload auto, no Python process"),
        "{text}"
    );
    pool.stop();
    let pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
    pool.workers(2);
    eventually("both are there", || {
        run_wsgate(&pool, &["status"]).text().contains("2 workers, 0 of 2 busy, preload yes\n")
    });
    pool.stop();
}

#[test]
fn f20_the_numbers_of_a_dynamic_pool_are_those_it_may_grow_to() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(environ['wsgi.multiprocess']).encode()]
        ";
    for (most, multiprocess) in [("1", "False"), ("3", "True")] {
        let pool = PoolSetup::new(code).dynamic(&["--max", most, "--threads", "2"]).start();
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), multiprocess);
        let mut connection = pool.connect();
        let mut query = Vec::new();
        Values::append_query(&mut query);
        connection.send(&query);
        let Some(Received::Values(values)) = connection.next() else { panic!("no values") };
        assert_eq!(values.max_reqs, Some(most.parse::<u32>().unwrap() * 2));
        pool.stop();
    }
}

#[test]
fn workers_of_a_dynamic_pool_that_are_killed_are_replaced_when_they_are_needed() {
    let mut pool =
        PoolSetup::new(ECHO).dynamic(&["--max", "3", "--min", "1", "--idle", "1000"]).start();
    for times in 1..=3 {
        let worker = pool.workers(1)[0];
        signal(worker, Signal::KILL);
        pool.await_times("W0701", times);
        assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    }
    pool.stop();
}

#[test]
fn a_template_that_is_killed_costs_a_dynamic_pool_nothing_but_its_requests() {
    let mut pool = PoolSetup::new(ECHO).dynamic(&["--max", "2", "--idle", "1000"]).start();
    pool.ask(&FastcgiRequest::get("/before"));
    signal(pool.template(), Signal::KILL);
    pool.await_log("W0703");
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    pool.stop();
}

/// How often a process went to sleep.
fn sleeps(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line =
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn the_supervisor_sleeps_while_idle_workers_serve() {
    let pool =
        PoolSetup::new(ECHO).dynamic(&["--max", "8", "--min", "4", "--idle", "1000"]).start();
    pool.workers(4);
    pool.ask(&FastcgiRequest::get("/"));
    let before = sleeps(pool.pid());
    for _ in 0..300 {
        pool.ask(&FastcgiRequest::get("/"));
    }
    let more = sleeps(pool.pid()) - before;
    assert!(more < 100, "it was woken {more} times for 300 requests");
    pool.stop();
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (args, code, complaint) in [
        (&["--workers", "2", "--max", "3"][..], 2, "--workers"),
        (&["--min", "1"], 2, "--max"),
        (&["--idle", "5"], 2, "--max"),
        (&["--max", "2", "--min", "3"], 2, "W0105"),
        (&["--max", "2", "--idle", "0"], 2, "--idle"),
        (&["--max-rss", "12X"], 2, "12X"),
        (&["--max", "0"], 2, "--max"),
    ] {
        let setup = PoolSetup::new(ECHO).dynamic(args);
        let ended = run(setup.command().stdin(std::process::Stdio::piped()), "");
        assert_eq!(ended.code(), Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(complaint), "{args:?}: {}", ended.stderr);
    }
}
