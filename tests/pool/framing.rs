//! Records and the streams in them, however they are divided (FastCGI 1.0, 3.3 and 3.4).

use std::time::{Duration, Instant};

use fastcgi_server::bodies::ProtocolStatus;

use crate::{
    pool::{ECHO, GATED, only_log_message},
    support::{
        fastcgi_client::{
            ABORT_REQUEST, BEGIN_REQUEST, FastcgiConnection, FastcgiRequest, PARAMS, Received,
            STDIN, record,
        },
        pool::{Pool, PoolSetup},
        web_servers::eventually,
    },
};

fn echo() -> Pool {
    PoolSetup::new(ECHO).start()
}

/// `request` with its parameters in records of `size` bytes.
fn divided(request: &FastcgiRequest, size: usize) -> Vec<u8> {
    let mut bytes = request.begin();
    bytes.extend(request.pairs().chunks(size).flat_map(|piece| record(PARAMS, request.id, piece)));
    bytes.extend(record(PARAMS, request.id, b""));
    bytes
}

#[test]
fn f09_a_record_of_another_version_closes_the_connection_and_is_logged() {
    let mut pool = echo();
    for before in [Vec::new(), FastcgiRequest::post("/", "body").before_body()] {
        let mut connection = pool.connect();
        let mut bytes = before;
        bytes.extend(b"\x02\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0");
        connection.send(&bytes[..bytes.len() - 16]);
        connection.send(&bytes[bytes.len() - 16..]);
        connection.end_sending();
        while let Ok(Some(_)) = connection.try_next() {}
    }
    pool.await_log("version");
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    pool.stop();
}

#[test]
fn f09_bytes_that_are_no_fastcgi_get_no_answer_and_one_log_message() {
    let mut pool = echo();
    let mut connection = pool.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert!(matches!(connection.try_next(), Ok(None) | Err(_)));
    pool.await_log("hint: ");
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    only_log_message(&log, "W0402");
}

#[test]
fn f10_an_id_is_active_until_its_request_has_ended() {
    let pool = echo();
    let mut connection = pool.connect();
    let request = FastcgiRequest::post("/", "body").keep().id(7);
    connection.send(&request.before_body());
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().text(), "/|body");
    // Now it is not, and means nothing.
    connection.send(&request.stdin(b"more"));
    connection.send(&request.end_of_stdin());
    connection.send(&record(PARAMS, 7, b"\x04\x01NAMEx"));
    assert_eq!(connection.ask(&request).text(), "/|body");
    pool.stop();
}

#[test]
fn f11_records_of_ids_that_are_not_active_are_ignored() {
    let pool = echo();
    let mut connection = pool.connect();
    for id in [1, 2, 0xffff] {
        connection.send(&record(PARAMS, id, b"\x04\x01NAMEx"));
        connection.send(&record(STDIN, id, b"bytes"));
        connection.send(&record(ABORT_REQUEST, id, b""));
    }
    let request = FastcgiRequest::post("/", "body").keep();
    connection.send(&request.before_body());
    // The record may arrive within another request.
    connection.send(&record(STDIN, 2, b"bytes"));
    connection.send(&request.stdin(b"bo"));
    connection.send(&record(ABORT_REQUEST, 2, b""));
    connection.send(&record(STDIN, 2, b""));
    connection.send(&request.stdin(b"dy"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().text(), "/|body");
    assert_eq!(connection.ask(&request).text(), "/|body");
    pool.stop();
}

#[test]
fn f12_every_id_is_a_request_of_its_own_and_is_used_again() {
    let pool = echo();
    let mut connection = pool.connect();
    for id in [1, 255, 256, 65535, 1, 1, 65535, 300] {
        let response = connection.ask(&FastcgiRequest::post("/", id.to_string()).keep().id(id));
        assert_eq!(response.text(), format!("/|{id}"));
    }
    // Some web servers use a new id for every request.
    for id in 1..3000 {
        assert_eq!(connection.ask(&FastcgiRequest::get("/").keep().id(id)).text(), "/|");
    }
    pool.stop();
}

#[test]
fn f14_the_borders_of_records_mean_nothing() {
    let pool = echo();
    let mut connection = pool.connect();
    let request = FastcgiRequest::post("/path", "the body").keep();
    for size in [1, 2, 3, 7, 8, 13, 100, 65535] {
        connection.send(&divided(&request, size));
        connection.send(
            &b"the body".chunks(size).flat_map(|piece| request.stdin(piece)).collect::<Vec<_>>(),
        );
        connection.send(&request.end_of_stdin());
        assert_eq!(connection.response().text(), "/path|the body", "{size} bytes a record");
    }
    pool.stop();
}

/// Sends all variables of its request as they are.
const VARIABLES: &str = "
    import json
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps({name: value for name, value in environ.items() if isinstance(value, \
        str)}).encode()]
    ";

