//! The roles, and numbers that are refused (FastCGI 1.0, 6).

use fastcgi_server::{Limits, bodies::Role};

use crate::{
    bytes::{AUTHORIZER, BEGIN, DATA, FILTER, PARAMS, RESPONDER, STDIN, begin, record, request},
    drive::{Policy, Seen, whole},
};

fn seen(records: &[Vec<u8>], policy: Policy) -> Vec<Seen> {
    whole(&records.concat(), Limits::default(), policy)
}

fn begun(role: Role) -> Seen {
    Seen::Begin { id: 1, role, keep_connection: true }
}

fn params() -> Seen {
    Seen::Params { id: 1, pairs: Vec::new() }
}

fn stdin_end(length: u64) -> Seen {
    Seen::StdinEnd { id: 1, length }
}

#[test]
fn f23_an_unknown_role_is_refused_and_the_connection_lives_on() {
    for role in [[0, 0], [0, 3], [0, 4], [1, 1], [0xff, 0xff]] {
        let bad = record(BEGIN, 0x0102, &[role[0], role[1], 1, 0, 0, 0, 0, 0]);
        let refusal =
            Seen::Response { bytes: b"\x01\x03\x01\x02\0\x08\0\0\0\0\0\0\x03\0\0\0".to_vec() };
        let rest = [record(PARAMS, 0x0102, b"\x01"), record(PARAMS, 0x0102, b"")].concat();
        let bytes = [bad, rest, request(1, 1, b"")];
        assert_eq!(seen(&bytes, Policy::AT_THE_END)[0], refusal);
        assert_eq!(
            seen(&bytes, Policy::AT_THE_END)[1..],
            seen(&[request(1, 1, b"")], Policy::AT_THE_END)
        );
    }
}

#[test]
fn f18_a_refused_request_that_does_not_keep_the_connection_closes_it() {
    let bytes = [record(BEGIN, 1, &[0, 9, 0, 0, 0, 0, 0, 0]), request(1, 1, b"")];
    assert_eq!(seen(&bytes, Policy::AT_THE_END)[1..], [Seen::MustClose]);
}

#[test]
fn f42_an_authorizer_has_parameters_and_no_other_input() {
    let bytes = [
        begin(1, AUTHORIZER, 1),
        record(STDIN, 1, b""),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b"x"),
        record(DATA, 1, b"x"),
        record(STDIN, 1, b""),
    ];
    assert_eq!(seen(&bytes, Policy::NEVER), [begun(Role::Authorizer), params()]);
}

#[test]
fn f43_f44_a_filter_is_refused_and_nothing_of_its_request_disturbs_the_connection() {
    let refusal = Seen::Response { bytes: b"\x01\x03\0\x01\0\x08\0\0\0\0\0\0\x03\0\0\0".to_vec() };
    let filter = [
        begin(1, FILTER, 1),
        record(PARAMS, 1, b"\x10\x01FCGI_DATA_LENGTH8"),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b"body"),
        record(STDIN, 1, b""),
        record(DATA, 1, b"the file"),
        record(DATA, 1, b""),
    ]
    .concat();
    let expected = seen(&[request(1, 1, b"")], Policy::AT_THE_END);
    let found = seen(&[filter, request(1, 1, b"")], Policy::AT_THE_END);
    assert_eq!(found[0], refusal);
    assert_eq!(found[1..], expected);
}

#[test]
fn f25_data_is_ignored_wherever_it_stands_in_a_responders_request() {
    let bytes = [
        begin(1, RESPONDER, 1),
        record(DATA, 1, b"x"),
        record(PARAMS, 1, b""),
        record(DATA, 1, b"x"),
        record(DATA, 1, b""),
        record(STDIN, 1, b"ab"),
        record(DATA, 1, b"x"),
        record(STDIN, 1, b""),
        record(DATA, 1, b"x"),
    ];
    assert_eq!(
        seen(&bytes, Policy::NEVER),
        [
            begun(Role::Responder),
            params(),
            Seen::Stdin { id: 1, bytes: b"ab".to_vec() },
            stdin_end(2)
        ]
    );
}
