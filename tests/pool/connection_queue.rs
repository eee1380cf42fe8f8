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
        fastcgi_client::{Ask, Wire},
        pool::{Pool, Setup, count, signal},
        web_servers::eventually,
    },
};

/// What the application of [`GATED`] says before it waits for the path `/slow`.
pub(super) const AT_THE_GATE: &str = "at the gate: /slow\n";

/// So many connections, each of which has had an answer, and who gave it.
#[track_caller]
pub(super) fn kept(pool: &Pool, number: usize) -> Vec<(Wire, i32)> {
    let kept = |_| {
        let mut wire = pool.connect();
        let worker = wire.ask(&Ask::get("/").keep()).pid();
        (wire, worker)
    };
    (0..number).map(kept).collect()
}

/// So many connections that have said nothing and have been accepted.
#[track_caller]
pub(super) fn silent(pool: &Pool, number: usize) -> Vec<Wire> {
    let before = pool.accepted();
    let silent = (0..number).map(|_| pool.connect()).collect();
    eventually("all are accepted", || pool.accepted() == before + number);
    silent
}

/// Descriptors that these processes have open.
fn open(processes: &[i32]) -> usize {
    processes.iter().map(|&process| count(process, "fd")).sum()
}

/// Those of sockets.
pub(super) fn sockets(processes: &[i32]) -> usize {
    let links =
        processes.iter().flat_map(|process| fs::read_dir(format!("/proc/{process}/fd")).unwrap());
    // One that is closed meanwhile is none.
    let names = links.filter_map(|link| fs::read_link(link.unwrap().path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
}

/// Asks all connections at once, and gives who answered each.
#[track_caller]
pub(super) fn ask_all<'a>(wires: impl IntoIterator<Item = &'a mut Wire>) -> Vec<i32> {
    let wires: Vec<_> = wires.into_iter().collect();
    let ask = Ask::post("/other", "body").keep();
    wires.iter().for_each(|wire| wire.send(&ask.bytes()));
    let answers = wires.into_iter().map(Wire::answer);
    answers
        .inspect(|answer| assert_eq!(answer.text(), "/other|body"))
        .map(|answer| answer.pid())
        .collect()
}

/// Two workers of `threads` threads, all of which have served.
pub(super) fn two_workers(threads: usize) -> Pool {
    let setup = Setup::new(GATED).gated();
    let mut pool = setup.words(&["--workers", "2", "--threads", &threads.to_string()]).start();
    let mut wires: Vec<_> = (0..2 * threads).map(|_| pool.connect()).collect();
    wires.iter().for_each(|wire| wire.send(&Ask::get("/slow/first").bytes()));
    pool.await_times("at the gate: /slow/first\n", wires.len());
    wires.iter().for_each(|_| pool.open_gate());
    wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow/first|"));
    eventually("all are closed", || pool.accepted() == 0);
    pool
}

/// Has both workers of one thread wait at the gate, each for a connection.
#[track_caller]
pub(super) fn occupy(pool: &mut Pool) -> [Wire; 2] {
    let workers = pool.workers(2);
    let before = sockets(&workers);
    let busy = [pool.connect(), pool.connect()];
    busy.iter().for_each(|wire| wire.send(&Ask::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    eventually("each connection is open in one of them", || sockets(&workers) == before + 2);
    busy
}

#[test]
fn f50_requests_on_keep_alive_connections_do_not_wait_for_a_busy_worker() {
    let mut pool = two_workers(1);
    let mut wires = kept(&pool, 8);
    for times in 1..=4 {
        let (busy, others) = wires.split_first_mut().unwrap();
        busy.0.send(&Ask::get("/slow").keep().bytes());
        pool.await_times(AT_THE_GATE, times);
        for _ in 0..3 {
            ask_all(others.iter_mut().map(|(wire, _)| wire));
        }
        pool.open_gate();
        assert_eq!(busy.0.answer().text(), "/slow|");
        wires.rotate_left(1);
    }
    pool.stop();
}

#[test]
fn requests_on_connections_that_were_silent_do_not_wait_for_a_busy_worker() {
    let setup = || Setup::new(GATED).gated().words(&["--workers", "2"]);
    let by_tcp = setup().listen(&["127.0.0.1:0"]).variable("FCGI_WEB_SERVER_ADDRS", "127.0.0.1");
    for setup in [setup(), by_tcp] {
        let mut pool = setup.start();
        let mut wires = silent(&pool, 8);
        let (busy, others) = wires.split_first_mut().unwrap();
        busy.send(&Ask::get("/slow").keep().bytes());
        pool.await_log(AT_THE_GATE);
        ask_all(others);
        pool.open_gate();
        assert_eq!(busy.answer().text(), "/slow|");
        pool.stop();
    }
}

#[test]
fn requests_wait_for_no_worker_whose_threads_are_all_busy() {
    let mut pool = two_workers(2);
    let mut wires = kept(&pool, 8);
    let mut by_worker: BTreeMap<i32, usize> = BTreeMap::new();
    wires.iter().for_each(|(_, worker)| *by_worker.entry(*worker).or_default() += 1);
    // The one that has most has at least four.
    let worker = *by_worker.iter().max_by_key(|(_, count)| **count).unwrap().0;
    wires.sort_by_key(|(_, known)| *known != worker);
    let (busy, others) = wires.split_at_mut(2);
    busy.iter().for_each(|(wire, _)| wire.send(&Ask::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    let by = ask_all(others.iter_mut().map(|(wire, _)| wire));
    (0..2).for_each(|_| pool.open_gate());
    let busy: HashSet<i32> = busy.iter_mut().map(|(wire, _)| wire.answer().pid()).collect();
    assert!(busy.len() == 2 || by.iter().all(|by| !busy.contains(by)), "{busy:?} {by:?}");
    pool.stop();
}

#[test]
fn a_request_that_waits_for_a_worker_is_served_by_the_first_idle_one() {
    let mut pool = two_workers(1);
    let mut others = kept(&pool, 6);
    let mut quiet = silent(&pool, 2);
    let mut busy = occupy(&mut pool);
    let waiting = || others.iter().map(|(wire, _)| wire).chain(&quiet);
    waiting().for_each(|wire| wire.send(&Ask::post("/other", "body").keep().bytes()));
    pool.open_gate();
    let answers = others.iter_mut().map(|(wire, _)| wire).chain(&mut quiet).map(Wire::answer);
    let pids: HashSet<i32> = answers
        .inspect(|answer| assert_eq!(answer.text(), "/other|body"))
        .map(|answer| answer.pid())
        .collect();
    assert_eq!(pids.len(), 1, "one of them has had time: {pids:?}");
    pool.open_gate();
    busy.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow|"));
    pool.stop();
}

/// Has both workers wait at the gate, and a request on each of so many keep-alive connections lie
/// in the queue.
#[track_caller]
fn queued(pool: &mut Pool, number: usize) -> ([Wire; 2], Vec<Wire>, Vec<i32>) {
    let workers = pool.workers(2);
    let others: Vec<Wire> = kept(pool, number).into_iter().map(|(wire, _)| wire).collect();
    let busy = occupy(pool);
    let before = sockets(&workers);
    others.iter().for_each(|wire| wire.send(&Ask::post("/other", "body").keep().bytes()));
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
    others.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/other|body"));
    busy.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow|"));
    ask_all(others.iter_mut().chain(&mut busy));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_web_server_that_disconnects_while_its_worker_is_busy_is_not_waited_for() {
    let mut pool = two_workers(1);
    let workers = pool.workers(2);
    let others = kept(&pool, 4);
    let mut busy = occupy(&mut pool);
    let before = sockets(&workers);
    drop(others);
    eventually("the workers have closed them, too", || sockets(&workers) == before - 4);
    (0..2).for_each(|_| pool.open_gate());
    busy.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow|"));
    ask_all(&mut busy);
    pool.stop();
}

#[test]
fn a_worker_that_is_killed_takes_no_request_along_that_waits_for_all() {
    let mut pool = two_workers(1);
    let (mut busy, mut others, workers) = queued(&mut pool, 4);
    signal(workers[0], Signal::KILL);
    // The next one has time, though the other has not.
    others.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/other|body"));
    pool.open_gate();
    let finished = busy.iter_mut().filter_map(|wire| wire.try_answer().ok()?).count();
    assert_eq!(finished, 1);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0701"], "{log}");
}

#[test]
fn a_pool_that_stops_serves_waiting_requests_and_closes_all_connections() {
    let mut pool = two_workers(1);
    let mut quiet = silent(&pool, 2);
    let mut idle = kept(&pool, 4);
    let (mut busy, mut others, _) = queued(&mut pool, 4);
    pool.signal(Signal::TERM);
    pool.await_log("W0712");
    (0..2).for_each(|_| pool.open_gate());
    for wire in &mut others {
        assert_eq!(wire.answer().text(), "/other|body");
    }
    for wire in &mut busy {
        assert_eq!(wire.answer().text(), "/slow|");
    }
    let idle = idle.iter_mut().map(|(wire, _)| wire);
    busy.iter_mut().chain(&mut others).chain(&mut quiet).chain(idle).for_each(Wire::assert_closed);
    let ended = pool.end();
    assert_eq!((ended.code(), codes(&ended.stderr).len()), (Some(0), 0), "{}", ended.stderr);
}

#[test]
fn a_pool_grows_for_requests_on_keep_alive_connections() {
    let mut pool =
        Setup::new(GATED).gated().dynamic(&["--max", "2", "--min", "1", "--idle", "1000"]).start();
    let mut wires = kept(&pool, 4);
    let (busy, others) = wires.split_first_mut().unwrap();
    busy.0.send(&Ask::get("/slow").keep().bytes());
    pool.await_log(AT_THE_GATE);
    let by = ask_all(others.iter_mut().map(|(wire, _)| wire));
    assert!(!by.contains(&busy.1), "{by:?}");
    pool.workers(2);
    pool.open_gate();
    assert_eq!(busy.0.answer().pid(), busy.1);
    pool.stop();
}

#[test]
fn a_thousand_connections_that_change_their_worker_leave_no_descriptor_behind() {
    let mut pool = two_workers(1);
    let mut wires = kept(&pool, 16);
    let workers = pool.workers(2);
    let (mut changed, mut rounds) = (0, 0);
    let mut before = None;
    while changed < 1000 {
        rounds += 1;
        // The one that has most of the connections is busy, and the other gets them.
        let most = workers
            .iter()
            .max_by_key(|worker| wires.iter().filter(|(_, by)| by == *worker).count())
            .unwrap();
        wires.sort_by_key(|(_, by)| by != most);
        let (busy, others) = wires.split_first_mut().unwrap();
        busy.0.send(&Ask::get("/slow").keep().bytes());
        pool.await_times(AT_THE_GATE, rounds);
        let by = ask_all(others.iter_mut().map(|(wire, _)| wire));
        for ((_, known), by) in others.iter_mut().zip(by) {
            changed += usize::from(*known != by);
            *known = by;
        }
        pool.open_gate();
        busy.1 = busy.0.answer().pid();
        if rounds == 2 {
            before = Some((open(&workers), open(&[pool.pid(), pool.template()])));
        }
    }
    assert_eq!(Some((open(&workers), open(&[pool.pid(), pool.template()]))), before);
    assert_eq!(workers, pool.workers(2));
    // One thread beside the one that serves, however often it was needed.
    assert!(workers.iter().all(|&worker| count(worker, "task") <= 2));
    pool.stop();
}

#[test]
fn as_many_requests_as_there_are_workers_are_served_at_once() {
    let mut pool = Setup::new(GATED).gated().words(&["--workers", "4"]).start();
    pool.workers(4);
    let mut wires = Vec::new();
    for round in 0..60 {
        // Upon connections that are new, and again upon the same.
        if round % 3 == 0 {
            wires = (0..4).map(|_| pool.connect()).collect::<Vec<Wire>>();
        }
        wires.iter().for_each(|wire| wire.send(&Ask::get("/slow").keep().bytes()));
        pool.await_times(AT_THE_GATE, 4 * (round + 1));
        wires.iter().for_each(|_| pool.open_gate());
        wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow|"));
    }
    pool.stop();
}
