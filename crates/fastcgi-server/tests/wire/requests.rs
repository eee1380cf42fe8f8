//! The streams of a request: parameters, body, output.

use fastcgi_server::{
    Connection, Error, Event, Expected, Limits, Output, Stream, bodies::Role, record::RecordType,
};

use crate::{
    bytes::{
        BEGIN, DATA, END, HEAD, PARAMS, RESPONDER, Record, STDIN, STDOUT, begin, id, record,
        request,
    },
    drive::{Drive, Policy, Seen, whole},
};

/// The first example of the specification's appendix B, with its three dots left out.
pub(crate) const FIRST_EXAMPLE: &[u8] = b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\x01\0\x2a\0\0\x0b\x02SERVER_PORT80\x0b\x0eSERVER_ADDR199.170.183.42\x01\x04\0\x01\0\0\0\0\x01\x05\0\x01\0\0\0\0";

/// The second: the same parameters in two records, and a body.
const SECOND_EXAMPLE: &[u8] = b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\x01\0\x14\0\0\x0b\x02SERVER_PORT80\x0b\x0eSER\x01\x04\0\x01\0\x16\0\0VER_ADDR199.170.183.42\x01\x04\0\x01\0\0\0\0\x01\x05\0\x01\0\x19\0\0quantity=100&item=3047936\x01\x05\0\x01\0\0\0\0";

pub(crate) fn never(input: &[u8]) -> Vec<Seen> {
    whole(input, Limits::default(), Policy::NEVER)
}

fn example_params() -> Seen {
    let pairs = [("SERVER_PORT", "80"), ("SERVER_ADDR", "199.170.183.42")];
    Seen::Params { id: 1, pairs: pairs.map(|(name, value)| (name.into(), value.into())).to_vec() }
}

pub(crate) fn begun(id: u16, keep_connection: bool) -> Seen {
    Seen::Begin { id, role: Role::Responder, keep_connection }
}

pub(crate) fn stdin(id: u16, bytes: &[u8]) -> Seen {
    Seen::Stdin { id, bytes: bytes.to_vec() }
}

pub(crate) fn stdin_end(id: u16, length: u64) -> Seen {
    Seen::StdinEnd { id, length }
}

pub(crate) fn params(id: u16) -> Seen {
    Seen::Params { id, pairs: vec![(b"A".to_vec(), b"B".to_vec())] }
}

#[test]
fn f22_the_first_example_of_the_specification_is_a_request_without_a_body() {
    assert_eq!(never(FIRST_EXAMPLE), [begun(1, false), example_params(), stdin_end(1, 0)]);
}

#[test]
fn f14_pairs_straddle_records_as_in_the_second_example_of_the_specification() {
    let body = b"quantity=100&item=3047936";
    assert_eq!(
        never(SECOND_EXAMPLE),
        [begun(1, false), example_params(), stdin(1, body), stdin_end(1, 25)]
    );
}

#[test]
fn f14_one_byte_a_record_is_the_same_stream() {
    let mut bytes = begin(1, RESPONDER, 0);
    for byte in b"\x0b\x02SERVER_PORT80\x0b\x0eSERVER_ADDR199.170.183.42" {
        bytes.extend(record(PARAMS, 1, &[*byte]));
    }
    bytes.extend(record(PARAMS, 1, b""));
    assert_eq!(never(&bytes), [begun(1, false), example_params()]);
}

#[test]
fn f07_padding_of_any_length_is_skipped() {
    for padding in 0..=0xff {
        let bytes: Vec<u8> = [
            (BEGIN, &b"\0\x01\0\0\0\0\0\0"[..]),
            (PARAMS, b"\x01\x01A"),
            (PARAMS, b"B"),
            (PARAMS, b""),
            (STDIN, b"xyz"),
            (STDIN, b""),
        ]
        .into_iter()
        .flat_map(|(record_type, content)| {
            Record { record_type, id: 1, content: content.to_vec(), padding }.to_bytes()
        })
        .collect();
        assert_eq!(never(&bytes), [begun(1, false), params(1), stdin(1, b"xyz"), stdin_end(1, 3)]);
    }
}

