//! The life of connections and of the requests on them: ids, aborts, refusals, the end.

use fastcgi_server::{
    Connection, Error, Limits, Output, Response, bodies::ProtocolStatus, record::UnknownVersion,
};

use crate::{
    bytes::{ABORT, HEAD, PARAMS, RESPONDER, STDIN, begin, id, record, request},
    drive::{Drive, Policy, Seen, whole},
    requests::{FIRST_EXAMPLE, begun, never, params, stdin, stdin_end},
};

/// Several requests on one connection.
const MULTIPLEX: Limits = Limits {
    params_bytes: 1000,
    params_count: 10,
    active_requests: 3,
    max_conns: None,
    max_reqs: None,
};

#[test]
fn f09_another_version_is_an_error_that_stays() {
    let mut connection = Connection::new(Limits::default());
    let error = Error::UnknownVersion(UnknownVersion(b'G'));
    assert_eq!(connection.receive(b"GET / HTTP/1.1\r\n"), Err(error));
    assert_eq!(connection.receive(FIRST_EXAMPLE), Err(error));
    assert_eq!(
        error.to_string(),
        "a record of protocol version `71` where only version `1` is known"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn f09_records_before_another_version_are_reported_first() {
    let seen = never(&[FIRST_EXAMPLE, b"\x02"].concat());
    assert_eq!(seen.last(), Some(&Seen::Failed(Error::UnknownVersion(UnknownVersion(2)))));
    assert_eq!(seen[..3], never(FIRST_EXAMPLE));
}

#[test]
fn f10_an_id_is_active_from_begin_to_the_end_that_the_application_sends() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    assert!(!drive.connection.is_active(id(1)));
    drive.feed(FIRST_EXAMPLE);
    assert_eq!(drive.connection.active().collect::<Vec<_>>(), [id(1)]);
    assert!(!drive.connection.is_idle());
    drive.connection.finish(id(1));
    assert_eq!(drive.connection.active().len(), 0);
    assert!(drive.connection.is_idle());
    drive.connection.finish(id(1));
}

#[test]
fn f10_a_request_that_begins_under_an_active_id_is_an_error() {
    let bytes = [begin(7, RESPONDER, 1), begin(7, RESPONDER, 1)].concat();
    let error = Error::AlreadyActive { id: id(7) };
    assert_eq!(never(&bytes), [begun(7, true), Seen::Failed(error)]);
    assert_eq!(error.to_string(), "request `7` begins while another of that id is active");
}

#[test]
fn f11_records_of_ids_that_are_not_active_are_ignored() {
    for record_type in 2..=0xff {
        for content in [&b""[..], b"whatever"] {
            let bytes = [record(record_type, 3, content), FIRST_EXAMPLE.to_vec()].concat();
            assert_eq!(never(&bytes), never(FIRST_EXAMPLE), "type {record_type}");
        }
    }
}

#[test]
fn f11_the_rest_of_a_request_is_ignored_once_it_is_finished() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    let bytes = [request(1, 1, &[b'x'; 100]), request(2, 1, b"")].concat();
    drive.feed(&bytes[..60]);
    assert!(matches!(drive.seen.last(), Some(Seen::Stdin { .. })));
    drive.connection.finish(id(1));
    assert_eq!(drive.connection.expected(), None);
    drive.seen.clear();
    drive.feed(&bytes[60..]);
    assert_eq!(drive.seen, [begun(2, true), params(2), stdin_end(2, 0)]);
}

#[test]
fn f11_a_request_that_is_finished_within_its_parameters_is_forgotten() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    let bytes = request(1, 1, b"");
    drive.feed(&bytes[..26]);
    drive.connection.finish(id(1));
    drive.feed(&bytes[26..]);
    assert_eq!(drive.seen, [begun(1, true)]);
    assert!(drive.connection.is_idle());
}

