//! The three roles, and numbers that are none (FastCGI 1.0, 6).

use fastcgi_server::{Error, Input, Limits, bodies::Role, record::RecordType};

use crate::{
    bytes::{
        AUTHORIZER, BEGIN, DATA, FILTER, PARAMS, RESPONDER, STDIN, begin, id, record, request,
    },
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

fn content(input: Input, bytes: &[u8]) -> Seen {
    Seen::Content { id: 1, input, bytes: bytes.to_vec() }
}

fn end(input: Input, length: u64) -> Seen {
    Seen::ContentEnd { id: 1, input, length }
}

#[test]
fn f23_an_unknown_role_is_refused_and_the_connection_lives_on() {
    for role in [[0, 0], [0, 4], [1, 1], [0xff, 0xff]] {
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
fn f43_a_filter_gets_its_file_after_its_body() {
    let bytes = [
        begin(1, FILTER, 1),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b"body"),
        record(STDIN, 1, b""),
        record(DATA, 1, b"fi"),
        record(DATA, 1, b"le!"),
        record(DATA, 1, b""),
        record(DATA, 1, b"late"),
        record(DATA, 1, b""),
    ];
    let expected = [
        begun(Role::Filter),
        params(),
        content(Input::Stdin, b"body"),
        end(Input::Stdin, 4),
        content(Input::Data, b"file!"),
        end(Input::Data, 5),
    ];
    assert_eq!(seen(&bytes, Policy::NEVER), expected);
}

#[test]
fn f44_the_lengths_of_body_and_file_are_told_one_by_one() {
    let bytes =
        [begin(1, FILTER, 1), record(PARAMS, 1, b""), record(STDIN, 1, b""), record(DATA, 1, b"")];
    let expected = [begun(Role::Filter), params(), end(Input::Stdin, 0), end(Input::Data, 0)];
    assert_eq!(seen(&bytes, Policy::NEVER), expected);
}

#[test]
fn f43_a_file_before_the_end_of_the_body_is_an_error() {
    let failed = Seen::Failed(Error::OutOfOrder { id: id(1), record_type: RecordType::Data });
    let too_early = record(DATA, 1, b"x");
    let bytes = [begin(1, FILTER, 1), too_early.clone()];
    assert_eq!(seen(&bytes, Policy::NEVER), [begun(Role::Filter), failed.clone()]);
    let bytes = [begin(1, FILTER, 1), record(PARAMS, 1, b""), too_early];
    assert_eq!(seen(&bytes, Policy::NEVER), [begun(Role::Filter), params(), failed]);
}

#[test]
fn f43_a_body_that_goes_on_after_the_file_has_begun_is_ignored() {
    let bytes = [
        begin(1, FILTER, 1),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b""),
        record(DATA, 1, b"a"),
        record(STDIN, 1, b"late"),
        record(DATA, 1, b"b"),
    ];
    let expected =
        [begun(Role::Filter), params(), end(Input::Stdin, 0), content(Input::Data, b"ab")];
    assert_eq!(seen(&bytes, Policy::NEVER), expected);
}

#[test]
fn f25_a_responder_has_no_file() {
    let bytes = [
        begin(1, RESPONDER, 1),
        record(DATA, 1, b"x"),
        record(PARAMS, 1, b""),
        record(DATA, 1, b"x"),
        record(DATA, 1, b""),
        record(STDIN, 1, b""),
    ];
    assert_eq!(
        seen(&bytes, Policy::NEVER),
        [begun(Role::Responder), params(), end(Input::Stdin, 0)]
    );
}
