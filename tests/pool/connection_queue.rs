//! Connections that are kept wait for no worker that is busy.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use rustix::process::Signal;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{Pool, PoolSetup, count, signal},
        web_servers::eventually,
    },
};

/// The line that the application of [`GATED`] prints before it waits for the path `/slow`.
pub(super) const AT_THE_GATE: &str = "at the gate: /slow\n";

/// Opens keep-alive connections. Each has had one response, by the worker beside it.
#[track_caller]
pub(super) fn keep_alive_connections(pool: &Pool, number: usize) -> Vec<(FastcgiConnection, i32)> {
    let kept = |_| {
        let mut connection = pool.connect();
        let worker = connection.ask(&FastcgiRequest::get("/").keep()).pid();
        (connection, worker)
    };
    (0..number).map(kept).collect()
}

/// Opens connections that send nothing, and waits until the pool has accepted them.
#[track_caller]
pub(super) fn silent(pool: &Pool, number: usize) -> Vec<FastcgiConnection> {
    let before = pool.accepted();
    let silent = (0..number).map(|_| pool.connect()).collect();
    eventually("all are accepted", || pool.accepted() == before + number);
    silent
}

/// Descriptors that these processes have open.
fn open(processes: &[i32]) -> usize {
    processes.iter().map(|&process| count(process, "fd")).sum()
}

/// The number of sockets among the descriptors of the processes.
pub(super) fn sockets(processes: &[i32]) -> usize {
    let links =
        processes.iter().flat_map(|process| fs::read_dir(format!("/proc/{process}/fd")).unwrap());
    // A descriptor may be closed meanwhile.
    let names = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
}

/// Asks all connections at once, and gives who answered each.
#[track_caller]
pub(super) fn ask_all<'a>(
    connections: impl IntoIterator<Item = &'a mut FastcgiConnection>,
) -> Vec<i32> {
    let connections: Vec<_> = connections.into_iter().collect();
    let request = FastcgiRequest::post("/other", "body").keep();
    connections.iter().for_each(|connection| connection.send(&request.bytes()));
    let responses = connections.into_iter().map(FastcgiConnection::response);
    responses
        .inspect(|response| assert_eq!(response.text(), "/other|body"))
        .map(|response| response.pid())
        .collect()
}

/// Two workers of `threads` threads, all of which have served.
pub(super) fn two_workers(threads: usize) -> Pool {
    let setup = PoolSetup::new(GATED).gated();
    let mut pool = setup.args(&["--workers", "2", "--threads", &threads.to_string()]).start();
    let mut connections: Vec<_> = (0..2 * threads).map(|_| pool.connect()).collect();
    connections
        .iter()
        .for_each(|connection| connection.send(&FastcgiRequest::get("/slow/first").bytes()));
    pool.await_times("at the gate: /slow/first\n", connections.len());
    connections.iter().for_each(|_| pool.open_gate());
    connections
        .iter_mut()
        .for_each(|connection| assert_eq!(connection.response().text(), "/slow/first|"));
    eventually("all are closed", || pool.accepted() == 0);
    pool
}

