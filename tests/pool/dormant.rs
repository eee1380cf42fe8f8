//! A pool without a minimum of workers: dormant without processes of Python, and awake at the next
//! request.

use rustix::process::Signal;

use crate::{
    pool::{
        ECHO,
        dynamic::{await_dormant, dormant_setup, run_wsgate, status},
    },
    support::{
        assertions::codes, fastcgi_client::FastcgiRequest, pool::PoolSetup, web_servers::eventually,
    },
};

#[test]
fn an_idle_pool_has_no_process_of_python_and_serves_the_next_request() {
    let mut pool = dormant_setup(ECHO).start();
    for times in 1..=2 {
        await_dormant(&mut pool, times);
        assert_eq!(pool.ask(&FastcgiRequest::post("/wakes", "body")).text(), "/wakes|body");
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn all_of_many_connections_to_a_dormant_pool_are_served() {
    let mut pool = dormant_setup(ECHO).start();
    await_dormant(&mut pool, 1);
    let mut connections: Vec<_> = (0..50)
        .map(|number| {
            let connection = pool.connect();
            connection.send(&FastcgiRequest::get(&format!("/{number}")).bytes());
            connection
        })
        .collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        assert_eq!(connection.response().text(), format!("/{number}|"));
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn requests_at_the_moment_when_workers_exit_are_served() {
    let pool = PoolSetup::new(ECHO).dynamic(&["--max", "2", "--idle", "1"]).start();
    let begin = std::time::Instant::now();
    // Each request arrives about when the worker of the previous one is dismissed, a little earlier
    // or later.
    for early in [60, 30, 10, 0, 0] {
        let next = std::time::Instant::now() + std::time::Duration::from_millis(1000 - early);
        eventually("the next is due", || std::time::Instant::now() >= next);
        for number in 0..5 {
            assert_eq!(
                pool.ask(&FastcgiRequest::get(&format!("/{number}"))).text(),
                format!("/{number}|"),
                "{:?}",
                begin.elapsed()
            );
        }
    }
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_dormant_pool_stops_on_every_signal_and_command() {
    for word in ["TERM", "INT", "stop"] {
        let mut pool = dormant_setup(ECHO).start();
        await_dormant(&mut pool, 1);
        match word {
            "TERM" => pool.signal(Signal::TERM),
            "INT" => pool.signal(Signal::INT),
            _ => assert_eq!(run_wsgate(&pool, &["stop"]).code(), Some(0)),
        }
        let (ended, setup) = pool.end_and_leave();
        assert_eq!(
            (ended.code(), setup.path("app.sock").exists()),
            (Some(0), false),
            "{word}: {}",
            ended.stderr
        );
    }
}

/// Loads at once the first time, and waits at the gate later.
const LOADS_SLOWLY: &str = "
    import os
    mark = os.path.join(os.environ['MARK'], 'loaded')
    if os.path.exists(mark):
        print('loading')
        os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
    open(mark, 'w').close()
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'loaded']
    ";

#[test]
fn a_pool_that_is_asked_to_stop_while_it_wakes_stops() {
    for word in ["TERM", "stop"] {
        let mut pool = dormant_setup(LOADS_SLOWLY).gated().start();
        await_dormant(&mut pool, 1);
        let mut connection = pool.connect();
        connection.send(&FastcgiRequest::get("/").bytes());
        pool.await_log("loading");
        assert_eq!(
            (status(&pool)["loading"].as_bool(), status(&pool)["resting"].as_bool()),
            (Some(true), Some(false))
        );
        match word {
            "TERM" => pool.signal(Signal::TERM),
            _ => assert_eq!(run_wsgate(&pool, &["stop"]).code(), Some(0)),
        }
        let ended = pool.end();
        assert_eq!(ended.code(), Some(0), "{word}: {}", ended.stderr);
        assert!(!matches!(connection.try_response(), Ok(Some(_))));
    }
}

#[test]
fn a_reload_while_a_pool_wakes_loads_the_new_code_alone() {
    let mut pool = dormant_setup(LOADS_SLOWLY).gated().start();
    await_dormant(&mut pool, 1);
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/new").bytes());
    pool.await_log("loading");
    pool.setup().release(ECHO);
    assert_eq!(run_wsgate(&pool, &["reload"]).code(), Some(0));
    assert_eq!(connection.response().text(), "/new|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn a_reload_of_a_dormant_pool_loads_the_new_code_and_reports_its_outcome() {
    let mut pool = dormant_setup(ECHO).start();
    await_dormant(&mut pool, 1);
    pool.setup().release("import there_is_no_such_module");
    let ended = run_wsgate(&pool, &["reload"]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    pool.setup().release(&ECHO.replace("b'|'", "b'|new|'"));
    assert_eq!(run_wsgate(&pool, &["reload"]).code(), Some(0));
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|new|");
    await_dormant(&mut pool, 2);
    pool.signal(Signal::HUP);
    pool.await_times("W0711", 2);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0302", "W0715"], "{log}");
}

#[test]
fn crashes_in_a_pool_that_may_be_dormant_do_not_keep_it_awake() {
    let mut pool = dormant_setup(
        "
        import os
        def application(environ, start_response):
            os._exit(3)
        ",
    )
    .start();
    for times in 1..=3 {
        let mut connection = pool.connect();
        connection.send(&FastcgiRequest::get("/").bytes());
        assert!(!matches!(connection.try_response(), Ok(Some(_))));
        pool.await_times("W0701", times);
    }
    await_dormant(&mut pool, 1);
    pool.stop();
}
