//! Requests that wait for a worker, with limits of their time and number.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    pool::{
        GATED,
        connection_queue::{AT_THE_GATE, keep_alive_connections, silent},
    },
    support::{
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{Pool, PoolSetup, signal},
    },
};

const LIMIT: Duration = Duration::from_secs(1);

/// A pool of one worker with these options, whose worker waits at the gate for the connection.
fn busy(options: &[&str]) -> (Pool, FastcgiConnection) {
    let mut pool = PoolSetup::new(GATED).gated().args(options).start();
    let busy = occupy(&mut pool);
    (pool, busy)
}

#[track_caller]
fn occupy(pool: &mut Pool) -> FastcgiConnection {
    let busy = pool.connect();
    busy.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log(AT_THE_GATE);
    busy
}

/// Lets the occupied worker of `pool` finish.
#[track_caller]
fn release(pool: &Pool, mut busy: FastcgiConnection) {
    pool.open_gate();
    assert_eq!(busy.response().text(), "/slow|");
}

/// The number of refused requests in the status of `pool`.
fn refused_in_status(pool: &Pool) -> Value {
    let ended = pool.run_wsgate(&["status", "--json", "app"]);
    let status: Value = serde_json::from_slice(&ended.stdout).unwrap();
    status["refused"].clone()
}

#[track_caller]
fn assert_refused(connection: &mut FastcgiConnection, id: &str) {
    let response = connection.response();
    let page = response.valid();
    assert_eq!(page.status, 503, "{:?}", String::from_utf8_lossy(&response.stdout));
    assert_eq!(page.all("retry-after"), ["5"]);
    assert!(String::from_utf8_lossy(&page.body).contains(id), "{page:?}");
    connection.assert_closed();
}

fn request(number: usize) -> (FastcgiRequest, String) {
    let id = format!("waiting-{number:04}");
    (FastcgiRequest::post("/other", "body").keep().param("UNIQUE_ID", &id), id)
}

#[test]
fn f31_requests_that_wait_too_long_for_a_worker_are_refused() {
    for listen in ["unix", "tcp"] {
        let setup = PoolSetup::new(GATED).gated().args(&["--queue", "1"]);
        let setup = if listen == "tcp" { setup.listen(&["127.0.0.1:0"]) } else { setup };
        let mut pool = setup.start();
        let busy = occupy(&mut pool);
        let begun = Instant::now();
        let mut connections: Vec<_> = (0..20)
            .map(|number| {
                let connection = pool.connect();
                connection.send(&request(number).0.bytes());
                connection
            })
            .collect();
        for (number, connection) in connections.iter_mut().enumerate() {
            assert_refused(connection, &request(number).1);
        }
        assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
        assert_eq!(refused_in_status(&pool), 20);
        let text = pool.run_wsgate(&["status", "app"]).text();
        assert!(text.contains(", 20 refused"), "{text}");
        release(&pool, busy);
        assert_eq!(pool.ask(&request(0).0).text(), "/other|body");
        let log = pool.stop();
        // One request, and the number of the others at the end of the pool.
        assert_eq!(log.matches("error[W0750]").count(), 2, "{log}");
        assert_eq!(
            log.matches("the request has waited for 1 s (--queue is 1 s").count(),
            1,
            "{log}"
        );
        assert!(log.contains(": 19 more requests were refused, from 20"), "{log}");
        assert!(log.contains("request: waiting-00") && log.contains("--queue is 1 s"), "{log}");
    }
}

#[test]
fn requests_on_keep_alive_connections_are_refused_if_their_worker_is_busy_for_too_long() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--queue", "1"]).start();
    let mut connections = keep_alive_connections(&pool, 8);
    let busy = occupy(&mut pool);
    for (number, (connection, _)) in connections.iter().enumerate() {
        connection.send(&request(number).0.bytes());
    }
    for (number, (connection, _)) in connections.iter_mut().enumerate() {
        assert_refused(connection, &request(number).1);
    }
    release(&pool, busy);
    pool.stop();
}

#[test]
fn requests_above_the_length_of_the_queue_are_refused_at_once_and_the_others_wait_in_order() {
    let (pool, busy) = busy(&["--queue-length", "3"]);
    let mut connections: Vec<_> = (0..6)
        .map(|number| {
            let connection = pool.connect();
            connection.send(&request(number).0.bytes());
            connection
        })
        .collect();
    // No more than three wait, so that three have been refused when three have a response.
    let (waiting, refused) = connections.split_at_mut(3);
    for (number, connection) in refused.iter_mut().enumerate() {
        assert_refused(connection, &request(number + 3).1);
    }
    assert!(waiting.iter().all(|connection| !connection.has_more()));
    assert_eq!(refused_in_status(&pool), 3);
    release(&pool, busy);
    for connection in waiting {
        assert_eq!(connection.response().text(), "/other|body");
    }
    pool.stop();
}