/// Keeps both single-thread workers busy at the gate, each with a request.
#[track_caller]
pub(super) fn occupy(pool: &mut Pool) -> [FastcgiConnection; 2] {
    let workers = pool.workers(2);
    let before = sockets(&workers);
    let busy = [pool.connect(), pool.connect()];
    busy.iter()
        .for_each(|connection| connection.send(&FastcgiRequest::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    eventually("each connection is open in one of them", || sockets(&workers) == before + 2);
    busy
}

#[test]
fn f50_requests_on_keep_alive_connections_do_not_wait_for_a_busy_worker() {
    let mut pool = two_workers(1);
    let mut connections = keep_alive_connections(&pool, 8);
    for times in 1..=4 {
        let (busy, others) = connections.split_first_mut().unwrap();
        busy.0.send(&FastcgiRequest::get("/slow").keep().bytes());
        pool.await_times(AT_THE_GATE, times);
        for _ in 0..3 {
            ask_all(others.iter_mut().map(|(connection, _)| connection));
        }
        pool.open_gate();
        assert_eq!(busy.0.response().text(), "/slow|");
        connections.rotate_left(1);
    }
    pool.stop();
}

#[test]
fn requests_on_connections_that_were_silent_do_not_wait_for_a_busy_worker() {
    let setup = || PoolSetup::new(GATED).gated().args(&["--workers", "2"]);
    let by_tcp = setup().listen(&["127.0.0.1:0"]).variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.1");
    for setup in [setup(), by_tcp] {
        let mut pool = setup.start();
        let mut connections = silent(&pool, 8);
        let (busy, others) = connections.split_first_mut().unwrap();
        busy.send(&FastcgiRequest::get("/slow").keep().bytes());
        pool.await_log(AT_THE_GATE);
        ask_all(others);
        pool.open_gate();
        assert_eq!(busy.response().text(), "/slow|");
        pool.stop();
    }
}

#[test]
fn requests_wait_for_no_worker_whose_threads_are_all_busy() {
    let mut pool = two_workers(2);
    let mut connections = keep_alive_connections(&pool, 8);
    let mut by_worker: BTreeMap<i32, usize> = BTreeMap::new();
    connections.iter().for_each(|(_, worker)| *by_worker.entry(*worker).or_default() += 1);
    // The one that has most has at least four.
    let worker = *by_worker.iter().max_by_key(|(_, count)| **count).unwrap().0;
    connections.sort_by_key(|(_, known)| *known != worker);
    let (busy, others) = connections.split_at_mut(2);
    busy.iter()
        .for_each(|(connection, _)| connection.send(&FastcgiRequest::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    let by = ask_all(others.iter_mut().map(|(connection, _)| connection));
    (0..2).for_each(|_| pool.open_gate());
    let busy: HashSet<i32> =
        busy.iter_mut().map(|(connection, _)| connection.response().pid()).collect();
    assert!(busy.len() == 2 || by.iter().all(|by| !busy.contains(by)), "{busy:?} {by:?}");
    pool.stop();
}

#[test]
fn a_request_that_waits_for_a_worker_is_served_by_the_first_idle_one() {
    let mut pool = two_workers(1);
    let mut others = keep_alive_connections(&pool, 6);
    let mut quiet = silent(&pool, 2);
    let mut busy = occupy(&mut pool);
    let waiting = || others.iter().map(|(connection, _)| connection).chain(&quiet);
    waiting().for_each(|connection| {
        connection.send(&FastcgiRequest::post("/other", "body").keep().bytes())
    });
    pool.open_gate();
    let responses = others
        .iter_mut()
        .map(|(connection, _)| connection)
        .chain(&mut quiet)
        .map(FastcgiConnection::response);
    let pids: HashSet<i32> = responses
        .inspect(|response| assert_eq!(response.text(), "/other|body"))
        .map(|response| response.pid())
        .collect();
    assert_eq!(pids.len(), 1, "one of them has had time: {pids:?}");
    pool.open_gate();
    busy.iter_mut().for_each(|connection| assert_eq!(connection.response().text(), "/slow|"));
    pool.stop();
}

/// Keeps both workers busy at the gate, with a request in the queue for each of `number` keep-alive
/// connections.
#[track_caller]
fn queued(
    pool: &mut Pool,
    number: usize,
) -> ([FastcgiConnection; 2], Vec<FastcgiConnection>, Vec<i32>) {
    let workers = pool.workers(2);
    let others: Vec<FastcgiConnection> = keep_alive_connections(pool, number)
        .into_iter()
        .map(|(connection, _)| connection)
        .collect();
    let busy = occupy(pool);
    let before = sockets(&workers);
    others.iter().for_each(|connection| {
        connection.send(&FastcgiRequest::post("/other", "body").keep().bytes())
    });
    eventually("the workers have given them away", || sockets(&workers) == before - number);
    (busy, others, workers)
}

#[test]
fn a_web_server_that_disconnects_while_its_request_waits_for_a_worker_does_no_harm() {
    let mut pool = two_workers(1);
    let (mut busy, mut others, _) = queued(&mut pool, 4);
    drop(others.remove(2));
    others.remove(0).end_sending();
    (0..2).for_each(|_| pool.open_gate());
    others
        .iter_mut()
        .for_each(|connection| assert_eq!(connection.response().text(), "/other|body"));
    busy.iter_mut().for_each(|connection| assert_eq!(connection.response().text(), "/slow|"));
    ask_all(others.iter_mut().chain(&mut busy));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_web_server_that_disconnects_while_its_worker_is_busy_is_not_waited_for() {
    let mut pool = two_workers(1);
    let workers = pool.workers(2);
    let others = keep_alive_connections(&pool, 4);
    let mut busy = occupy(&mut pool);
    let before = sockets(&workers);
    drop(others);
    eventually("the workers have closed them, too", || sockets(&workers) == before - 4);
    (0..2).for_each(|_| pool.open_gate());
    busy.iter_mut().for_each(|connection| assert_eq!(connection.response().text(), "/slow|"));
    ask_all(&mut busy);
    pool.stop();
}

#[test]
fn a_worker_that_is_killed_takes_no_request_along_that_waits_for_all() {
    let mut pool = two_workers(1);
    let (mut busy, mut others, workers) = queued(&mut pool, 4);
    signal(workers[0], Signal::KILL);
    // The next one has time, though the other has not.
    others
        .iter_mut()
        .for_each(|connection| assert_eq!(connection.response().text(), "/other|body"));
    pool.open_gate();
    let finished = busy.iter_mut().filter_map(|connection| connection.try_response().ok()?).count();
    assert_eq!(finished, 1);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0701"], "{log}");
}

#[test]
fn a_pool_that_stops_serves_waiting_requests_and_closes_all_connections() {
    let mut pool = two_workers(1);
    let mut quiet = silent(&pool, 2);
    let mut idle = keep_alive_connections(&pool, 4);
    let (mut busy, mut others, _) = queued(&mut pool, 4);
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    (0..2).for_each(|_| pool.open_gate());
    for connection in &mut others {
        assert_eq!(connection.response().text(), "/other|body");
    }
    for connection in &mut busy {
        assert_eq!(connection.response().text(), "/slow|");
    }
    let idle = idle.iter_mut().map(|(connection, _)| connection);
    busy.iter_mut()
        .chain(&mut others)
        .chain(&mut quiet)
        .chain(idle)
        .for_each(FastcgiConnection::assert_closed);
    let ended = pool.end();
    assert_eq!((ended.code(), codes(&ended.stderr).len()), (Some(0), 0), "{}", ended.stderr);
}

#[test]
fn a_pool_grows_for_requests_on_keep_alive_connections() {
    let mut pool = PoolSetup::new(GATED)
        .gated()
        .dynamic(&["--max", "2", "--min", "1", "--idle", "1000"])
        .start();
    let mut connections = keep_alive_connections(&pool, 4);
    let (busy, others) = connections.split_first_mut().unwrap();
    busy.0.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log(AT_THE_GATE);
    let by = ask_all(others.iter_mut().map(|(connection, _)| connection));
    assert!(!by.contains(&busy.1), "{by:?}");
    pool.workers(2);
    pool.open_gate();
    assert_eq!(busy.0.response().pid(), busy.1);
    pool.stop();
}

#[test]
fn a_thousand_connections_that_change_their_worker_leave_no_descriptor_behind() {
    let mut pool = two_workers(1);
    let mut connections = keep_alive_connections(&pool, 16);
    let workers = pool.workers(2);
    let (mut changed, mut rounds) = (0, 0);
    let mut before = None;
    while changed < 1000 {
        rounds += 1;
        // The one that has most of the connections is busy, and the other gets them.
        let most = workers
            .iter()
            .max_by_key(|worker| connections.iter().filter(|(_, by)| by == *worker).count())
            .unwrap();
        connections.sort_by_key(|(_, by)| by != most);
        let (busy, others) = connections.split_first_mut().unwrap();
        busy.0.send(&FastcgiRequest::get("/slow").keep().bytes());
        pool.await_times(AT_THE_GATE, rounds);
        let by = ask_all(others.iter_mut().map(|(connection, _)| connection));
        for ((_, known), by) in others.iter_mut().zip(by) {
            changed += usize::from(*known != by);
            *known = by;
        }
        pool.open_gate();
        busy.1 = busy.0.response().pid();
        if rounds == 2 {
            before = Some((open(&workers), open(&[pool.pid(), pool.template()])));
        }
    }
    assert_eq!(Some((open(&workers), open(&[pool.pid(), pool.template()]))), before);
    assert_eq!(workers, pool.workers(2));
    // A worker has at most one thread beside the serving one.
    assert!(workers.iter().all(|&worker| count(worker, "task") <= 2));
    pool.stop();
}

#[test]
fn as_many_requests_as_there_are_workers_are_served_at_once() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--workers", "4"]).start();
    pool.workers(4);
    let mut connections = Vec::new();
    for round in 0..60 {
        // Upon connections that are new, and again upon the same.
        if round % 3 == 0 {
            connections = (0..4).map(|_| pool.connect()).collect::<Vec<FastcgiConnection>>();
        }
        connections
            .iter()
            .for_each(|connection| connection.send(&FastcgiRequest::get("/slow").keep().bytes()));
        pool.await_times(AT_THE_GATE, 4 * (round + 1));
        connections.iter().for_each(|_| pool.open_gate());
        connections
            .iter_mut()
            .for_each(|connection| assert_eq!(connection.response().text(), "/slow|"));
    }
    pool.stop();
}
