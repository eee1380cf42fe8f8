//! Records and the streams in them, however they are divided (FastCGI 1.0, 3.3 and 3.4).

use std::time::{Duration, Instant};

use fastcgi_server::bodies::ProtocolStatus;

use crate::{
    pool::{ECHO, GATED, only_entry},
    support::{
        fastcgi_client::{ABORT_REQUEST, Ask, BEGIN_REQUEST, PARAMS, STDIN, Said, Wire, record},
        pool::{Pool, Setup},
        web_servers::eventually,
    },
};

fn echo() -> Pool {
    Setup::new(ECHO).start()
}

/// `ask` with its parameters in records of `size` bytes.
fn divided(ask: &Ask, size: usize) -> Vec<u8> {
    let mut bytes = ask.begin();
    bytes.extend(ask.pairs().chunks(size).flat_map(|piece| record(PARAMS, ask.id, piece)));
    bytes.extend(record(PARAMS, ask.id, b""));
    bytes
}

#[test]
fn f09_a_record_of_another_version_closes_the_connection_and_is_logged() {
    let mut pool = echo();
    for before in [Vec::new(), Ask::post("/", "body").before_body()] {
        let mut wire = pool.connect();
        let mut bytes = before;
        bytes.extend(b"\x02\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0");
        wire.send(&bytes[..bytes.len() - 16]);
        wire.send(&bytes[bytes.len() - 16..]);
        wire.end_sending();
        while let Ok(Some(_)) = wire.try_next() {}
    }
    pool.await_log("version");
    assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
    pool.stop();
}

