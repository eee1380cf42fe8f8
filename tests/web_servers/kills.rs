//! Workers that are killed one after the other, as clients of a site behind nginx see it.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    pool::load::turn,
    support::{
        random::Random,
        web_servers::{HttpClient, Nginx, WebServer as _, eventually, wait_for_exit},
    },
};

const KILLS: u64 = 50;

/// The time between two kills.
const PACE: Duration = Duration::from_millis(200);

const CLIENTS: usize = 4;

#[test]
fn a_request_whose_worker_is_killed_is_answered_with_502_and_every_other_is_whole() {
    let _turn = turn();
    let mut random = Random::new();
    let mut web_server = Nginx::start();
    let url = web_server.script("tells_its_process.wsgi");
    HttpClient::get(&url).run().expect(200);
    let (begun, settled, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // Workers that have answered, and those that were killed.
    let (seen, killed) = (Mutex::new(HashSet::new()), Mutex::new(HashSet::new()));
    let (served, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let visit = |client: usize| {
        for number in 0_u64.. {
            if over.load(Ordering::SeqCst) {
                break;
            }
            let began = settled.load(Ordering::SeqCst);
            let query = format!("client={client}&number={number}");
            let response = HttpClient::get(format!("{url}?{query}")).run();
            assert_eq!(response.exit, 0, "{response:?}");
            if response.status == 200 {
                assert_eq!(response.text(), query);
                seen.lock().unwrap().insert(response.header("x-pid").parse::<i32>().unwrap());
                served.fetch_add(1, Ordering::SeqCst);
            } else {
                assert_eq!(response.status, 502, "{response:?}");
                assert!(response.text().contains("502 Bad Gateway"), "{response:?}");
                assert!(begun.load(Ordering::SeqCst) > began, "no worker was killed: {response:?}");
                failed.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    thread::scope(|scope| {
        let (alive, all_ended) = channel::<()>();
        for client in 0..CLIENTS {
            let (alive, visit) = (alive.clone(), &visit);
            scope.spawn(move || {
                let _alive = alive;
                visit(client);
            });
        }
        drop(alive);
        for kill in 1..=KILLS {
            if all_ended.recv_timeout(PACE) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            let mut workers: Vec<i32> = Vec::new();
            eventually("a worker has answered that lives, or all is over", || {
                let killed = killed.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                workers = seen.difference(&killed).copied().collect();
                !workers.is_empty()
            });
            workers.sort_unstable();
            let worker = workers[random.below(workers.len())];
            killed.lock().unwrap().insert(worker);
            begun.store(kill, Ordering::SeqCst);
            kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
            wait_for_exit(worker);
            settled.store(kill, Ordering::SeqCst);
        }
        over.store(true, Ordering::SeqCst);
    });
    let (served, failed) = (served.into_inner(), failed.into_inner());
    assert_eq!(begun.into_inner(), KILLS, "{served} served, {failed} failed");
    // A kill may cost two requests: the one in the single thread, and one that waits on a
    // keep-alive connection of nginx.
    assert!(failed <= 2 * KILLS, "{failed} failed, {served} were served");
    for _ in 0..4 {
        HttpClient::get(&url).run().expect(200);
    }
    let log = web_server.stop();
    assert_eq!(log.matches("wsgate: error[W").count() as u64, KILLS, "{log}");
    assert_eq!(log.matches("[W0701]").count() as u64, KILLS, "{log}");
}
