//! Bytes that mean nothing, in great numbers, while others are served.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    pool::{
        ECHO,
        load::{Clients, Random, compare, turn},
    },
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{Pool, PoolSetup, count, resident},
        web_servers::eventually,
    },
};

/// Connections that are left open behind those that were opened after them.
const LEFT_OPEN: usize = 50;

/// Connections without a word, of one run.
const SILENT: usize = 100_000;

/// Bytes that mean nothing; every other time they look like a record at first.
pub(crate) fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(2000);
    let mut noise = random.bytes(length);
    if noise.len() > 8 && random.below(2) == 0 {
        let header = [1, 1 + noise[1] % 12, 0, noise[3] % 2];
        noise[..4].copy_from_slice(&header);
    }
    noise
}

/// A request that ends anywhere.
pub(crate) fn cut(random: &mut Random) -> Vec<u8> {
    let mut bytes = request(random);
    let length = random.below(bytes.len());
    bytes.truncate(length);
    bytes
}

/// A request with a byte that is not its own.
pub(crate) fn changed(random: &mut Random) -> Vec<u8> {
    let mut bytes = request(random);
    let position = random.below(bytes.len());
    bytes[position] = random.bytes(1)[0];
    bytes
}

fn request(random: &mut Random) -> Vec<u8> {
    let length = random.below(300);
    FastcgiRequest::post("/noise", random.bytes(length)).bytes()
}

/// Sends all of that, so many of each kind, between so many connections without a word.
fn disturb(pool: &Pool, random: &mut Random, each: usize, silent: usize) {
    let mut open: VecDeque<FastcgiConnection> = VecDeque::new();
    for number in 0..each {
        // The worker may have closed the connection before all is sent.
        let connection = pool.connect();
        let _ = connection.try_send(&noise(random));
        open.push_back(connection);
        if open.len() > LEFT_OPEN {
            open.remove(random.below(open.len()));
        }
        // A request without the rest of its body would hold a worker as long as its connection is
        // open, as it should.
        let _ = pool.connect().try_send(&cut(random));
        let _ = pool.connect().try_send(&changed(random));
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