#[test]
fn f09_bytes_that_are_no_fastcgi_get_no_answer_and_one_log_message() {
    let mut pool = echo();
    let mut wire = pool.connect();
    wire.send(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert!(matches!(wire.try_next(), Ok(None) | Err(_)));
    pool.await_log("hint: ");
    assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
    let log = pool.stop();
    only_entry(&log, "W0402");
}

#[test]
fn f10_an_id_is_active_until_its_request_has_ended() {
    let pool = echo();
    let mut wire = pool.connect();
    let ask = Ask::post("/", "body").keep().id(7);
    wire.send(&ask.before_body());
    wire.send(&ask.stdin(b"body"));
    wire.send(&ask.end_of_stdin());
    assert_eq!(wire.answer().text(), "/|body");
    // Now it is not, and means nothing.
    wire.send(&ask.stdin(b"more"));
    wire.send(&ask.end_of_stdin());
    wire.send(&record(PARAMS, 7, b"\x04\x01NAMEx"));
    assert_eq!(wire.ask(&ask).text(), "/|body");
    pool.stop();
}

#[test]
fn f11_records_of_ids_that_are_not_active_are_ignored() {
    let pool = echo();
    let mut wire = pool.connect();
    for id in [1, 2, 0xffff] {
        wire.send(&record(PARAMS, id, b"\x04\x01NAMEx"));
        wire.send(&record(STDIN, id, b"bytes"));
        wire.send(&record(ABORT_REQUEST, id, b""));
    }
    let ask = Ask::post("/", "body").keep();
    wire.send(&ask.before_body());
    // In the middle of another request, too.
    wire.send(&record(STDIN, 2, b"bytes"));
    wire.send(&ask.stdin(b"bo"));
    wire.send(&record(ABORT_REQUEST, 2, b""));
    wire.send(&record(STDIN, 2, b""));
    wire.send(&ask.stdin(b"dy"));
    wire.send(&ask.end_of_stdin());
    assert_eq!(wire.answer().text(), "/|body");
    assert_eq!(wire.ask(&ask).text(), "/|body");
    pool.stop();
}

#[test]
fn f12_every_id_is_a_request_of_its_own_and_is_used_again() {
    let pool = echo();
    let mut wire = pool.connect();
    for id in [1, 255, 256, 65535, 1, 1, 65535, 300] {
        let answer = wire.ask(&Ask::post("/", id.to_string()).keep().id(id));
        assert_eq!(answer.text(), format!("/|{id}"));
    }
    // Some web servers count upwards for ever.
    for id in 1..3000 {
        assert_eq!(wire.ask(&Ask::get("/").keep().id(id)).text(), "/|");
    }
    pool.stop();
}

#[test]
fn f14_the_borders_of_records_mean_nothing() {
    let pool = echo();
    let mut wire = pool.connect();
    let ask = Ask::post("/path", "the body").keep();
    for size in [1, 2, 3, 7, 8, 13, 100, 65535] {
        wire.send(&divided(&ask, size));
        wire.send(&b"the body".chunks(size).flat_map(|piece| ask.stdin(piece)).collect::<Vec<_>>());
        wire.send(&ask.end_of_stdin());
        assert_eq!(wire.answer().text(), "/path|the body", "{size} bytes a record");
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

fn variables(wire: &mut Wire) -> serde_json::Value {
    serde_json::from_str(&wire.answer().text()).unwrap()
}

#[test]
fn f15_lengths_of_four_bytes_are_read_also_where_one_would_do() {
    let pool = Setup::new(VARIABLES).start();
    let mut wire = pool.connect();
    let long = "x".repeat(70_000);
    let value_of_127 = "y".repeat(127);
    let value_of_128 = "z".repeat(128);
    let ask = Ask::get("/").keep();
    let mut pairs = ask.pairs();
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
    wire.send(&ask.begin());
    wire.send(&pairs.chunks(0xffff).flat_map(|piece| record(PARAMS, 1, piece)).collect::<Vec<_>>());
    wire.send(&record(PARAMS, 1, b""));
    wire.send(&ask.end_of_stdin());
    let told = variables(&mut wire);
    assert_eq!(told["HTTP_SHORT"], "s");
    assert_eq!(told["HTTP_LONG"], long.as_str());
    assert_eq!(
        (&told["HTTP_127"], &told["HTTP_128"]),
        (&value_of_127.as_str().into(), &value_of_128.as_str().into())
    );
    pool.stop();
}

#[test]
fn f16_names_and_values_may_be_empty() {
    let pool = Setup::new(VARIABLES).start();
    let mut wire = pool.connect();
    let ask = Ask::get("/").keep().param("HTTP_EMPTY", "").param("QUERY_STRING", "");
    let mut bytes = ask.begin();
    let mut pairs = ask.pairs();
    // A name of no bytes, with a value and without.
    pairs.extend(b"\0\x05value\0\0");
    bytes.extend(record(PARAMS, 1, &pairs));
    bytes.extend(record(PARAMS, 1, b""));
    bytes.extend(ask.end_of_stdin());
    wire.send(&bytes);
    let told = variables(&mut wire);
    assert_eq!((&told["HTTP_EMPTY"], &told["QUERY_STRING"]), (&"".into(), &"".into()));
    pool.stop();
}

/// A request whose parameters end within a pair, with a body.
fn cut_off(ask: &Ask) -> Vec<u8> {
    let mut pairs = ask.pairs();
    pairs.extend(b"\x09\x05HTTP_NAMEval");
    let mut bytes = ask.begin();
    bytes.extend(record(PARAMS, ask.id, &pairs));
    bytes.extend(record(PARAMS, ask.id, b""));
    bytes
}

#[test]
fn f16_parameters_that_end_within_a_pair_are_answered_with_400_and_logged() {
    let pool = echo();
    let mut wire = pool.connect();
    let ask = Ask::post("/", "body").keep();
    wire.send(&cut_off(&ask));
    wire.send(&ask.stdin(b"body"));
    wire.send(&ask.end_of_stdin());
    assert_eq!(wire.answer().head().status, 400);
    assert_eq!(wire.ask(&Ask::get("/after").keep()).text(), "/after|");
    let log = pool.stop();
    only_entry(&log, "W0401");
}

#[test]
fn f16_a_refusal_reaches_a_web_server_that_still_sends_the_body() {
    let pool = Setup::new(ECHO).listen(&["127.0.0.1:0"]).start();
    let log = pool.log();
    let address = log.split('`').nth(3).unwrap();
    let mut wire = Wire::tcp(address);
    let ask = Ask::post("/", "");
    wire.send(&cut_off(&ask));
    let mut rest = ask.stdin(&vec![b'x'; 5_000_000]);
    rest.extend(ask.end_of_stdin());
    let sent = wire.send_beside(rest);
    assert_eq!(wire.answer().head().status, 400);
    wire.assert_closed();
    sent.join().unwrap().unwrap();
    pool.stop();
}

#[test]
fn f35_a_value_with_a_nul_is_answered_with_400_and_logged() {
    let pool = echo();
    let mut wire = pool.connect();
    assert_eq!(wire.ask(&Ask::get("/").keep().param("HTTP_X", "a\0b")).head().status, 400);
    assert_eq!(wire.ask(&Ask::get("/after").keep()).text(), "/after|");
    let log = pool.stop();
    only_entry(&log, "W0401");
}

#[test]
fn f53_one_byte_at_a_time_is_the_same_request() {
    let pool = echo();
    let mut wire = pool.connect();
    for byte in Ask::post("/path", "the body").bytes() {
        wire.send(&[byte]);
    }
    assert_eq!(wire.answer().text(), "/path|the body");
    wire.assert_closed();
    pool.stop();
}

#[test]
fn f53_parameters_and_body_in_one_piece_and_several_requests_behind_each_other() {
    let pool = echo();
    let mut wire = pool.connect();
    let both = [
        Ask::post("/first", "1").keep(),
        Ask::post("/second", "2").keep().id(2),
        Ask::get("/third").id(3),
    ];
    wire.send(&both.iter().flat_map(Ask::bytes).collect::<Vec<_>>());
    for expected in ["/first|1", "/second|2", "/third|"] {
        let answer = wire.answer();
        assert_eq!(answer.end.protocol_status, ProtocolStatus::RequestComplete);
        assert_eq!(answer.text(), expected);
    }
    wire.assert_closed();
    pool.stop();
}

#[test]
fn requests_behind_one_that_takes_long_are_served_after_it() {
    let mut pool = Setup::new(GATED).gated().start();
    let mut wire = pool.connect();
    let all = [Ask::get("/slow").keep(), Ask::post("/second", "2").keep(), Ask::get("/third")];
    wire.send(&all.iter().flat_map(Ask::bytes).collect::<Vec<_>>());
    pool.await_log("at the gate");
    let begin = Instant::now();
    eventually("the worker looks for an abort", || begin.elapsed() > Duration::from_millis(500));
    pool.open_gate();
    for expected in ["/slow|", "/second|2", "/third|"] {
        assert_eq!(wire.answer().text(), expected);
    }
    wire.assert_closed();
    pool.stop();
}

#[test]
fn f07_padding_of_any_length_is_skipped_by_a_worker() {
    let pool = echo();
    let mut wire = pool.connect();
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
                // It may hold anything, even what looks like a record.
                out.extend(std::iter::repeat_n(1, usize::from(padding)));
                rest = more;
            }
            out
        };
        wire.send(&padded(Ask::post("/", "body").keep().bytes()));
        assert_eq!(wire.answer().text(), "/|body", "{padding} bytes of padding");
    }
    pool.stop();
}