#[test]
fn f25_stdin_comes_in_and_output_streams_from_a_peer_are_ignored() {
    let bytes = [
        begin(1, RESPONDER, 1),
        record(STDOUT, 1, b"no"),
        record(7, 1, b"no"),
        record(PARAMS, 1, b""),
        record(END, 1, &[0; 8]),
        record(STDIN, 1, b"yes"),
    ];
    let expected = [begun(1, true), Seen::Params { id: 1, pairs: Vec::new() }, stdin(1, b"yes")];
    assert_eq!(never(&bytes.concat()), expected);
}

#[test]
fn f37_a_body_before_the_end_of_the_parameters_is_an_error() {
    for content in [&b""[..], b"x"] {
        let bytes =
            [begin(1, RESPONDER, 1), record(PARAMS, 1, b"\x01\x01AB"), record(STDIN, 1, content)];
        let error = Error::OutOfOrder { id: id(1), record_type: RecordType::Stdin };
        assert_eq!(never(&bytes.concat()), [begun(1, true), Seen::Failed(error)]);
        assert_eq!(error.to_string(), "`FCGI_STDIN` of request `1` comes too early");
    }
}

#[test]
fn f38_a_response_may_be_over_before_the_body_is() {
    let bytes = [request(1, 1, b"body"), request(1, 1, b"")].concat();
    let answered_early = Policy { after_params: true, ..Policy::NEVER };
    let expected = [begun(1, true), params(1), begun(1, true), params(1)];
    assert_eq!(whole(&bytes, Limits::default(), answered_early), expected);
}

#[test]
fn f39_the_end_of_a_body_tells_how_long_it_was() {
    let bytes = [request(1, 1, &[b'x'; 65535]), request(1, 1, b"")].concat();
    let seen = whole(&bytes, Limits::default(), Policy::AT_THE_END);
    assert_eq!(seen[3], stdin_end(1, 65535));
    assert_eq!(seen.last(), Some(&stdin_end(1, 0)));
}

#[test]
fn f39_a_stream_that_is_over_stays_over() {
    let late = [
        record(PARAMS, 1, b"\x01\x01CD"),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b"more"),
        record(STDIN, 1, b""),
    ];
    let bytes = [request(1, 1, b"body"), late.concat()].concat();
    assert_eq!(never(&bytes), never(&request(1, 1, b"body")));
}

#[test]
fn f16_parameters_that_are_cut_off_spoil_their_request_and_no_other() {
    let bad = [
        begin(1, RESPONDER, 1),
        record(PARAMS, 1, b"\x01\x01AB\x01\x7fA"),
        record(PARAMS, 1, b""),
        record(STDIN, 1, b"body"),
        record(STDIN, 1, b""),
    ];
    let error = fastcgi_server::ParamsError::Truncated { at: 4 };
    let seen = whole(
        &[bad.concat(), request(1, 1, b"")].concat(),
        Limits::default(),
        Policy::from_bits(0xfe),
    );
    let expected = [
        begun(1, true),
        Seen::BadParams { id: 1, error },
        begun(1, true),
        params(1),
        stdin_end(1, 0),
    ];
    assert_eq!(seen, expected);
    assert_eq!(error.to_string(), "the parameter at byte `4` is cut off");
}

#[test]
fn f22_a_begin_of_another_length_is_an_error() {
    for length in [0, 7, 9, 255] {
        let error = Error::BeginLength { id: id(1), length };
        assert_eq!(never(&record(BEGIN, 1, &vec![0; length.into()])), [Seen::Failed(error)]);
        assert_eq!(error.to_string(), format!("`{length}` bytes begin request `1` where `8` do"));
    }
}