fn variables(connection: &mut FastcgiConnection) -> serde_json::Value {
    serde_json::from_str(&connection.response().text()).unwrap()
}

#[test]
fn f15_lengths_of_four_bytes_are_read_also_where_one_would_do() {
    let pool = PoolSetup::new(VARIABLES).start();
    let mut connection = pool.connect();
    let long = "x".repeat(70_000);
    let value_of_127 = "y".repeat(127);
    let value_of_128 = "z".repeat(128);
    let request = FastcgiRequest::get("/").keep();
    let mut pairs = request.pairs();
    for (name, value) in [
        ("HTTP_SHORT", "s"),
        ("HTTP_LONG", &long),
        ("HTTP_127", &value_of_127),
        ("HTTP_128", &value_of_128),
    ] {
        pairs.extend((name.len() as u32 | 1 << 31).to_be_bytes());
        pairs.extend((value.len() as u32 | 1 << 31).to_be_bytes());
        pairs.extend(name.bytes());
        pairs.extend(value.bytes());
    }
    connection.send(&request.begin());
    connection
        .send(&pairs.chunks(0xffff).flat_map(|piece| record(PARAMS, 1, piece)).collect::<Vec<_>>());
    connection.send(&record(PARAMS, 1, b""));
    connection.send(&request.end_of_stdin());
    let reported = variables(&mut connection);
    assert_eq!(reported["HTTP_SHORT"], "s");
    assert_eq!(reported["HTTP_LONG"], long.as_str());
    assert_eq!(
        (&reported["HTTP_127"], &reported["HTTP_128"]),
        (&value_of_127.as_str().into(), &value_of_128.as_str().into())
    );
    pool.stop();
}

#[test]
fn f16_names_and_values_may_be_empty() {
    let pool = PoolSetup::new(VARIABLES).start();
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/").keep().param("HTTP_EMPTY", "").param("QUERY_STRING", "");
    let mut bytes = request.begin();
    let mut pairs = request.pairs();
    // A name of no bytes, with a value and without.
    pairs.extend(b"\0\x05value\0\0");
    bytes.extend(record(PARAMS, 1, &pairs));
    bytes.extend(record(PARAMS, 1, b""));
    bytes.extend(request.end_of_stdin());
    connection.send(&bytes);
    let reported = variables(&mut connection);
    assert_eq!((&reported["HTTP_EMPTY"], &reported["QUERY_STRING"]), (&"".into(), &"".into()));
    pool.stop();
}

/// A request whose parameters end within a pair, with a body.
fn cut_off(request: &FastcgiRequest) -> Vec<u8> {
    let mut pairs = request.pairs();
    pairs.extend(b"\x09\x05HTTP_NAMEval");
    let mut bytes = request.begin();
    bytes.extend(record(PARAMS, request.id, &pairs));
    bytes.extend(record(PARAMS, request.id, b""));
    bytes
}

#[test]
fn f16_parameters_that_end_within_a_pair_are_answered_with_400_and_logged() {
    let pool = echo();
    let mut connection = pool.connect();
    let request = FastcgiRequest::post("/", "body").keep();
    connection.send(&cut_off(&request));
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.response().valid().status, 400);
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    let log = pool.stop();
    only_log_message(&log, "W0401");
}

#[test]
fn f16_a_refusal_reaches_a_web_server_that_still_sends_the_body() {
    let pool = PoolSetup::new(ECHO).listen(&["127.0.0.1:0"]).start();
    let log = pool.log();
    let address = log.split('`').nth(3).unwrap();
    let mut connection = FastcgiConnection::tcp(address);
    let request = FastcgiRequest::post("/", "");
    connection.send(&cut_off(&request));
    let mut rest = request.stdin(&vec![b'x'; 5_000_000]);
    rest.extend(request.end_of_stdin());
    let sent = connection.send_beside(rest);
    assert_eq!(connection.response().valid().status, 400);
    connection.assert_closed();
    sent.join().unwrap().unwrap();
    pool.stop();
}

#[test]
fn f35_a_value_with_a_nul_is_answered_with_400_and_logged() {
    let pool = echo();
    let mut connection = pool.connect();
    assert_eq!(
        connection.ask(&FastcgiRequest::get("/").keep().param("HTTP_X", "a\0b")).valid().status,
        400
    );
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    let log = pool.stop();
    only_log_message(&log, "W0401");
}

