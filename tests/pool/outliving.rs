//! Connections that are kept outlive the workers that serve them.

use std::collections::HashSet;

use rustix::process::Signal;

use crate::{
    pool::{
        ECHO, GATED,
        connection_queue::{
            AT_THE_GATE, ask_all, keep_alive_connections, occupy, silent, sockets, two_workers,
        },
    },
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{PoolSetup, children, signal},
        web_servers::eventually,
    },
};

/// Answers with the release's number, and who answered.
fn release(number: usize) -> String {
    ECHO.replace("environ['PATH_INFO'].encode('latin-1')", &format!("b'release {number}'"))
}

#[test]
fn connections_are_the_same_after_reloads_whether_these_can_be_loaded_or_not() {
    for threads in ["1", "3"] {
        let pool =
            PoolSetup::new(&release(0)).args(&["--workers", "2", "--threads", threads]).start();
        let mut connections = silent(&pool, 3);
        connections
            .extend(keep_alive_connections(&pool, 6).into_iter().map(|(connection, _)| connection));
        for number in 1..=3 {
            pool.setup().release("import there_is_no_such_module");
            assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1));
            let before = connections
                .iter_mut()
                .skip(2)
                .map(|connection| connection.ask(&FastcgiRequest::get("/").keep()).text());
            before.for_each(|text| assert_eq!(text, format!("release {}|", number - 1)));
            pool.setup().release(&release(number));
            assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
            eventually("the old template and its workers have ended", || {
                children(pool.pid()).len() == 1
            });
            let after = connections
                .iter_mut()
                .skip(1)
                .map(|connection| connection.ask(&FastcgiRequest::get("/").keep()).text());
            after.for_each(|text| assert_eq!(text, format!("release {number}|")));
        }
        connections.iter_mut().for_each(|connection| {
            assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).text(), "release 3|")
        });
        pool.stop();
    }
}

#[test]
fn connections_outlive_a_worker_of_the_old_code_that_takes_too_long() {
    let mut pool = two_workers(1);
    let workers = pool.workers(2);
    let before = sockets(&workers);
    let mut connections: Vec<FastcgiConnection> =
        keep_alive_connections(&pool, 6).into_iter().map(|(connection, _)| connection).collect();
    connections.extend(silent(&pool, 2));
    let mut busy = occupy(&mut pool);
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    eventually("they have given all others away", || sockets(&workers) == before + busy.len());
    workers.iter().for_each(|&worker| signal(worker, Signal::KILL));
    busy.iter_mut()
        .for_each(|connection| assert!(!matches!(connection.try_response(), Ok(Some(_)))));
    assert!(ask_all(&mut connections).iter().all(|by| !workers.contains(by)));
    pool.stop();
}

#[test]
fn connections_are_the_same_whatever_workers_are_replaced_for() {
    for args in [["--max-requests", "10"], ["--max-age", "1"], ["--max-rss", "1M"]] {
        for (workers, threads) in [("1", "1"), ("2", "2")] {
            let pool = PoolSetup::new(ECHO)
                .args(&["--workers", workers, "--threads", threads])
                .args(&args)
                .start();
            let mut connections = keep_alive_connections(&pool, 6);
            let mut pids = HashSet::new();
            eventually(&format!("a pool with {args:?} has had 8 workers"), || {
                for (connection, _) in &mut connections {
                    let response = connection.ask(&FastcgiRequest::post("/", "body").keep());
                    assert_eq!(response.text(), "/|body");
                    pids.insert(response.pid());
                }
                pids.len() >= 8
            });
            let log = pool.stop();
            assert_eq!(codes(&log), [""; 0], "{log}");
        }
    }
}

#[test]
fn a_pool_that_shrinks_keeps_connections_as_long_as_it_has_a_worker() {
    let mut pool =
        PoolSetup::new(GATED).gated().dynamic(&["--max", "2", "--min", "1", "--idle", "1"]).start();
    let mut connections = [pool.connect(), pool.connect()];
    connections
        .iter()
        .for_each(|connection| connection.send(&FastcgiRequest::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    pool.workers(2);
    (0..2).for_each(|_| pool.open_gate());
    connections
        .iter_mut()
        .for_each(|connection| assert_eq!(connection.response().text(), "/slow|"));
    pool.workers(1);
    assert_eq!(HashSet::<i32>::from_iter(ask_all(&mut connections)).len(), 1);
    pool.stop();
}
