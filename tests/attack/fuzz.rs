//! Bytes that are almost FastCGI, while others are served.

use std::{fs, sync::Arc};

use crate::{
    attack::{
        ECHO,
        load::Load,
        report::Counts,
        target::{Options, Target, pause},
        times, turn_in_short_form,
    },
    each_mode::Mode,
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest, record},
        install_dir::InstallDir,
        noise::Disturbance,
        random::Random,
        web_servers::eventually,
    },
};

/// Connections with noise that are open at a time.
const LEFT_OPEN: usize = 30;

/// Well-formed records whose order, types, ids and lengths have no meaning.
fn records(random: &mut Random) -> Vec<u8> {
    let length = random.below(3000);
    let request = FastcgiRequest::post("/fuzz", random.bytes(length))
        .id(u16::try_from(1 + random.below(2)).unwrap());
    let mut parts =
        vec![request.begin(), record(4, request.id, &request.pairs()), record(4, request.id, b"")];
    parts.extend([request.stdin(&random.bytes(length)), request.end_of_stdin()]);
    for _ in 0..1 + random.below(4) {
        let at = random.below(parts.len());
        let (length, kind) = (random.below(40), u8::try_from(random.below(14)).unwrap());
        let other = record(kind, u16::try_from(random.below(3)).unwrap(), &random.bytes(length));
        match random.below(6) {
            0 => parts.insert(at, other),
            1 => parts.insert(at, parts[at].clone()),
            2 if parts.len() > 1 => drop(parts.remove(at)),
            3 => {
                let with = random.below(parts.len());
                parts.swap(at, with);
            }
            4 => parts.insert(at, request.abort()),
            _ => {
                // A byte of the header.
                if let Some(byte) = parts[at].get_mut(random.below(8)) {
                    *byte = random.bytes(1)[0];
                }
            }
        }
    }
    parts.concat()
}

/// Sends bytes in pieces.
fn send_in_pieces(connection: &FastcgiConnection, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(1 + random.below(700)));
        // The other end may have closed the connection.
        if connection.try_send(piece).is_err() {
            return;
        }
        rest = more;
    }
}

/// Sends noise of each kind, and records in an order without meaning.
fn disturb(target: &Target, random: &mut Random, disturbance: &mut Disturbance) {
    disturbance.send(random, || target.connect());
    let bytes = records(random);
    send_in_pieces(&target.connect(), &bytes, random);
}

/// Descriptors and memory of a process, once its descriptors no longer change.
pub(super) fn held(pid: i32) -> (usize, u64) {
    let count = || fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default();
    let mut open = usize::MAX;
    eventually("connections are closed", || {
        pause(std::time::Duration::from_millis(50));
        let before = std::mem::replace(&mut open, count());
        before == open
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    (open, memory.unwrap_or_default())
}

fn fuzz(threads: u32, row: &str) {
    let _turn = turn_in_short_form();
    let mut random = Random::new();
    let dir = Arc::new(InstallDir::new());
    let target = Target::start(&dir, "fuzz", Mode::Preloaded(threads), ECHO, Options::default());
    let target = Arc::new(target);
    let supervisor = target.leader().unwrap();
    let workers = target.workers();
    let mut disturbance = Disturbance::new(LEFT_OPEN);
    // Python loads modules at the first failure of a process, which grow it once.
    let load = Load::start(&target, 4);
    for _ in 0..200 {
        disturb(&target, &mut random, &mut disturbance);
    }
    load.await_answers(&target, 20).unwrap();
    load.end().unwrap();
    disturbance.close();
    let before = [held(workers[0]), held(supervisor)];
    let load = Load::start(&target, 4);
    let rounds = times(200, 10_000);
    for _ in 0..rounds {
        disturb(&target, &mut random, &mut disturbance);
    }
    load.await_answers(&target, 20).unwrap();
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    disturbance.close();
    target.await_good("/good-after");
    let after = [held(workers[0]), held(supervisor)];
    for (before, after) in before.iter().zip(&after) {
        assert!(after.0 <= before.0, "descriptors: {before:?}, then {after:?}");
        assert!(after.1 <= before.1 + 4096, "memory: {before:?}, then {after:?}");
    }
    assert_eq!(target.workers(), workers, "no worker has ended");
    let counts = Counts {
        tried: format!("{} connections with bytes that break the protocol", rounds * 4),
        answered: tally.answered.load(std::sync::atomic::Ordering::Relaxed),
        lost: tally.lost(),
        how: format!("{:?}", tally.how),
    };
    assert_eq!(tally.lost(), 0, "{counts:?}");
    let log = target.stop().unwrap();
    for code in codes(&log) {
        assert!(
            ["W0401", "W0402", "W0501", "W0406"].contains(&code),
            "{code}\n{}",
            &log[..log.len().min(4000)]
        );
    }
    counts.report(row);
}

#[test]
fn fuzzing_a_pool_of_one_thread_costs_no_worker_and_no_request() {
    fuzz(1, "FastCGI fuzzing, 1 thread");
}

#[test]
fn fuzzing_a_pool_of_eight_threads_costs_no_worker_and_no_request() {
    fuzz(8, "FastCGI fuzzing, 8 threads");
}
