//! Web servers that are none: too much, too little, or nothing that means anything (rows of the
//! practice).

use crate::{
    pool::ECHO,
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiConnection, FastcgiRequest, PARAMS, STDIN, record},
        pool::{Pool, PoolSetup, count, resident},
        web_servers::eventually,
    },
};

/// The only worker, once it has served a request, and how many descriptors it has open then.
#[track_caller]
fn at_rest(pool: &Pool) -> (i32, usize) {
    let worker = pool.ask(&FastcgiRequest::get("/")).pid();
    let mut open = 0;
    eventually("the worker has closed its connection", || {
        let before = std::mem::replace(&mut open, count(worker, "fd"));
        before == open
    });
    (worker, open)
}

/// Asserts that the same worker serves, with no more open descriptors than before.
#[track_caller]
fn is_as_before(pool: &Pool, worker: i32, open: usize) {
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).pid(), worker, "{}", pool.log());
    eventually("all connections are closed", || count(worker, "fd") <= open);
}

#[test]
fn f52_endless_parameters_are_refused_and_not_stored() {
    let pool = PoolSetup::new(ECHO).start();
    let (worker, open) = at_rest(&pool);
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/").keep();
    connection.send(&request.begin());
    connection.send(&record(PARAMS, 1, &request.pairs()));
    let before = resident(worker);
    let mut pair = vec![1, 0x80, 0, 0xff, 0x00, b'X'];
    pair.resize(6 + 0xff00, b'x');
    // 2 MB are refused, and 64 MB are no more in memory than that.
    for pairs in [32, 1000] {
        for _ in 0..pairs {
            connection.send(&record(PARAMS, 1, &pair));
        }
        if pairs == 1000 {
            connection.send(&record(PARAMS, 1, b""));
            connection.send(&request.end_of_stdin());
        }
    }
    let status = connection.response().valid().status;
    assert!((400..500).contains(&status), "{status}");
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    assert_eq!(
        connection.ask(&FastcgiRequest::get("/same connection").keep()).text(),
        "/same connection|"
    );
    drop(connection);
    is_as_before(&pool, worker, open);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0401"], "{log}");
}

#[test]
fn f52_too_many_parameters_are_refused() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    let request = (0..5000).fold(FastcgiRequest::get("/").keep(), |request, number| {
        request.param(&format!("HTTP_X_{number}"), "x")
    });
    let status = connection.ask(&request).valid().status;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0401"], "{log}");
}

#[test]
fn f52_a_length_that_lies_allocates_nothing() {
    let pool = PoolSetup::new(ECHO).start();
    let (worker, _) = at_rest(&pool);
    let before = resident(worker);
    let mut connection = pool.connect();
    for _ in 0..20 {
        connection.send(&FastcgiRequest::get("/").keep().begin());
        connection.send(&record(PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xffNAME"));
        connection.send(&record(PARAMS, 1, b""));
        connection.send(&record(STDIN, 1, b""));
        assert_eq!(connection.response().valid().status, 400);
    }
    let grown = resident(worker).saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB more");
    pool.stop();
}

#[test]
fn f54_silent_connections_are_harmless() {
    let pool = PoolSetup::new(ECHO).args(&["--worker-connections", "3000"]).start();
    let (worker, open) = at_rest(&pool);
    let silent: Vec<FastcgiConnection> = (0..2000).map(|_| pool.connect()).collect();
    for _ in 0..5 {
        assert_eq!(pool.ask(&FastcgiRequest::post("/live", "body")).text(), "/live|body");
    }
    drop(silent);
    is_as_before(&pool, worker, open);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f54_more_silent_connections_than_a_worker_may_have_descriptors_do_not_stop_it() {
    let pool = PoolSetup::new(&format!(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n{}",
        crate::support::probe::dedent(ECHO)
    ))
    .start();
    let (worker, open) = at_rest(&pool);
    let silent: Vec<FastcgiConnection> = (0..300).map(|_| pool.connect()).collect();
    for _ in 0..5 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/live")).text(), "/live|");
    }
    drop(silent);
    is_as_before(&pool, worker, open);
    pool.stop();
}

#[test]
fn f54_requests_that_are_changed_anywhere_are_harmless() {
    let pool = PoolSetup::new(ECHO).start();
    let (worker, open) = at_rest(&pool);
    let whole = FastcgiRequest::post("/", "body").bytes();
    for position in (0..whole.len()).step_by(3) {
        for value in [0, 1, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[position] = value;
            let connection = pool.connect();
            connection.send_beside(changed).join().unwrap().ok();
            drop(connection);
        }
    }
    is_as_before(&pool, worker, open);
    pool.stop();
}

#[test]
fn f54_half_records_are_harmless_and_their_connections_are_closed() {
    let pool = PoolSetup::new(ECHO).start();
    let (worker, open) = at_rest(&pool);
    let whole = FastcgiRequest::post("/", "body").bytes();
    let before_body = FastcgiRequest::post("/", "body").before_body().len();
    // A body that does not come keeps a thread, so only what is before it is left open.
    let halves: Vec<FastcgiConnection> = (0..before_body)
        .map(|length| {
            let connection = pool.connect();
            connection.send(&whole[..length]);
            connection
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/live")).text(), "/live|");
    }
    drop(halves);
    for length in before_body..whole.len() {
        pool.connect().send(&whole[..length]);
    }
    is_as_before(&pool, worker, open);
    pool.stop();
}

#[test]
fn f54_empty_records_of_every_type_are_harmless() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    for kind in [2, 3, 4, 5, 6, 7, 8, 10, 11, 100] {
        connection.send(&record(kind, 1, b""));
    }
    let request = FastcgiRequest::post("/", "body").keep();
    connection.send(&request.before_body());
    connection.send(&record(7, 1, b""));
    connection.send(&record(8, 1, b""));
    connection.send(&record(PARAMS, 1, b""));
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().text(), "/|body");
    assert_eq!(connection.ask(&request).text(), "/|body");
    pool.stop();
}
