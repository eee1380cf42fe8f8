//! The life of connections, and what is said about them (FastCGI 1.0, 3.5, 4, 5.5).

use fastcgi_server::{
    bodies::{EndRequest, ProtocolStatus},
    values::Values,
};

use crate::{
    pool::{ECHO, GATED},
    support::{
        fastcgi_client::{FastcgiConnection, FastcgiRequest, GET_VALUES, Received, record},
        pool::{Pool, PoolSetup},
        web_servers::eventually,
    },
};

fn echo() -> Pool {
    PoolSetup::new(ECHO).start()
}

/// The address of a pool that listens at `127.0.0.1:0`.
fn address(pool: &Pool) -> String {
    pool.log().split('`').nth(3).unwrap().to_owned()
}

#[test]
fn f17_a_keep_alive_connection_is_closed_only_when_the_pool_stops() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/raises':
                raise RuntimeError
            start_response(environ['PATH_INFO'][1:], [])
            return []
        ",
    )
    .start();
    let mut connection = pool.connect();
    for (path, status) in
        [("/404 Not Found", 404), ("/204 No Content", 204), ("/raises", 500), ("/200 OK", 200)]
    {
        assert_eq!(connection.ask(&FastcgiRequest::get(path).keep()).valid().status, status);
    }
    assert_eq!(
        connection
            .ask(&FastcgiRequest::get("/").keep().param("CONTENT_LENGTH", "x"))
            .valid()
            .status,
        400
    );
    assert_eq!(connection.ask(&FastcgiRequest::get("/200 OK").keep()).valid().status, 200);
    pool.stop();
}

#[test]
fn f18_the_flag_of_each_request_decides_whether_the_connection_stays_open() {
    let pool = echo();
    let mut connection = pool.connect();
    for _ in 0..10 {
        assert_eq!(connection.ask(&FastcgiRequest::post("/", "body").keep()).text(), "/|body");
    }
    assert_eq!(connection.ask(&FastcgiRequest::post("/last", "body")).text(), "/last|body");
    connection.assert_closed();
    pool.stop();
}

#[test]
fn f19_questions_are_answered_at_any_time_and_unknown_names_left_out() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "2", "--threads", "3"]).start();
    let mut connection = pool.connect();
    let mut query = Vec::new();
    Values::append_query(&mut query);
    let all = |values: &Values| assert_eq!(values.mpxs_conns, Some(false));
    connection.send(&query);
    let Some(Received::Values(values)) = connection.next() else { panic!("no values") };
    all(&values);
    // Only what was asked for.
    connection.send(&record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS\x09\0FCGI_ELSE"));
    let expected = Values { mpxs_conns: Some(false), ..Values::default() };
    assert_eq!(connection.next(), Some(Received::Values(expected)));
    connection.send(&record(GET_VALUES, 0, b"\x09\0FCGI_ELSE"));
    assert_eq!(connection.next(), Some(Received::Values(Values::default())));
    // The records arrive within a request, whose response follows.
    let request = FastcgiRequest::post("/", "body").keep();
    connection.send(&request.begin());
    connection.send(&query);
    assert!(matches!(connection.next(), Some(Received::Values(_))));
    connection.send(&request.before_body()[request.begin().len()..]);
    connection.send(&request.stdin(b"bo"));
    connection.send(&query);
    assert!(matches!(connection.next(), Some(Received::Values(_))));
    connection.send(&request.stdin(b"dy"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().text(), "/|body");
    pool.stop();
}

#[test]
fn f20_the_numbers_are_those_of_the_whole_pool() {
    for (workers, threads, requests) in [("1", "1", 1), ("3", "1", 3), ("1", "4", 4), ("2", "3", 6)]
    {
        let pool = PoolSetup::new(ECHO).args(&["--workers", workers, "--threads", threads]).start();
        let mut connection = pool.connect();
        let mut query = Vec::new();
        Values::append_query(&mut query);
        connection.send(&query);
        let Some(Received::Values(values)) = connection.next() else { panic!("no values") };
        assert_eq!((values.max_reqs, values.mpxs_conns), (Some(requests), Some(false)));
        // Idle connections cost nobody anything: more of them than requests are accepted.
        assert!(values.max_conns.is_none_or(|connections| connections >= requests), "{values:?}");
        pool.stop();
    }
}

#[test]
fn f21_a_management_record_of_an_unknown_type_is_answered_with_that_type() {
    let pool = echo();
    let mut connection = pool.connect();
    for kind in [12, 100, 255] {
        connection.send(&record(kind, 0, b"whatever"));
        assert_eq!(connection.next(), Some(Received::UnknownType(kind)));
    }
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    pool.stop();
}

#[test]
fn f23_a_request_in_an_unknown_role_is_refused_as_such() {
    let pool = echo();
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::UnknownRole };
    for role in [0, 4, 0x0101, 0xffff] {
        let mut connection = pool.connect();
        let response = connection.ask(&FastcgiRequest::post("/", "body").keep().role(role).id(5));
        assert_eq!(
            (response.said.as_slice(), response.end),
            (&[Received::End(5, refusal)][..], refusal)
        );
        assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep().id(5)).text(), "/after|");
        let response = connection.ask(&FastcgiRequest::get("/").role(role));
        assert_eq!(response.end, refusal);
        connection.assert_closed();
    }
    pool.stop();
}

