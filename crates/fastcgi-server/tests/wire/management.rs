//! Management records (FastCGI 1.0, 4).

use fastcgi_server::Limits;

use crate::{
    bytes::{GET_VALUES, HEAD, STDIN, begin, record, request},
    drive::{Policy, Seen, whole},
};

const LIMITS: Limits = Limits {
    params_bytes: 1000,
    params_count: 10,
    active_requests: 1,
    max_conns: Some(8),
    max_reqs: Some(8),
};

/// The responses to `records`, one after the other.
fn responses(records: &[Vec<u8>], limits: Limits) -> Vec<Vec<u8>> {
    let response = |seen| if let Seen::Response { bytes } = seen { Some(bytes) } else { None };
    whole(&records.concat(), limits, Policy::NEVER).into_iter().filter_map(response).collect()
}

#[test]
fn f19_values_are_answered_without_a_request() {
    let query =
        record(GET_VALUES, 0, b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS");
    let result = b"\x01\x0a\0\0\0\x33\0\0\x0e\x01FCGI_MAX_CONNS8\x0d\x01FCGI_MAX_REQS8\x0f\x01FCGI_MPXS_CONNS0";
    assert_eq!(responses(&[query], LIMITS), [result]);
}

#[test]
fn f19_values_are_answered_within_a_request_too() {
    let query = record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS");
    let request = request(1, 1, b"body");
    for cut in [16, 16 + 12, HEAD] {
        let records = [request[..cut].to_vec(), query.clone(), request[cut..].to_vec()];
        assert_eq!(
            responses(&records, LIMITS),
            [b"\x01\x0a\0\0\0\x12\0\0\x0f\x01FCGI_MPXS_CONNS0"],
            "at {cut}"
        );
        let seen = whole(&records.concat(), LIMITS, Policy::NEVER);
        let others: Vec<_> =
            seen.into_iter().filter(|seen| !matches!(seen, Seen::Response { .. })).collect();
        assert_eq!(others, whole(&request, LIMITS, Policy::NEVER));
    }
}

#[test]
fn f19_unknown_names_are_left_out() {
    assert_eq!(
        responses(&[record(GET_VALUES, 0, b"\x03\0YES")], LIMITS),
        [b"\x01\x0a\0\0\0\0\0\0"]
    );
    assert_eq!(responses(&[record(GET_VALUES, 0, b"")], LIMITS), [b"\x01\x0a\0\0\0\0\0\0"]);
}

#[test]
fn f20_what_is_announced_is_what_the_limits_say() {
    let query =
        record(GET_VALUES, 0, b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS");
    let multiplex = Limits { active_requests: 2, max_conns: None, max_reqs: Some(100), ..LIMITS };
    let result = b"\x01\x0a\0\0\0\x24\0\0\x0d\x03FCGI_MAX_REQS100\x0f\x01FCGI_MPXS_CONNS1";
    assert_eq!(responses(&[query], multiplex), [result]);
}

#[test]
fn f21_management_records_of_unknown_types_are_answered_with_their_type() {
    for record_type in (1..=8).chain(12..=0xff) {
        let expected = [1, 11, 0, 0, 0, 8, 0, 0, record_type, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(responses(&[record(record_type, 0, b"content")], LIMITS), [expected]);
    }
}

#[test]
fn f21_answers_are_not_answered() {
    assert_eq!(responses(&[record(10, 0, b""), record(11, 0, &[0; 8])], LIMITS), [b""; 0]);
}

#[test]
fn f13_the_id_of_no_request_begins_none() {
    let seen = whole(&[begin(0, 1, 1), record(STDIN, 0, b"x")].concat(), LIMITS, Policy::NEVER);
    assert!(seen.iter().all(|seen| matches!(seen, Seen::Response { .. })), "{seen:?}");
    assert_eq!(seen.len(), 2);
}

#[test]
fn f13_management_types_under_the_id_of_a_request_are_ignored() {
    let disturbed: Vec<u8> =
        [9, 10, 11, 12, 200].iter().flat_map(|kind| record(*kind, 1, b"x")).collect();
    let request = request(1, 1, b"");
    let bytes = [&request[..16], &disturbed, &request[16..]].concat();
    assert_eq!(whole(&bytes, LIMITS, Policy::NEVER), whole(&request, LIMITS, Policy::NEVER));
}
