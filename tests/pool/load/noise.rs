//! Bytes that mean nothing, in great numbers, while others are served.

use std::collections::BTreeSet;

use crate::{
    pool::{
        ECHO,
        load::{Clients, compare, turn},
    },
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        noise::Disturbance,
        pool::{Pool, PoolSetup, count, resident},
        random::Random,
        web_servers::eventually,
    },
};

/// Connections with noise that are open at a time.
const LEFT_OPEN: usize = 50;

/// The number of silent connections.
const SILENT: usize = 100_000;

/// Sends `each` pieces of noise of each kind, between `silent` connections without a byte.
fn disturb(pool: &Pool, random: &mut Random, each: usize, silent: usize) {
    let mut disturbance = Disturbance::new(LEFT_OPEN);
    for number in 0..each {
        disturbance.send(random, || pool.connect());
        for _ in 0..silent * (number + 1) / each - silent * number / each {
            drop(pool.connect());
        }
    }
}

#[test]
fn f54_random_bytes_cut_requests_and_100_000_silent_connections_are_harmless() {
    let _turn = turn();
    let mut random = Random::new();
    let pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
    let live = || {
        Clients::start(
            &pool,
            2,
            || 0,
            |asked| match &asked.outcome {
                Ok(response) => compare(response, &format!("/|{}", asked.body)),
                Err(lost) => {
                    Err(format!("{lost:?}, answered before on this connection: {:?}", asked.worker))
                }
            },
        )
    };
    let mut workers = pool.workers(2);
    workers.sort_unstable();
    let held = || {
        let (mut seen, mut times): (Vec<(usize, u64)>, _) = (Vec::new(), 0);
        // A worker waits a moment for the other end of a connection to be closed.
        eventually("all connections are closed", || {
            let before = std::mem::take(&mut seen);
            seen = workers.iter().map(|&pid| (count(pid, "fd"), resident(pid))).collect();
            times = if before == seen { times + 1 } else { 0 };
            times >= 20
        });
        seen
    };
    // Python loads modules at the first exception of a process. Each worker gets one of these half
    // bodies.
    let cut = FastcgiRequest::post("/", "half").param("CONTENT_LENGTH", "8").keep();
    let mut connections = [pool.connect(), pool.connect()];
    connections
        .iter()
        .for_each(|connection| connection.send(&[cut.before_body(), cut.stdin(b"half")].concat()));
    connections.iter().for_each(|connection| connection.send(&cut.end_of_stdin()));
    connections
        .iter_mut()
        .for_each(|connection| assert_eq!(connection.response().valid().status, 500));
    drop(connections);
    let clients = live();
    disturb(&pool, &mut random, 300, 3000);
    clients.end();
    let before = held();
    let clients = live();
    disturb(&pool, &mut random, 2000, SILENT);
    clients.each_answered(10);
    clients.end();
    let after = held();
    for ((open, memory), (open_now, memory_now)) in before.iter().zip(&after) {
        assert_eq!(open, open_now, "{before:?}, then {after:?}");
        assert!(*memory_now <= memory + 1024, "{before:?}, then {after:?}");
    }
    let mut now = pool.workers(2);
    now.sort_unstable();
    assert_eq!(now, workers, "no worker has ended");
    let log = pool.stop();
    // A connection that breaks the protocol, and a request that was refused or whose body was cut
    // or too long.
    let expected = BTreeSet::from(["W0401", "W0402", "W0501", "W0406"]);
    let said: BTreeSet<&str> = codes(&log).into_iter().collect();
    assert!(said.is_subset(&expected), "{said:?}");
}
