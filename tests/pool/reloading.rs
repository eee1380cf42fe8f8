//! A reload changes the code and costs nobody anything.

use rustix::process::Signal;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        child_process::DEADLINE,
        fastcgi_client::Ask,
        pool::{Pool, Setup, children, signal},
        web_servers::eventually,
    },
};

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

/// Waits until the pool answers with a release.
#[track_caller]
fn answers(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || pool.ask(&Ask::get("/")).text() == expected);
}

#[test]
fn new_code_answers_after_a_reload() {
    let pool = Setup::new(&release(1)).words(&["--workers", "2"]).start();
    assert_eq!(pool.ask(&Ask::get("/")).text(), "release 1");
    for (number, by) in [(2, Signal::HUP), (3, Signal::USR2)] {
        let before = pool.workers(2);
        pool.setup().release(&release(number));
        pool.signal(by);
        answers(&pool, number);
        eventually("the old template and its workers have ended", || {
            children(pool.pid()).len() == 1
        });
        assert!(pool.workers(2).iter().all(|worker| !before.contains(worker)));
        for _ in 0..10 {
            assert_eq!(pool.ask(&Ask::get("/")).text(), format!("release {number}"));
        }
    }
    let log = pool.stop();
    assert_eq!(log.matches("W0711").count(), 2, "{log}");
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_pool_that_still_has_its_old_code_replaces_workers_with_the_same_code() {
    let mut pool = Setup::new(&release(1)).start();
    pool.setup().release("raise RuntimeError");
    pool.signal(Signal::HUP);
    pool.await_log("W0715");
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
    // The old worker may have to be told yet that it is to end.
    eventually("the connection is the new code's", || {
        slow.ask(&Ask::get("/").keep()).text() == "release 2"
    });
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
fn a_slow_request_of_the_old_code_is_ended_at_its_timeout() {
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