#[test]
fn f12_any_id_is_used_again_and_again() {
    let ids = [1, 1, 65535, 256, 1, 65535, 2];
    let bytes: Vec<u8> = ids.iter().flat_map(|id| request(*id, 1, b"")).collect();
    let expected: Vec<Seen> =
        ids.iter().flat_map(|id| [begun(*id, true), params(*id), stdin_end(*id, 0)]).collect();
    assert_eq!(whole(&bytes, Limits::default(), Policy::AT_THE_END), expected);
}

#[test]
fn f18_the_connection_is_closed_after_a_request_that_does_not_keep_it() {
    let bytes = [request(1, 1, b""), request(1, 0, b""), request(1, 1, b"")].concat();
    let once = |keep| [begun(1, keep), params(1), stdin_end(1, 0)];
    let expected = [&once(true)[..], &once(false), &[Seen::MustClose]].concat();
    assert_eq!(whole(&bytes, Limits::default(), Policy::AT_THE_END), expected);
}

#[test]
fn f17_a_connection_is_not_closed_while_another_request_is_active() {
    let mut drive = Drive::new(MULTIPLEX, Policy::NEVER, false);
    drive.feed(&[request(1, 1, b""), request(2, 0, b"")].concat());
    assert!(!drive.connection.must_close());
    drive.connection.finish(id(2));
    assert!(!drive.connection.must_close());
    drive.connection.finish(id(1));
    assert!(drive.connection.must_close());
}

#[test]
fn f17_a_connection_that_is_kept_never_has_to_be_closed() {
    let mut drive = Drive::new(Limits::default(), Policy::AT_THE_END, false);
    for _ in 0..3 {
        drive.feed(&request(1, 1, b"body"));
        assert!(!drive.connection.must_close() && drive.connection.is_idle());
    }
}

#[test]
fn f26_an_abort_is_reported_once_and_nothing_follows_it() {
    let aborted = [
        record(ABORT, 1, b""),
        record(STDIN, 1, b"late"),
        record(STDIN, 1, b""),
        record(ABORT, 1, b""),
    ];
    let bytes = [request(1, 1, b"")[..HEAD].to_vec(), aborted.concat()].concat();
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    drive.feed(&bytes);
    assert_eq!(drive.seen, [begun(1, true), params(1), Seen::Abort { id: 1 }]);
    // It is for the application to answer.
    assert!(drive.connection.is_active(id(1)));
    let answer = Output::new(id(1)).end_request(1, ProtocolStatus::RequestComplete);
    assert_eq!(answer, *b"\x01\x03\0\x01\0\x08\0\0\0\0\0\x01\0\0\0\0");
    drive.connection.finish(id(1));
    assert!(drive.connection.is_idle());
}

#[test]
fn f26_a_request_may_be_aborted_after_its_input_is_over() {
    let bytes = [request(1, 1, b""), record(ABORT, 1, b""), record(ABORT, 1, b"")].concat();
    assert_eq!(never(&bytes), [begun(1, true), params(1), stdin_end(1, 0), Seen::Abort { id: 1 }]);
}

#[test]
fn f26_a_request_may_be_aborted_before_its_parameters_have_come() {
    let bytes = [
        begin(1, RESPONDER, 1),
        record(PARAMS, 1, b"\x01"),
        record(ABORT, 1, b""),
        record(PARAMS, 1, b""),
    ];
    assert_eq!(never(&bytes.concat()), [begun(1, true), Seen::Abort { id: 1 }]);
}

#[test]
fn f26_an_abort_ends_one_request_and_no_other() {
    let bytes = [
        begin(1, RESPONDER, 1),
        begin(2, RESPONDER, 1),
        record(PARAMS, 1, b"\x01\x01AB"),
        record(ABORT, 2, b""),
        record(PARAMS, 1, b""),
    ];
    let expected = [begun(1, true), begun(2, true), Seen::Abort { id: 2 }, params(1)];
    assert_eq!(whole(&bytes.concat(), MULTIPLEX, Policy::from_bits(8)), expected);
}

#[test]
fn f27_the_requests_that_a_closed_connection_aborts_are_known() {
    let mut drive = Drive::new(MULTIPLEX, Policy::NEVER, false);
    drive.feed(&[request(3, 1, b""), begin(9, RESPONDER, 1)].concat());
    assert_eq!(drive.connection.active().collect::<Vec<_>>(), [id(3), id(9)]);
}