#[test]
fn f53_one_byte_at_a_time_is_the_same_as_all_at_once() {
    let bytes =
        [SECOND_EXAMPLE, &record(9, 0, b"\x0f\0FCGI_MPXS_CONNS"), &record(77, 0, b"")].concat();
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    for byte in &bytes {
        drive.feed(&[*byte]);
    }
    assert_eq!(drive.seen, never(&bytes));
}

#[test]
fn f53_a_body_that_comes_with_the_parameters_is_not_lost() {
    let mut connection = Connection::new(Limits::default());
    let bytes = request(1, 1, b"body");
    let mut at = 0;
    let mut next = || {
        let step = connection.receive(&bytes[at..]).unwrap();
        at += step.consumed;
        step.event
    };
    assert!(matches!(next(), Some(Event::Begin { .. })));
    assert!(matches!(next(), Some(Event::Params { .. })));
    let Some(Event::Stdin { bytes: piece, .. }) = next() else { panic!("no body") };
    assert!(std::ptr::eq(piece.as_ptr(), &raw const bytes[HEAD + 8]), "the content is not copied");
    assert_eq!(next(), Some(Event::StdinEnd { id: id(1), length: 4 }));
    assert_eq!(next(), None);
}

#[test]
fn f54_empty_streams_and_connections_without_a_word_are_harmless() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    drive.feed(b"");
    for record_type in [STDIN, DATA, 7, PARAMS] {
        drive.feed(&record(record_type, 1, b""));
    }
    assert_eq!(drive.seen, []);
    assert!(drive.connection.is_idle() && !drive.connection.must_close());
}

#[test]
fn a_body_may_be_read_past_the_connection() {
    let mut connection = Connection::new(Limits::default());
    let record =
        Record { record_type: STDIN, id: 1, content: vec![b'x'; 1000], padding: 3 }.to_bytes();
    let bytes = [&request(1, 1, b"")[..HEAD], &record[..20]].concat();
    let mut at = 0;
    while let Some(step) =
        Some(connection.receive(&bytes[at..]).unwrap()).filter(|step| step.event.is_some())
    {
        at += step.consumed;
    }
    let expected = |remaining| Some(Expected { id: id(1), remaining });
    assert_eq!(connection.expected(), expected(988));
    connection.took(900);
    assert_eq!(connection.expected(), expected(88));
    connection.took(88);
    assert_eq!(connection.expected(), None);
    connection.took(0);
    let rest = [&record[1008..], &request(1, 1, b"")[HEAD..]].concat();
    let end = connection.receive(&rest).unwrap();
    assert_eq!(end.event, Some(Event::StdinEnd { id: id(1), length: 1000 }));
    assert_eq!(end.consumed, rest.len());
}

#[test]
#[should_panic(expected = "`4` bytes taken where `3` are expected")]
fn more_than_is_expected_cannot_be_taken() {
    let mut drive = Drive::new(Limits::default(), Policy::NEVER, false);
    drive.feed(&request(1, 1, b"abc")[..HEAD + 8]);
    drive.connection.took(4);
}

#[test]
fn f32_records_of_a_response_may_be_mixed() {
    // The third example of the specification's appendix B.
    let output = Output::new(id(1));
    let mut response = Vec::new();
    output.append(Stream::Stdout, b"Content-type: text/html\r\n\r\n<ht", &mut response);
    output.append(Stream::Stderr, b"config error: missing SI_UID\n", &mut response);
    output.append(Stream::Stdout, b"ml>\n<head>", &mut response);
    response.extend_from_slice(&output.ending(938, true));
    let expected = b"\x01\x06\0\x01\0\x1e\0\0Content-type: text/html\r\n\r\n<ht\
        \x01\x07\0\x01\0\x1d\0\0config error: missing SI_UID\n\
        \x01\x06\0\x01\0\x0a\0\0ml>\n<head>\
        \x01\x06\0\x01\0\0\0\0\
        \x01\x07\0\x01\0\0\0\0\
        \x01\x03\0\x01\0\x08\0\0\0\0\x03\xaa\0\0\0\0";
    assert_eq!(response, expected);
}