#[test]
fn f13_a_record_of_a_request_is_an_unknown_type_under_the_null_id() {
    let pool = echo();
    let mut wire = pool.connect();
    for kind in [BEGIN_REQUEST, ABORT_REQUEST, PARAMS, STDIN] {
        wire.send(&record(kind, 0, b"\0\x01\0\0\0\0\0\0"));
        assert_eq!(wire.next(), Some(Said::UnknownType(kind)));
    }
    assert_eq!(wire.ask(&Ask::get("/after").keep()).text(), "/after|");
    pool.stop();
}

#[test]
fn f22_reserved_bytes_and_unknown_flags_of_a_beginning_mean_nothing() {
    let pool = echo();
    let mut wire = pool.connect();
    let ask = Ask::get("/").keep();
    wire.send(&record(BEGIN_REQUEST, 1, b"\0\x01\xff\xff\xff\xff\xff\xff"));
    wire.send(&ask.bytes()[ask.begin().len()..]);
    assert_eq!(wire.answer().text(), "/|");
    assert_eq!(wire.ask(&ask).text(), "/|");
    pool.stop();
}

#[test]
fn f47_a_protocol_error_is_reported_to_the_log_and_not_to_the_peer() {
    for breach in [
        // A body before the end of the parameters, a beginning of another length, and one under an
        // active id.
        [Ask::get("/").begin(), record(STDIN, 1, b"body")].concat(),
        record(BEGIN_REQUEST, 1, b"\0\x01\0"),
        [Ask::get("/").begin(), Ask::get("/").begin()].concat(),
    ] {
        let mut pool = echo();
        let mut wire = pool.connect();
        wire.send(&breach);
        assert!(matches!(wire.try_next(), Ok(None) | Err(_)));
        pool.await_log("W0402");
        assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
        only_entry(&pool.stop(), "W0402");
    }
}
