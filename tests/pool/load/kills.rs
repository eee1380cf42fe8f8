//! A worker is killed five times a second.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::RecvTimeoutError,
    },
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    pool::{
        ECHO,
        load::{Clients, NoResponse, compare, turn},
    },
    support::{
        assertions::codes,
        pool::{PoolSetup, children, signal},
        random::Random,
        web_servers::{eventually, wait_for_exit},
    },
};

/// Half a minute's.
const KILLS: u64 = 150;

/// Between two of them.
const PACE: Duration = Duration::from_millis(200);

const WORKERS: usize = 4;
const THREADS: u64 = 2;

#[test]
fn workers_that_are_killed_five_times_a_second_cost_the_requests_that_they_serve_and_no_others() {
    let _turn = turn();
    let mut random = Random::new();
    let setup = PoolSetup::new(ECHO).args(&[
        "--workers",
        &WORKERS.to_string(),
        "--threads",
        &THREADS.to_string(),
    ]);
    let pool = setup.start();
    // Kills that have begun, and those after which nothing is left of the worker.
    let (begun, settled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let killed = Arc::new(Mutex::new(HashSet::new()));
    let lost = Arc::new(AtomicU64::new(0));
    let (clock, started, dead, count) =
        (settled.clone(), begun.clone(), killed.clone(), lost.clone());
    let clients = Clients::start(
        &pool,
        8,
        move || clock.load(Ordering::SeqCst),
        move |asked| match (&asked.outcome, asked.worker) {
            (Ok(response), _) => compare(response, &format!("/|{}", asked.body)),
            // The connection had been kept, and web servers expect this.
            (Err(NoResponse::Closed), Some(worker)) if dead.lock().unwrap().contains(&worker) => {
                Ok(())
            }
            // The request may have reached another worker than the one before on this connection.
            (Err(_), _) if started.load(Ordering::SeqCst) > asked.began => {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            (Err(lost), _) => Err(format!("{lost:?}, while no worker was killed")),
        },
    );
    let template = pool.template();
    for kill in 1..=KILLS {
        match clients.all_ended.recv_timeout(PACE) {
            Err(RecvTimeoutError::Timeout) => {}
            ended => panic!("all clients have ended, {ended:?}: {:?}", clients.end()),
        }
        let mut workers = Vec::new();
        eventually("a worker is there", || {
            workers = children(template);
            !workers.is_empty()
        });
        workers.sort_unstable();
        let worker = workers[random.below(workers.len())];
        killed.lock().unwrap().insert(worker);
        begun.store(kill, Ordering::SeqCst);
        signal(worker, Signal::KILL);
        wait_for_exit(worker);
        settled.store(kill, Ordering::SeqCst);
    }
    pool.workers(WORKERS);
    clients.each_answered(10);
    let answered = clients.end();
    let lost = lost.load(Ordering::SeqCst);
    assert!(
        lost <= THREADS * KILLS,
        "{lost} of {answered} requests were lost, with {KILLS} workers that were killed"
    );
    assert_eq!(pool.template(), template);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0701"; KILLS as usize], "{log}");
}
