//! Workers come, are replaced, and come back after whatever ends them.

use std::{fs, process::Stdio, time::Instant};

use rustix::process::Signal;

use crate::{
    pool::{ECHO, GATED, only_log_message},
    support::{
        assertions::codes,
        child_process::run,
        fastcgi_client::FastcgiRequest,
        pool::{PoolSetup, signal},
        waiting::DEADLINE,
        web_servers::eventually,
    },
};

#[test]
fn a_pool_has_the_configured_number_of_workers() {
    for count in ["1", "3"] {
        let pool = PoolSetup::new(ECHO).args(&["--workers", count]).start();
        pool.workers(count.parse().unwrap());
        pool.stop();
    }
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_named_in_the_log() {
    let mut pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
    let before = pool.workers(2);
    signal(before[0], Signal::KILL);
    pool.await_log("hint: ");
    eventually("another worker is there", || {
        let now = pool.workers(2);
        now.contains(&before[1]) && !now.contains(&before[0])
    });
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    let message = only_log_message(&log, "W0701");
    // The worker is named as `wsgate status` names it.
    assert!(message.contains(&format!("worker {} was killed by SIGKILL", before[0])), "{message}");
}

#[test]
fn a_worker_that_crashes_takes_only_its_own_request_with_it() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/crash':
                os.kill(os.getpid(), 11)
            if environ['PATH_INFO'] == '/exit':
                os._exit(7)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'fine']
        ",
    )
    .start();
    for (path, how) in [("/crash", "killed by SIGSEGV"), ("/exit", "exited with status 7")] {
        let mut connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        // The connection is closed without a word, which web servers answer with 502 or 503.
        assert!(!matches!(connection.try_response(), Ok(Some(_))));
        pool.await_log(how);
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "fine");
    }
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0701", "W0701"], "{log}");
}

#[test]
fn a_record_of_json_about_a_crash_names_the_request() {
    let mut pool = PoolSetup::new(
        "import os\ndef application(environ, start_response):\n    os.kill(os.getpid(), 11)\n",
    )
    .args(&["--log-format", "json"])
    .start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/crash").bytes());
    assert!(!matches!(connection.try_response(), Ok(Some(_))));
    pool.await_log("W0701");
    let log = pool.stop();
    let record = log.lines().find(|line| line.contains("W0701")).unwrap();
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    assert_eq!((&record["method"], &record["target"]), (&"GET".into(), &"/crash".into()));
    let served = format!("it was serving `{} GET /crash`", record["request_id"].as_str().unwrap());
    assert_eq!(record["detail"], served);
}

#[test]
fn a_worker_that_an_application_makes_exit_is_replaced_with_a_log_message() {
    let mut pool =
        PoolSetup::new("import os\ndef application(environ, start_response):\n    os._exit(0)\n")
            .start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/").bytes());
    assert!(!matches!(connection.try_response(), Ok(Some(_))));
    pool.await_log("exited with status 0");
    let log = pool.stop();
    only_log_message(&log, "W0701");
}

#[test]
fn workers_that_exit_at_their_start_are_not_forked_without_a_pause() {
    for status in ["3", "0"] {
        let mut pool = PoolSetup::new(
            "
            import os
            def end():
                os.write(2, b'forked\\n')
                os._exit(int(os.environ['STATUS']))
            os.register_at_fork(after_in_child=end)
            def application(environ, start_response):
                raise RuntimeError
            ",
        )
        .variable("STATUS", status)
        .start();
        let begin = Instant::now();
        // The pauses between two workers grow: without them there would be 50 workers in 2 s.
        pool.await_times("forked\n", 4);
        assert!(begin.elapsed().as_millis() > 300, "status {status}: {:?}", begin.elapsed());
        eventually("two seconds are over", || begin.elapsed().as_secs() >= 2);
        pool.await_times("forked\n", 5);
        let forks = pool.log().matches("forked\n").count();
        assert!(forks < 12, "status {status}: {forks} forks in {:?}", begin.elapsed());
        pool.stop();
    }
}

