//! A reload changes the code and costs nobody anything.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use rustix::process::Signal;

use super::{
    GATED,
    process::{Pool, Setup, children, signal},
    wire::{Ask, Wire},
};
use crate::{front::eventually, running::DEADLINE, verdict::codes};

/// A release of the application.
fn release(number: u32) -> String {
    format!(
        "
        def application(environ, start_response):
            environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'release {number}']
        "
    )
}

/// A client that asks again and again.
struct Client {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: JoinHandle<Result<(), String>>,
}

impl Client {
    /// Asks over kept connections, or over a new one each time.
    fn start(socket: PathBuf, keep: bool) -> Self {
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (seen, counted) = (over.clone(), asked.clone());
        let thread = thread::spawn(move || {
            let ask = Ask::post("/", "body");
            let ask = if keep { ask.keep() } else { ask };
            let mut kept = None;
            while !seen.load(Ordering::Relaxed) {
                let used_before = kept.is_some();
                let mut wire = kept.take().unwrap_or_else(|| Wire::unix(&socket));
                let sent = wire.send_beside(ask.bytes()).join().unwrap();
                match wire.try_answer() {
                    Ok(Some(answer)) if answer.head().status == 200 && answer.text().starts_with("release ") => {}
                    // A connection that was used before may be closed between requests: web servers ask anew.
                    Ok(None) if used_before => continue,
                    Err(error) if used_before && error.kind() == std::io::ErrorKind::ConnectionReset => continue,
                    other => return Err(format!("{other:?}, sent: {sent:?}, over a kept connection: {used_before}")),
                }
                counted.fetch_add(1, Ordering::Relaxed);
                if keep {
                    kept = Some(wire);
                }
            }
            Ok(())
        });
        Self { over, asked, thread }
    }

    #[track_caller]
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
    }
}

/// Waits until all clients together have had so many more answers.
#[track_caller]
fn answered(clients: &[Client], more: u64) {
    let total = || clients.iter().map(|client| client.asked.load(Ordering::Relaxed)).sum::<u64>();
    let before = total();
    eventually(&format!("{more} more requests are answered"), || {
        total() >= before + more || clients.iter().any(|client| client.thread.is_finished())
    });
}

/// Waits until the pool answers with a release.
#[track_caller]
fn answers(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || pool.ask(&Ask::get("/")).text() == expected);
}

#[test]
fn new_code_answers_after_a_reload() {
    let mut pool = Setup::new(&release(1)).words(&["--workers", "2"]).start();
    assert_eq!(pool.ask(&Ask::get("/")).text(), "release 1");
    let before = pool.workers(2);
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    answers(&pool, 2);
    eventually("the old template and its workers have ended", || children(pool.pid()).len() == 1);
    assert!(pool.workers(2).iter().all(|worker| !before.contains(worker)));
    for _ in 0..10 {
        assert_eq!(pool.ask(&Ask::get("/")).text(), "release 2");
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn reloads_under_load_fail_no_request_and_a_broken_release_changes_nothing() {
    let mut pool = Setup::new(&release(1)).words(&["--workers", "2"]).start();
    let clients: Vec<_> = (0..4).map(|number| Client::start(pool.socket(), number % 2 == 1)).collect();
    let (mut good, mut broken) = (0, 0);
    let mut serving = 1;
    for number in 2..=6 {
        answered(&clients, 50);
        if number % 2 == 1 {
            pool.setup().release(if number == 3 { "import there_is_no_such_module" } else { "def application(:" });
            broken += 1;
        } else {
            pool.setup().release(&release(number));
            serving = number;
            good += 1;
        }
        pool.signal(Signal::HUP);
        pool.await_times("W0711", good);
        pool.await_times("W0703", broken);
        answers(&pool, serving);
        answered(&clients, 50);
        assert_eq!(pool.ask(&Ask::get("/")).text(), format!("release {serving}"));
    }
    assert_eq!((good, broken), (3, 2));
    clients.into_iter().for_each(Client::end);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0302", "W0703", "W0301", "W0703"], "{log}");
}

#[test]
fn a_dynamic_pool_that_changes_all_the_time_fails_no_request() {
    let words = ["--max", "4", "--idle", "1", "--max-requests", "100", "--max-age", "1", "--threads", "2"];
    let mut pool = Setup::new(&release(1)).dynamic(&words).start();
    for round in 1..=3 {
        let clients: Vec<_> = (0..6).map(|number| Client::start(pool.socket(), number % 2 == 1)).collect();
        answered(&clients, 300);
        pool.setup().release(&release(round + 1));
        pool.signal(Signal::HUP);
        pool.await_times("W0711", usize::try_from(round).unwrap());
        answers(&pool, round + 1);
        answered(&clients, 300);
        clients.into_iter().for_each(Client::end);
        // So that it grows from nothing each time.
        pool.await_times("W0341", usize::try_from(round).unwrap());
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_pool_that_has_kept_its_old_code_replaces_workers_with_the_same() {
    let mut pool = Setup::new(&release(1)).start();
    pool.setup().release("raise RuntimeError");
    pool.signal(Signal::HUP);
    pool.await_log("W0703");
    let worker = pool.workers(1)[0];
    signal(worker, Signal::KILL);
    pool.await_log("W0701");
    answers(&pool, 1);
    pool.stop();
}

#[test]
fn a_request_that_is_served_during_a_reload_is_finished_by_the_old_code() {
    let mut pool = Setup::new(GATED).gated().start();
    let mut slow = pool.connect();
    slow.send(&Ask::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    answers(&pool, 2);
    pool.open_gate();
    assert_eq!(slow.answer().text(), "/slow|");
    slow.assert_closed();
    pool.stop();
}

#[test]
fn reloads_that_overtake_each_other_end_with_the_last_release() {
    let pool = Setup::new(&release(1)).words(&["--workers", "2"]).start();
    for number in 2..12 {
        pool.setup().release(&release(number));
        pool.signal(Signal::HUP);
    }
    answers(&pool, 11);
    eventually("one template is left", || children(pool.pid()).len() == 1);
    pool.workers(2);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_reload_right_after_the_start_leaves_no_worker_of_the_old_code() {
    for _ in 0..5 {
        let pool = Setup::new(&release(1)).words(&["--workers", "3"]).start();
        pool.setup().release(&release(2));
        pool.signal(Signal::HUP);
        answers(&pool, 2);
        eventually("one template is left", || children(pool.pid()).len() == 1);
        pool.workers(3);
        for _ in 0..10 {
            assert_eq!(pool.ask(&Ask::get("/")).text(), "release 2");
        }
        pool.stop();
    }
}

#[test]
fn a_slow_request_of_the_old_code_is_ended_when_its_time_is_over() {
    let mut pool = Setup::new(GATED).gated().words(&["--drain", "1"]).start();
    let mut slow = pool.connect();
    slow.send(&Ask::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    let begin = std::time::Instant::now();
    assert!(!matches!(slow.try_answer(), Ok(Some(_))));
    assert!(begin.elapsed() < DEADLINE / 4, "{:?}", begin.elapsed());
    answers(&pool, 2);
    pool.stop();
}
