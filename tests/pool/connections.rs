//! The life of connections, and what is said about them (FastCGI 1.0, 3.5, 4, 5.5).

use fastcgi_server::{
    bodies::{EndRequest, ProtocolStatus},
    values::Values,
};

use crate::{
    pool::{ECHO, GATED},
    support::{
        fastcgi_client::{Ask, GET_VALUES, Said, Wire, record},
        pool::{Pool, Setup},
        web_servers::eventually,
    },
};

fn echo() -> Pool {
    Setup::new(ECHO).start()
}

/// The address of a pool that listens at `127.0.0.1:0`.
fn address(pool: &Pool) -> String {
    pool.log().split('`').nth(3).unwrap().to_owned()
}

#[test]
fn f17_a_keep_alive_connection_is_closed_only_when_the_pool_stops() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/raises':
                raise RuntimeError
            start_response(environ['PATH_INFO'][1:], [])
            return []
        ",
    )
    .start();
    let mut wire = pool.connect();
    for (path, status) in
        [("/404 Not Found", 404), ("/204 No Content", 204), ("/raises", 500), ("/200 OK", 200)]
    {
        assert_eq!(wire.ask(&Ask::get(path).keep()).head().status, status);
    }
    assert_eq!(wire.ask(&Ask::get("/").keep().param("CONTENT_LENGTH", "x")).head().status, 400);
    assert_eq!(wire.ask(&Ask::get("/200 OK").keep()).head().status, 200);
    pool.stop();
}

#[test]
fn f18_the_flag_of_each_request_decides_whether_the_connection_stays_open() {
    let pool = echo();
    let mut wire = pool.connect();
    for _ in 0..10 {
        assert_eq!(wire.ask(&Ask::post("/", "body").keep()).text(), "/|body");
    }
    assert_eq!(wire.ask(&Ask::post("/last", "body")).text(), "/last|body");
    wire.assert_closed();
    pool.stop();
}

#[test]
fn f19_questions_are_answered_at_any_time_and_unknown_names_left_out() {
    let pool = Setup::new(ECHO).words(&["--workers", "2", "--threads", "3"]).start();
    let mut wire = pool.connect();
    let mut query = Vec::new();
    Values::append_query(&mut query);
    let all = |values: &Values| assert_eq!(values.mpxs_conns, Some(false));
    wire.send(&query);
    let Some(Said::Values(values)) = wire.next() else { panic!("no values") };
    all(&values);
    // Only what was asked for.
    wire.send(&record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS\x09\0FCGI_ELSE"));
    let expected = Values { mpxs_conns: Some(false), ..Values::default() };
    assert_eq!(wire.next(), Some(Said::Values(expected)));
    wire.send(&record(GET_VALUES, 0, b"\x09\0FCGI_ELSE"));
    assert_eq!(wire.next(), Some(Said::Values(Values::default())));
    // In the middle of a request, whose response follows.
    let ask = Ask::post("/", "body").keep();
    wire.send(&ask.begin());
    wire.send(&query);
    assert!(matches!(wire.next(), Some(Said::Values(_))));
    wire.send(&ask.before_body()[ask.begin().len()..]);
    wire.send(&ask.stdin(b"bo"));
    wire.send(&query);
    assert!(matches!(wire.next(), Some(Said::Values(_))));
    wire.send(&ask.stdin(b"dy"));
    wire.send(&ask.end_of_stdin());
    assert_eq!(wire.answer().text(), "/|body");
    pool.stop();
}

#[test]
fn f20_the_numbers_are_those_of_the_whole_pool() {
    for (workers, threads, requests) in [("1", "1", 1), ("3", "1", 3), ("1", "4", 4), ("2", "3", 6)]
    {
        let pool = Setup::new(ECHO).words(&["--workers", workers, "--threads", threads]).start();
        let mut wire = pool.connect();
        let mut query = Vec::new();
        Values::append_query(&mut query);
        wire.send(&query);
        let Some(Said::Values(values)) = wire.next() else { panic!("no values") };
        assert_eq!((values.max_reqs, values.mpxs_conns), (Some(requests), Some(false)));
        // Idle connections cost nobody anything: more of them than requests are accepted.
        assert!(values.max_conns.is_none_or(|connections| connections >= requests), "{values:?}");
        pool.stop();
    }
}

#[test]
fn f21_a_management_record_of_an_unknown_type_is_answered_with_that_type() {
    let pool = echo();
    let mut wire = pool.connect();
    for kind in [12, 100, 255] {
        wire.send(&record(kind, 0, b"whatever"));
        assert_eq!(wire.next(), Some(Said::UnknownType(kind)));
    }
    assert_eq!(wire.ask(&Ask::get("/after").keep()).text(), "/after|");
    pool.stop();
}

#[test]
fn f23_a_request_in_an_unknown_role_is_refused_as_such() {
    let pool = echo();
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::UnknownRole };
    for role in [0, 4, 0x0101, 0xffff] {
        let mut wire = pool.connect();
        let answer = wire.ask(&Ask::post("/", "body").keep().role(role).id(5));
        assert_eq!((answer.said.as_slice(), answer.end), (&[Said::End(5, refusal)][..], refusal));
        assert_eq!(wire.ask(&Ask::get("/after").keep().id(5)).text(), "/after|");
        let answer = wire.ask(&Ask::get("/").role(role));
        assert_eq!(answer.end, refusal);
        wire.assert_closed();
    }
    pool.stop();
}

