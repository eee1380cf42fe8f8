//! Connections that are kept outlive the workers that serve them.

use std::collections::HashSet;

use rustix::process::Signal;

use crate::{
    pool::{
        ECHO, GATED,
        connection_queue::{AT_THE_GATE, ask_all, kept, occupy, silent, sockets, two_workers},
    },
    support::{
        assertions::codes,
        fastcgi_client::{Ask, Wire},
        pool::{Setup, children, signal},
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
        let pool = Setup::new(&release(0)).words(&["--workers", "2", "--threads", threads]).start();
        let mut wires = silent(&pool, 3);
        wires.extend(kept(&pool, 6).into_iter().map(|(wire, _)| wire));
        for number in 1..=3 {
            pool.setup().release("import there_is_no_such_module");
            assert_eq!(pool.tell(&["reload", "app"]).code(), Some(1));
            let before =
                wires.iter_mut().skip(2).map(|wire| wire.ask(&Ask::get("/").keep()).text());
            before.for_each(|text| assert_eq!(text, format!("release {}|", number - 1)));
            pool.setup().release(&release(number));
            assert_eq!(pool.tell(&["reload", "app"]).code(), Some(0));
            eventually("the old template and its workers have ended", || {
                children(pool.pid()).len() == 1
            });
            let after = wires.iter_mut().skip(1).map(|wire| wire.ask(&Ask::get("/").keep()).text());
            after.for_each(|text| assert_eq!(text, format!("release {number}|")));
        }
        wires
            .iter_mut()
            .for_each(|wire| assert_eq!(wire.ask(&Ask::get("/").keep()).text(), "release 3|"));
        pool.stop();
    }
}

#[test]
fn connections_outlive_a_worker_of_the_old_code_that_takes_too_long() {
    let mut pool = two_workers(1);
    let workers = pool.workers(2);
    let before = sockets(&workers);
    let mut wires: Vec<Wire> = kept(&pool, 6).into_iter().map(|(wire, _)| wire).collect();
    wires.extend(silent(&pool, 2));
    let mut busy = occupy(&mut pool);
    assert_eq!(pool.tell(&["reload", "app"]).code(), Some(0));
    eventually("they have given all others away", || sockets(&workers) == before + busy.len());
    workers.iter().for_each(|&worker| signal(worker, Signal::KILL));
    busy.iter_mut().for_each(|wire| assert!(!matches!(wire.try_answer(), Ok(Some(_)))));
    assert!(ask_all(&mut wires).iter().all(|by| !workers.contains(by)));
    pool.stop();
}

#[test]
fn connections_are_the_same_whatever_workers_are_replaced_for() {
    for words in [["--max-requests", "10"], ["--max-age", "1"], ["--max-rss", "1M"]] {
        for (workers, threads) in [("1", "1"), ("2", "2")] {
            let pool = Setup::new(ECHO)
                .words(&["--workers", workers, "--threads", threads])
                .words(&words)
                .start();
            let mut wires = kept(&pool, 6);
            let mut pids = HashSet::new();
            eventually(&format!("a pool with {words:?} has had 8 workers"), || {
                for (wire, _) in &mut wires {
                    let answer = wire.ask(&Ask::post("/", "body").keep());
                    assert_eq!(answer.text(), "/|body");
                    pids.insert(answer.pid());
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
        Setup::new(GATED).gated().dynamic(&["--max", "2", "--min", "1", "--idle", "1"]).start();
    let mut wires = [pool.connect(), pool.connect()];
    wires.iter().for_each(|wire| wire.send(&Ask::get("/slow").keep().bytes()));
    pool.await_times(AT_THE_GATE, 2);
    pool.workers(2);
    (0..2).for_each(|_| pool.open_gate());
    wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/slow|"));
    pool.workers(1);
    assert_eq!(HashSet::<i32>::from_iter(ask_all(&mut wires)).len(), 1);
    pool.stop();
}