#[test]
fn a_worker_is_replaced_after_max_requests_and_no_request_fails() {
    for args in [&["--workers", "1"][..], &["--workers", "2"], &["--threads", "2"]] {
        let pool = PoolSetup::new(ECHO).args(args).args(&["--max-requests", "5"]).start();
        let mut served: std::collections::HashMap<i32, u32> = Default::default();
        for _ in 0..60 {
            let response = pool.ask(&FastcgiRequest::post("/", "body"));
            assert_eq!(response.text(), "/|body");
            *served.entry(response.pid()).or_default() += 1;
        }
        assert!(served.len() >= 8, "{served:?}");
        // Each thread may accept one more connection before it learns that the worker stops.
        let more = if args[0] == "--threads" { 3 } else { 1 };
        assert!(served.values().all(|&count| count <= 5 + more), "{served:?}");
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn a_template_that_is_killed_is_replaced_and_its_workers_with_it() {
    let mut pool = PoolSetup::new(ECHO).args(&["--workers", "2"]).start();
    let before = pool.workers(2);
    signal(pool.template(), Signal::KILL);
    pool.await_times("W0710", 2);
    let after = pool.workers(2);
    assert!(after.iter().all(|worker| !before.contains(worker)), "{before:?} {after:?}");
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert!(only_log_message(&log, "W0703").contains("KILL"), "{log}");
}

#[test]
fn a_supervisor_that_is_killed_leaves_no_process_behind() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--workers", "2"]).start();
    pool.workers(2);
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.signal(Signal::KILL);
    assert!(!matches!(connection.try_response(), Ok(Some(_))));
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(ended.code(), None);
    // Its socket is left, and another pool takes that.
    let pool = setup.start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    pool.stop();
}

#[test]
fn an_application_that_cannot_be_loaded_at_the_start_ends_the_pool_with_the_reason() {
    for (code, expected) in [
        ("import there_is_no_such_module", "W0302"),
        ("raise RuntimeError('no')", "W0301"),
        ("application = 1", "W0303"),
        ("import sys; sys.exit(0)", "W0304"),
        ("import os; os._exit(0)", "W0703"),
        ("import os; os.kill(os.getpid(), 9)", "W0703"),
    ] {
        let setup = PoolSetup::new(code);
        let pool = setup.launch();
        let (ended, setup) = pool.end_and_leave();
        assert_eq!(ended.code(), Some(1), "{code}: {}", ended.stderr);
        only_log_message(&ended.stderr, expected);
        assert!(!setup.path("app.sock").exists(), "{code}");
    }
}

#[test]
fn an_interpreter_that_cannot_load_the_engine_ends_the_pool_with_the_reason() {
    let setup = PoolSetup::new(ECHO);
    let engine = setup.path("broken.so");
    fs::write(&engine, "no library").unwrap();
    let ended = run(setup.command().env("WSGATE_ENGINE", &engine).stdin(Stdio::piped()), "");
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    only_log_message(&ended.stderr, "W0206");
}

#[test]
fn threads_that_are_started_at_import_are_warned_of() {
    let mut pool = PoolSetup::new(&format!(
        "import threading\nthreading.Thread(target=threading.Event().wait, \
            daemon=True).start()\n{}",
        crate::support::probe::dedent(ECHO)
    ))
    .args(&["--preload", "yes"])
    .start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/works")).text(), "/works|");
    pool.await_log("hint: ");
    let log = pool.stop();
    assert!(only_log_message(&log, "W0307").contains("1 thread"), "{log}");
}

#[test]
fn f31_requests_above_the_number_of_workers_wait_and_are_served() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--workers", "2"]).start();
    let slow = ["/slow/1", "/slow/2"].map(|path| {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::get(path).bytes());
        connection
    });
    pool.await_log("at the gate: /slow/1");
    pool.await_log("at the gate: /slow/2");
    let mut waiting = (0..10).map(|_| pool.connect()).collect::<Vec<_>>();
    waiting.iter().for_each(|connection| connection.send(&FastcgiRequest::get("/waits").bytes()));
    pool.open_gate();
    pool.open_gate();
    for mut connection in slow {
        assert!(connection.response().text().starts_with("/slow/"));
    }
    for connection in &mut waiting {
        assert_eq!(connection.response().text(), "/waits|");
    }
    pool.stop();
}

#[test]
fn workers_that_crash_at_every_request_are_replaced_at_once() {
    let pool = PoolSetup::new(
        "import os\ndef application(environ, start_response):\n    os.kill(os.getpid(), 9)\n",
    )
    .start();
    let begin = Instant::now();
    // With the growing pauses between workers that never serve, the requests would take minutes.
    for _ in 0..30 {
        let mut connection = pool.connect();
        connection.send(&FastcgiRequest::get("/").bytes());
        assert!(!matches!(connection.try_response(), Ok(Some(_))));
    }
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    pool.workers(1);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0701"; 30], "{log}");
}