#[test]
fn f30_a_second_request_on_a_busy_connection_is_refused_and_the_first_continues() {
    let pool = echo();
    let mut wire = pool.connect();
    let first = Ask::post("/first", "body").keep();
    wire.send(&first.before_body());
    wire.send(&first.stdin(b"bo"));
    let second = Ask::post("/second", "other").keep().id(2);
    wire.send(&second.bytes());
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::CantMpxConn };
    assert_eq!(wire.next(), Some(Said::End(2, refusal)));
    wire.send(&first.stdin(b"dy"));
    wire.send(&first.end_of_stdin());
    assert_eq!(wire.answer().text(), "/first|body");
    assert_eq!(wire.ask(&second).text(), "/second|other");
    pool.stop();
}

#[test]
fn f30_a_second_request_while_parameters_arrive_is_refused_and_the_first_continues() {
    let pool = echo();
    let mut wire = pool.connect();
    let first = Ask::post("/first", "body").keep();
    wire.send(&first.begin());
    wire.send(&Ask::get("/second").keep().id(2).bytes());
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::CantMpxConn };
    assert_eq!(wire.next(), Some(Said::End(2, refusal)));
    wire.send(&first.bytes()[first.begin().len()..]);
    assert_eq!(wire.answer().text(), "/first|body");
    pool.stop();
}

/// Replies without reading its body.
const UNREAD: &str = "
    def application(environ, start_response):
        start_response('413 Content Too Large', [('Content-Type', 'text/plain')])
        return [b'too large'] * 1000
    ";

/// Sends 5 MB that nobody reads, and reads the response only when all of it is sent or cannot be.
fn unread(mut wire: Wire) {
    let ask = Ask::post("/", "").param("CONTENT_LENGTH", "5000000");
    wire.send(&ask.before_body());
    let mut body = ask.stdin(&vec![b'x'; 5_000_000]);
    body.extend(ask.end_of_stdin());
    wire.send_beside(body).join().unwrap().unwrap();
    let answer = wire.answer();
    assert_eq!((answer.head().status, answer.head().body.len()), (413, 9000));
    wire.assert_closed();
}

#[test]
fn f48_a_body_that_is_not_read_costs_no_byte_of_the_response() {
    let pool = Setup::new(UNREAD).start();
    unread(pool.connect());
    pool.stop();
    let pool = Setup::new(UNREAD).listen(&["127.0.0.1:0"]).start();
    let address = address(&pool);
    for _ in 0..5 {
        unread(Wire::tcp(&address));
    }
    pool.stop();
}

#[test]
fn f48_an_unread_body_costs_nothing_even_if_its_worker_exits_with_the_request() {
    let pool = Setup::new(UNREAD).words(&["--max-requests", "1"]).listen(&["127.0.0.1:0"]).start();
    let address = address(&pool);
    for _ in 0..3 {
        unread(Wire::tcp(&address));
    }
    pool.stop();
}

#[test]
fn f48_a_keep_alive_connection_takes_another_request_after_an_unread_body() {
    let pool = Setup::new(UNREAD).start();
    let mut wire = pool.connect();
    for id in 1..5 {
        let ask = Ask::post("/", vec![b'x'; 1_000_000]).keep().id(id);
        let sent = wire.send_beside(ask.bytes());
        assert_eq!(wire.answer().head().status, 413);
        sent.join().unwrap().unwrap();
    }
    pool.stop();
}

#[test]
fn f49_connections_outlive_the_workers_that_have_served_enough() {
    let pool = Setup::new(ECHO).words(&["--max-requests", "5"]).start();
    let mut wires = [pool.connect(), pool.connect()];
    let mut pids = std::collections::HashSet::new();
    for _ in 0..30 {
        for wire in &mut wires {
            let answer = wire.ask(&Ask::post("/", "body").keep());
            assert_eq!(answer.text(), "/|body");
            pids.insert(answer.pid());
        }
    }
    assert!(pids.len() >= 10, "{pids:?}");
    pool.stop();
}