#[test]
fn f30_a_second_request_on_a_busy_connection_is_refused_and_the_first_continues() {
    let pool = echo();
    let mut connection = pool.connect();
    let first = FastcgiRequest::post("/first", "body").keep();
    connection.send(&first.before_body());
    connection.send(&first.stdin(b"bo"));
    let second = FastcgiRequest::post("/second", "other").keep().id(2);
    connection.send(&second.bytes());
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::CantMpxConn };
    assert_eq!(connection.next(), Some(Received::End(2, refusal)));
    connection.send(&first.stdin(b"dy"));
    connection.send(&first.end_of_stdin());
    assert_eq!(connection.response().text(), "/first|body");
    assert_eq!(connection.ask(&second).text(), "/second|other");
    pool.stop();
}

#[test]
fn f30_a_second_request_while_parameters_arrive_is_refused_and_the_first_continues() {
    let pool = echo();
    let mut connection = pool.connect();
    let first = FastcgiRequest::post("/first", "body").keep();
    connection.send(&first.begin());
    connection.send(&FastcgiRequest::get("/second").keep().id(2).bytes());
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::CantMpxConn };
    assert_eq!(connection.next(), Some(Received::End(2, refusal)));
    connection.send(&first.bytes()[first.begin().len()..]);
    assert_eq!(connection.response().text(), "/first|body");
    pool.stop();
}

/// Responds without reading its body.
const UNREAD: &str = "
    def application(environ, start_response):
        start_response('413 Content Too Large', [('Content-Type', 'text/plain')])
        return [b'too large'] * 1000
    ";

/// Sends 5 MB that nobody reads, and reads the response only when all of it is sent or cannot be.
fn unread(mut connection: FastcgiConnection) {
    let request = FastcgiRequest::post("/", "").param("CONTENT_LENGTH", "5000000");
    connection.send(&request.before_body());
    let mut body = request.stdin(&vec![b'x'; 5_000_000]);
    body.extend(request.end_of_stdin());
    connection.send_beside(body).join().unwrap().unwrap();
    let response = connection.response();
    assert_eq!((response.valid().status, response.valid().body.len()), (413, 9000));
    connection.assert_closed();
}

#[test]
fn f48_a_body_that_is_not_read_costs_no_byte_of_the_response() {
    let pool = PoolSetup::new(UNREAD).start();
    unread(pool.connect());
    pool.stop();
    let pool = PoolSetup::new(UNREAD).listen(&["127.0.0.1:0"]).start();
    let address = address(&pool);
    for _ in 0..5 {
        unread(FastcgiConnection::tcp(&address));
    }
    pool.stop();
}

#[test]
fn f48_an_unread_body_costs_nothing_even_if_its_worker_exits_with_the_request() {
    let pool =
        PoolSetup::new(UNREAD).args(&["--max-requests", "1"]).listen(&["127.0.0.1:0"]).start();
    let address = address(&pool);
    for _ in 0..3 {
        unread(FastcgiConnection::tcp(&address));
    }
    pool.stop();
}

#[test]
fn f48_a_keep_alive_connection_takes_another_request_after_an_unread_body() {
    let pool = PoolSetup::new(UNREAD).start();
    let mut connection = pool.connect();
    for id in 1..5 {
        let request = FastcgiRequest::post("/", vec![b'x'; 1_000_000]).keep().id(id);
        let sent = connection.send_beside(request.bytes());
        assert_eq!(connection.response().valid().status, 413);
        sent.join().unwrap().unwrap();
    }
    pool.stop();
}

#[test]
fn f49_connections_outlive_the_workers_that_have_served_enough() {
    let pool = PoolSetup::new(ECHO).args(&["--max-requests", "5"]).start();
    let mut wires = [pool.connect(), pool.connect()];
    let mut pids = std::collections::HashSet::new();
    for _ in 0..30 {
        for connection in &mut wires {
            let response = connection.ask(&FastcgiRequest::post("/", "body").keep());
            assert_eq!(response.text(), "/|body");
            pids.insert(response.pid());
        }
    }
    assert!(pids.len() >= 10, "{pids:?}");
    pool.stop();
}

