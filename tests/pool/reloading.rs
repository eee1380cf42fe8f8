//! A reload changes the code and costs nobody anything.

use rustix::process::Signal;

use crate::{
    pool::GATED,
    support::{
        assertions::codes,
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup, children, signal},
        waiting::DEADLINE,
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
fn responses(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || pool.ask(&FastcgiRequest::get("/")).text() == expected);
}

#[test]
fn new_code_answers_after_a_reload() {
    let pool = PoolSetup::new(&release(1)).args(&["--workers", "2"]).start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "release 1");
    for (number, by) in [(2, Signal::HUP), (3, Signal::HUP)] {
        let before = pool.workers(2);
        pool.setup().release(&release(number));
        pool.signal(by);
        responses(&pool, number);
        eventually("the old template and its workers have ended", || {
            children(pool.pid()).len() == 1
        });
        assert!(pool.workers(2).iter().all(|worker| !before.contains(worker)));
        for _ in 0..10 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), format!("release {number}"));
        }
    }
    let log = pool.stop();
    assert_eq!(log.matches("W0711").count(), 2, "{log}");
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn no_request_after_the_result_of_a_reload_is_served_by_the_old_code() {
    for [threads, preload] in [["1", "yes"], ["3", "yes"], ["1", "no"]] {
        let options = ["--workers", "4", "--threads", threads, "--preload", preload];
        let pool = PoolSetup::new(&release(1)).args(&options).start();
        let mut kept: Vec<_> = (0..3).map(|_| pool.connect()).collect();
        let keep = FastcgiRequest::get("/").keep();
        kept.iter_mut().for_each(|connection| drop(connection.ask(&keep)));
        for number in 2..12 {
            pool.setup().release(&release(number));
            let ended = pool.run_wsgate(&["reload", "app"]);
            assert_eq!(ended.code(), Some(0), "{options:?}: {}", ended.stderr);
            let expected = format!("release {number}");
            for _ in 0..8 {
                let response = pool.ask(&FastcgiRequest::get("/")).text();
                assert_eq!(response, expected, "{options:?}");
            }
            for connection in &mut kept {
                assert_eq!(connection.ask(&keep).text(), expected, "{options:?}, kept alive");
            }
        }
        pool.stop();
    }
}

#[test]
fn a_worker_that_was_busy_during_a_reload_leaves_new_connections_to_the_new_code() {
    for preload in ["yes", "no"] {
        let setup = PoolSetup::new(GATED).gated().args(&["--preload", preload]);
        let hold = setup.path("hold");
        let mut pool = setup.start();
        let old = pool.workers(1)[0];
        let mut slow = pool.connect();
        slow.send(&FastcgiRequest::get("/slow").bytes());
        pool.await_log("at the gate");
        std::fs::write(&hold, "").unwrap();
        pool.setup().release(&format!(
            "
            import os, time
            def application(environ, start_response):
                environ['wsgi.input'].read()
                if environ['PATH_INFO'] == '/hold':
                    print('holding')
                while environ['PATH_INFO'] == '/hold' and os.path.exists({hold:?}):
                    time.sleep(0.01)
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'release 2']
            "
        ));
        assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
        let mut held = pool.connect();
        held.send(&FastcgiRequest::get("/hold").bytes());
        pool.await_log("holding");
        let mut next = pool.connect();
        next.send(&FastcgiRequest::get("/").bytes());
        pool.open_gate();
        assert_eq!(slow.response().text(), "/slow|");
        eventually("the old worker has exited", || {
            !std::path::Path::new(&format!("/proc/{old}")).exists()
        });
        std::fs::remove_file(&hold).unwrap();
        assert_eq!(held.response().text(), "release 2", "{preload}");
        assert_eq!(next.response().text(), "release 2", "{preload}");
        pool.stop();
    }
}

#[test]
fn a_busy_worker_with_old_code_does_not_delay_the_result_of_a_reload() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.setup().release(&release(2));
    // The worker is busy, and takes no other request.
    let begin = std::time::Instant::now();
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    assert!(begin.elapsed() < DEADLINE / 4, "{:?}", begin.elapsed());
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "release 2");
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    pool.stop();
}

#[test]
fn a_pool_that_still_has_its_old_code_replaces_workers_with_the_same_code() {
    let mut pool = PoolSetup::new(&release(1)).start();
    pool.setup().release("raise RuntimeError");
    pool.signal(Signal::HUP);
    pool.await_log("W0715");
    let worker = pool.workers(1)[0];
    signal(worker, Signal::KILL);
    pool.await_log("W0701");
    responses(&pool, 1);
    pool.stop();
}

#[test]
fn a_request_that_is_served_during_a_reload_is_finished_by_the_old_code() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    responses(&pool, 2);
    pool.open_gate();
    assert_eq!(slow.response().text(), "/slow|");
    // The old worker may not have received SIGTERM yet.
    eventually("the connection is the new code's", || {
        slow.ask(&FastcgiRequest::get("/").keep()).text() == "release 2"
    });
    pool.stop();
}

#[test]
fn reloads_that_overtake_each_other_end_with_the_last_release() {
    let pool = PoolSetup::new(&release(1)).args(&["--workers", "2"]).start();
    for number in 2..12 {
        pool.setup().release(&release(number));
        pool.signal(Signal::HUP);
    }
    responses(&pool, 11);
    eventually("one template is left", || children(pool.pid()).len() == 1);
    pool.workers(2);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_reload_right_after_the_start_leaves_no_worker_of_the_old_code() {
    for _ in 0..5 {
        let pool = PoolSetup::new(&release(1)).args(&["--workers", "3"]).start();
        pool.setup().release(&release(2));
        pool.signal(Signal::HUP);
        responses(&pool, 2);
        eventually("one template is left", || children(pool.pid()).len() == 1);
        pool.workers(3);
        for _ in 0..10 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "release 2");
        }
        pool.stop();
    }
}

#[test]
fn a_slow_request_of_the_old_code_is_ended_at_its_timeout() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--drain", "1"]).start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.setup().release(&release(2));
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    let begin = std::time::Instant::now();
    assert!(!matches!(slow.try_response(), Ok(Some(_))));
    assert!(begin.elapsed() < DEADLINE / 4, "{:?}", begin.elapsed());
    responses(&pool, 2);
    pool.stop();
}