#[test]
fn f28_an_abort_of_a_request_that_is_unknown_or_over_is_ignored() {
    let bytes =
        [record(ABORT, 5, b""), request(1, 1, b""), record(ABORT, 1, b""), request(1, 1, b"")]
            .concat();
    let seen = whole(&bytes, Limits::default(), Policy::AT_THE_END);
    assert_eq!(
        seen,
        whole(
            &[request(1, 1, b""), request(1, 1, b"")].concat(),
            Limits::default(),
            Policy::AT_THE_END
        )
    );
}

#[test]
fn f30_a_second_request_on_a_busy_connection_is_refused_and_ignored() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    let first = request(1, 1, b"body");
    drive.feed(&[&first[..HEAD], &request(2, 1, b"other"), &first[HEAD..]].concat());
    let refusal = Seen::Response { bytes: b"\x01\x03\0\x02\0\x08\0\0\0\0\0\0\x01\0\0\0".to_vec() };
    assert_eq!(
        drive.seen,
        [begun(1, true), params(1), refusal, stdin(1, b"body"), stdin_end(1, 4)]
    );
}

#[test]
fn f31_a_request_above_the_limit_of_a_multiplexed_connection_is_refused_as_overload() {
    let bytes: Vec<u8> = (1..=4).flat_map(|id| begin(id, RESPONDER, 1)).collect();
    let refusal = Seen::Response { bytes: b"\x01\x03\0\x04\0\x08\0\0\0\0\0\0\x02\0\0\0".to_vec() };
    assert_eq!(whole(&bytes, MULTIPLEX, Policy::NEVER).last(), Some(&refusal));
}

#[test]
fn f31_an_application_may_refuse_a_request_that_has_begun() {
    let mut connection = Connection::new(Limits::default());
    let bytes = request(1, 0, b"body");
    let consumed = connection.receive(&bytes).unwrap().consumed;
    let response = connection.refuse(id(1), ProtocolStatus::Overloaded);
    assert_eq!(response, Response::Refused { id: id(1), status: ProtocolStatus::Overloaded });
    assert_eq!(connection.receive(&bytes[consumed..]).unwrap().event, None);
    assert!(connection.is_idle() && connection.must_close());
}

#[test]
fn f12_requests_at_the_same_time_keep_their_streams_apart() {
    // The fourth example of the specification's appendix B, with bodies.
    let bytes = [
        begin(1, RESPONDER, 1),
        record(PARAMS, 1, b"\x01\x01AB"),
        record(PARAMS, 1, b""),
        begin(2, RESPONDER, 1),
        record(PARAMS, 2, b"\x01\x01A"),
        record(STDIN, 1, b"one"),
        record(STDIN, 1, b""),
        record(PARAMS, 2, b"B"),
        record(PARAMS, 2, b""),
        record(STDIN, 2, b""),
    ];
    let expected = [
        begun(1, true),
        params(1),
        begun(2, true),
        stdin(1, b"one"),
        stdin_end(1, 3),
        params(2),
        stdin_end(2, 0),
    ];
    assert_eq!(whole(&bytes.concat(), MULTIPLEX, Policy::NEVER), expected);
}

#[test]
fn f54_a_connection_that_ends_within_a_record_is_not_idle() {
    let bytes = record(STDIN, 1, b"abc");
    for cut in 1..bytes.len() {
        let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
        drive.feed(&bytes[..cut]);
        assert!(!drive.connection.is_idle(), "cut at {cut}");
    }
}

#[test]
fn a_connection_that_is_reset_is_a_new_one() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    drive.feed(&request(1, 0, b"abc")[..HEAD + 9]);
    drive.connection.reset();
    assert!(drive.connection.is_idle() && !drive.connection.must_close());
    drive.feed(b"\x09");
    drive.connection.reset();
    drive.seen.clear();
    drive.feed(FIRST_EXAMPLE);
    assert_eq!(drive.seen, never(FIRST_EXAMPLE));
}