#[test]
fn f49_a_request_that_waits_on_a_keep_alive_connection_is_served_though_its_worker_exits() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--max-requests", "3"]).start();
    let mut other = pool.connect();
    let worker = other.ask(&FastcgiRequest::get("/").keep()).pid();
    let mut busy = pool.connect();
    assert_eq!(busy.ask(&FastcgiRequest::get("/").keep()).pid(), worker);
    busy.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    // The connection is open, and nobody has said that it will not be.
    other.send(&FastcgiRequest::post("/waiting", "body").keep().bytes());
    pool.open_gate();
    assert_eq!(busy.response().text(), "/slow|");
    assert_eq!(other.response().text(), "/waiting|body");
    for connection in [&mut busy, &mut other] {
        let response = connection.ask(&FastcgiRequest::get("/after").keep());
        assert_eq!(response.text(), "/after|");
        assert_ne!(response.pid(), worker);
    }
    pool.stop();
}

#[test]
fn f50_idle_connections_do_not_keep_a_single_thread_from_others() {
    let pool = echo();
    let mut kept: Vec<FastcgiConnection> = (0..20).map(|_| pool.connect()).collect();
    for connection in &mut kept {
        assert_eq!(connection.ask(&FastcgiRequest::get("/kept").keep()).text(), "/kept|");
    }
    // Silent connections and half requests do not count, either.
    let silent = pool.connect();
    let slow = pool.connect();
    let request = FastcgiRequest::post("/slow", "body");
    slow.send(&request.bytes()[..100]);
    for _ in 0..3 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/other")).text(), "/other|");
    }
    for connection in &mut kept {
        assert_eq!(connection.ask(&FastcgiRequest::get("/kept").keep()).text(), "/kept|");
    }
    let mut slow = slow;
    slow.send(&request.bytes()[100..]);
    assert_eq!(slow.response().text(), "/slow|body");
    drop(silent);
    pool.stop();
}

#[test]
fn f05_many_connections_are_open_at_once_and_each_has_one_request_at_a_time() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "2", "--threads", "2"]).start();
    let mut wires: Vec<FastcgiConnection> = (0..50).map(|_| pool.connect()).collect();
    let mut query = Vec::new();
    Values::append_query(&mut query);
    for _ in 0..3 {
        wires.iter().for_each(|connection| {
            connection.send(&FastcgiRequest::post("/", "body").keep().bytes())
        });
        wires.iter_mut().for_each(|connection| assert_eq!(connection.response().text(), "/|body"));
    }
    for connection in &mut wires {
        connection.send(&query);
        let Some(Received::Values(values)) = connection.next() else { panic!("no values") };
        assert_eq!((values.max_reqs, values.mpxs_conns), (Some(4), Some(false)));
    }
    pool.stop();
}

#[test]
fn f50_a_busy_connection_does_not_keep_a_single_thread_from_others() {
    let mut pool = PoolSetup::new(
        "
        import os
        served = 0
        def application(environ, start_response):
            global served
            if environ['PATH_INFO'] == '/slow':
                print('at the gate')
                os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
            served += 1
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(served).encode()]
        ",
    )
    .gated()
    .start();
    let mut busy = pool.connect();
    busy.send(&FastcgiRequest::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    // More bytes than a worker reads at a time.
    let sending = busy.send_beside(FastcgiRequest::get("/").keep().bytes().repeat(200));
    let mut other = pool.connect();
    other.send(&FastcgiRequest::get("/").bytes());
    pool.open_gate();
    let dir: u32 = other.response().text().parse().unwrap();
    assert!(dir < 150, "served as number {dir}");
    let responses: Vec<String> = (0..201).map(|_| busy.response().text()).collect();
    assert_eq!(responses.last().map(String::as_str), Some("202"));
    sending.join().unwrap().unwrap();
    pool.stop();
}

#[test]
fn keep_alive_connections_are_spread_over_idle_workers() {
    let pool = PoolSetup::new(ECHO).args(&["--workers", "4"]).start();
    pool.workers(4);
    // On a machine that has other things to do, a worker that is woken may come later than one that
    // runs.
    eventually("no worker has most of the connections", || {
        let mut kept: Vec<FastcgiConnection> = Vec::new();
        let mut pids: Vec<i32> = Vec::new();
        for _ in 0..8 {
            let mut connection = pool.connect();
            pids.push(connection.ask(&FastcgiRequest::get("/").keep()).pid());
            kept.push(connection);
        }
        pids.sort_unstable();
        pids.chunk_by(|one, other| one == other).map(<[i32]>::len).max() <= Some(4)
    });
    pool.stop();
}