#[test]
fn f53_one_byte_at_a_time_is_the_same_request() {
    let pool = echo();
    let mut connection = pool.connect();
    for byte in FastcgiRequest::post("/path", "the body").bytes() {
        connection.send(&[byte]);
    }
    assert_eq!(connection.response().text(), "/path|the body");
    connection.assert_closed();
    pool.stop();
}

#[test]
fn f53_parameters_and_body_in_one_piece_and_several_requests_behind_each_other() {
    let pool = echo();
    let mut connection = pool.connect();
    let both = [
        FastcgiRequest::post("/first", "1").keep(),
        FastcgiRequest::post("/second", "2").keep().id(2),
        FastcgiRequest::get("/third").id(3),
    ];
    connection.send(&both.iter().flat_map(FastcgiRequest::bytes).collect::<Vec<_>>());
    for expected in ["/first|1", "/second|2", "/third|"] {
        let response = connection.response();
        assert_eq!(response.end.protocol_status, ProtocolStatus::RequestComplete);
        assert_eq!(response.text(), expected);
    }
    connection.assert_closed();
    pool.stop();
}

#[test]
fn requests_behind_one_that_takes_long_are_served_after_it() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let mut connection = pool.connect();
    let all = [
        FastcgiRequest::get("/slow").keep(),
        FastcgiRequest::post("/second", "2").keep(),
        FastcgiRequest::get("/third"),
    ];
    connection.send(&all.iter().flat_map(FastcgiRequest::bytes).collect::<Vec<_>>());
    pool.await_log("at the gate");
    let begin = Instant::now();
    eventually("the worker looks for an abort", || begin.elapsed() > Duration::from_millis(500));
    pool.open_gate();
    for expected in ["/slow|", "/second|2", "/third|"] {
        assert_eq!(connection.response().text(), expected);
    }
    connection.assert_closed();
    pool.stop();
}

#[test]
fn f07_padding_of_any_length_is_skipped_by_a_worker() {
    let pool = echo();
    let mut connection = pool.connect();
    for padding in [1, 7, 8, 255] {
        let padded = |bytes: Vec<u8>| {
            let mut rest = bytes.as_slice();
            let mut out = Vec::new();
            while !rest.is_empty() {
                let (record, more) =
                    rest.split_at(8 + usize::from(u16::from_be_bytes([rest[4], rest[5]])));
                out.extend(&record[..6]);
                out.extend([padding, 0xff]);
                out.extend(&record[8..]);
                // Padding may hold any bytes, even those of a record.
                out.extend(std::iter::repeat_n(1, usize::from(padding)));
                rest = more;
            }
            out
        };
        connection.send(&padded(FastcgiRequest::post("/", "body").keep().bytes()));
        assert_eq!(connection.response().text(), "/|body", "{padding} bytes of padding");
    }
    pool.stop();
}

#[test]
fn f13_a_record_of_a_request_is_an_unknown_type_under_the_null_id() {
    let pool = echo();
    let mut connection = pool.connect();
    for kind in [BEGIN_REQUEST, ABORT_REQUEST, PARAMS, STDIN] {
        connection.send(&record(kind, 0, b"\0\x01\0\0\0\0\0\0"));
        assert_eq!(connection.next(), Some(Received::UnknownType(kind)));
    }
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    pool.stop();
}

#[test]
fn f22_reserved_bytes_and_unknown_flags_of_a_beginning_mean_nothing() {
    let pool = echo();
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/").keep();
    connection.send(&record(BEGIN_REQUEST, 1, b"\0\x01\xff\xff\xff\xff\xff\xff"));
    connection.send(&request.bytes()[request.begin().len()..]);
    assert_eq!(connection.response().text(), "/|");
    assert_eq!(connection.ask(&request).text(), "/|");
    pool.stop();
}

#[test]
fn f47_a_protocol_error_is_reported_to_the_log_and_not_to_the_peer() {
    for breach in [
        // A body before the end of the parameters, a beginning of another length, and one under an
        // active id.
        [FastcgiRequest::get("/").begin(), record(STDIN, 1, b"body")].concat(),
        record(BEGIN_REQUEST, 1, b"\0\x01\0"),
        [FastcgiRequest::get("/").begin(), FastcgiRequest::get("/").begin()].concat(),
    ] {
        let mut pool = echo();
        let mut connection = pool.connect();
        connection.send(&breach);
        assert!(matches!(connection.try_next(), Ok(None) | Err(_)));
        pool.await_log("W0402");
        assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
        only_log_message(&pool.stop(), "W0402");
    }
}