#[test]
fn a_stopped_worker_does_not_keep_requests_from_being_refused() {
    let setup = PoolSetup::new(GATED).gated().args(&["--queue", "1", "--workers", "2"]);
    let mut pool = setup.start();
    let workers = pool.workers(2);
    let mut busy = [pool.connect(), pool.connect()];
    busy.iter().for_each(|one| one.send(&FastcgiRequest::get("/slow").bytes()));
    pool.await_times(AT_THE_GATE, 2);
    workers.iter().for_each(|&worker| signal(worker, Signal::STOP));
    let mut connection = pool.connect();
    connection.send(&request(7).0.bytes());
    assert_refused(&mut connection, &request(7).1);
    workers.iter().for_each(|&worker| signal(worker, Signal::CONT));
    busy.iter().for_each(|_| pool.open_gate());
    busy.iter_mut().for_each(|one| assert_eq!(one.response().text(), "/slow|"));
    pool.stop();
}

#[test]
fn a_connection_without_a_request_is_not_refused() {
    let (pool, busy) = busy(&["--queue", "1"]);
    let mut late = silent(&pool, 4);
    let mut waiting = pool.connect();
    waiting.send(&request(0).0.bytes());
    assert_refused(&mut waiting, &request(0).1);
    assert!(late.iter().all(|connection| !connection.has_more()));
    release(&pool, busy);
    for connection in &mut late {
        for _ in 0..2 {
            assert_eq!(connection.ask(&request(1).0).text(), "/other|body");
        }
    }
    pool.stop();
}

#[test]
fn waiting_requests_are_served_when_the_pool_stops() {
    let (mut pool, busy) = busy(&["--queue", "20"]);
    let mut connections = silent(&pool, 8);
    connections.iter().for_each(|connection| connection.send(&request(0).0.bytes()));
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    release(&pool, busy);
    for connection in &mut connections {
        assert_eq!(connection.response().text(), "/other|body");
    }
    let ended = pool.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
}

#[test]
fn keep_alive_connections_outlive_a_reload_of_a_pool_with_a_limit() {
    let setup = PoolSetup::new(GATED).args(&["--queue", "20", "--workers", "2"]);
    let mut pool = setup.start();
    let mut connections = keep_alive_connections(&pool, 16);
    for times in 1..=3 {
        pool.signal(Signal::HUP);
        pool.await_times("W0711", times);
        for (connection, _) in &mut connections {
            assert_eq!(connection.ask(&request(0).0).text(), "/other|body");
        }
    }
    pool.stop();
}

#[test]
fn a_pool_at_rest_starts_a_worker_for_requests_that_would_wait_too_long() {
    let setup = PoolSetup::new(
        "
        import time
        time.sleep(1.5)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'loaded']
        ",
    );
    let mut pool = setup.dynamic(&["--max", "2", "--idle", "1", "--queue", "1"]).start();
    pool.await_log("W0716");
    let mut connections: Vec<_> = (0..4).map(|_| pool.connect()).collect();
    connections.iter().for_each(|connection| connection.send(&FastcgiRequest::get("/").bytes()));
    for connection in &mut connections {
        assert_eq!(connection.response().text(), "loaded");
    }
    pool.stop();
}

#[test]
fn short_requests_on_many_connections_do_not_wait_longer_than_the_limit() {
    let setup = PoolSetup::new(
        "
        import time
        def application(environ, start_response):
            time.sleep(0.008)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'short']
        ",
    );
    let pool = setup.args(&["--queue", "1"]).start();
    let mut connections: Vec<_> = (0..400).map(|_| pool.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).text(), "short");
    }
    connections
        .iter()
        .for_each(|connection| connection.send(&FastcgiRequest::get("/").keep().bytes()));
    let statuses: Vec<u16> =
        connections.iter_mut().map(|connection| connection.response().valid().status).collect();
    let refused = statuses.iter().filter(|&&status| status == 503).count();
    let served = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!(refused + served, connections.len(), "{statuses:?}");
    // One worker serves at most 125 requests in a second.
    assert!(served > 0 && refused > 100, "{served} of {statuses:?}");
    pool.stop();
}