#[test]
fn f49_a_request_that_waits_on_a_keep_alive_connection_is_served_though_its_worker_exits() {
    let mut pool = Setup::new(GATED).gated().words(&["--max-requests", "3"]).start();
    let mut other = pool.connect();
    let worker = other.ask(&Ask::get("/").keep()).pid();
    let mut busy = pool.connect();
    assert_eq!(busy.ask(&Ask::get("/").keep()).pid(), worker);
    busy.send(&Ask::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    // The connection is open, and nobody has said that it will not be.
    other.send(&Ask::post("/waiting", "body").keep().bytes());
    pool.open_gate();
    assert_eq!(busy.answer().text(), "/slow|");
    assert_eq!(other.answer().text(), "/waiting|body");
    for wire in [&mut busy, &mut other] {
        let answer = wire.ask(&Ask::get("/after").keep());
        assert_eq!(answer.text(), "/after|");
        assert_ne!(answer.pid(), worker);
    }
    pool.stop();
}

#[test]
fn f50_idle_connections_do_not_keep_a_single_thread_from_others() {
    let pool = echo();
    let mut kept: Vec<Wire> = (0..20).map(|_| pool.connect()).collect();
    for wire in &mut kept {
        assert_eq!(wire.ask(&Ask::get("/kept").keep()).text(), "/kept|");
    }
    // Neither do those that have said nothing, or half of their parameters.
    let silent = pool.connect();
    let slow = pool.connect();
    let ask = Ask::post("/slow", "body");
    slow.send(&ask.bytes()[..100]);
    for _ in 0..3 {
        assert_eq!(pool.ask(&Ask::get("/other")).text(), "/other|");
    }
    for wire in &mut kept {
        assert_eq!(wire.ask(&Ask::get("/kept").keep()).text(), "/kept|");
    }
    let mut slow = slow;
    slow.send(&ask.bytes()[100..]);
    assert_eq!(slow.answer().text(), "/slow|body");
    drop(silent);
    pool.stop();
}

#[test]
fn f05_many_connections_are_open_at_once_and_each_has_one_request_at_a_time() {
    let pool = Setup::new(ECHO).words(&["--workers", "2", "--threads", "2"]).start();
    let mut wires: Vec<Wire> = (0..50).map(|_| pool.connect()).collect();
    let mut query = Vec::new();
    Values::append_query(&mut query);
    for _ in 0..3 {
        wires.iter().for_each(|wire| wire.send(&Ask::post("/", "body").keep().bytes()));
        wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().text(), "/|body"));
    }
    for wire in &mut wires {
        wire.send(&query);
        let Some(Said::Values(values)) = wire.next() else { panic!("no values") };
        assert_eq!((values.max_reqs, values.mpxs_conns), (Some(4), Some(false)));
    }
    pool.stop();
}

#[test]
fn f50_a_busy_connection_does_not_keep_a_single_thread_from_others() {
    let mut pool = Setup::new(
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
    busy.send(&Ask::get("/slow").keep().bytes());
    pool.await_log("at the gate");
    // More than is read at a time, so that there is always more to be read.
    let sending = busy.send_beside(Ask::get("/").keep().bytes().repeat(200));
    let mut other = pool.connect();
    other.send(&Ask::get("/").bytes());
    pool.open_gate();
    let place: u32 = other.answer().text().parse().unwrap();
    assert!(place < 150, "served as number {place}");
    let answers: Vec<String> = (0..201).map(|_| busy.answer().text()).collect();
    assert_eq!(answers.last().map(String::as_str), Some("202"));
    sending.join().unwrap().unwrap();
    pool.stop();
}

#[test]
fn keep_alive_connections_are_spread_over_idle_workers() {
    let pool = Setup::new(ECHO).words(&["--workers", "4"]).start();
    pool.workers(4);
    // On a machine that has other things to do, a worker that is woken may come later than one that
    // runs.
    eventually("no worker has most of the connections", || {
        let mut kept: Vec<Wire> = Vec::new();
        let mut pids: Vec<i32> = Vec::new();
        for _ in 0..8 {
            let mut wire = pool.connect();
            pids.push(wire.ask(&Ask::get("/").keep()).pid());
            kept.push(wire);
        }
        pids.sort_unstable();
        pids.chunk_by(|one, other| one == other).map(<[i32]>::len).max() <= Some(4)
    });
    pool.stop();
}
