//! From the crate's client to its server and back.

use fastcgi_server::{
    Limits, Output, Stream,
    bodies::{EndRequest, ProtocolStatus, Role},
    client::{self, ClientEvent},
    values::Values,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    bytes::id,
    drive::{Policy, Seen, in_pieces, whole},
};

/// What a client's connection says to `bytes` in pieces of `size`, with all that each stream said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ends: Vec<Stream>,
    results: Vec<EndRequest>,
    values: Option<Values>,
    unknown: Option<u8>,
}

fn heard(bytes: &[u8], size: usize) -> Heard {
    let mut connection = client::ClientConnection::default();
    let mut heard = Heard::default();
    for piece in bytes.chunks(size) {
        let mut rest = piece;
        loop {
            let step = connection.receive(rest).unwrap();
            rest = &rest[step.consumed..];
            match step.event {
                None => break,
                Some(ClientEvent::Stdout { bytes, .. }) => heard.stdout.extend(bytes),
                Some(ClientEvent::Stderr { bytes, .. }) => heard.stderr.extend(bytes),
                Some(ClientEvent::StdoutEnd { .. }) => heard.ends.push(Stream::Stdout),
                Some(ClientEvent::StderrEnd { .. }) => heard.ends.push(Stream::Stderr),
                Some(ClientEvent::End { result, .. }) => heard.results.push(result),
                Some(ClientEvent::Values(values)) => heard.values = Some(values),
                Some(ClientEvent::UnknownType(record_type)) => heard.unknown = Some(record_type),
            }
        }
        assert!(rest.is_empty());
    }
    heard
}

#[test]
fn f19_a_client_asks_and_is_answered() {
    let mut query = Vec::new();
    Values::append_query(&mut query);
    let limits = Limits { max_conns: Some(1), max_reqs: Some(2), ..Limits::default() };
    let [Seen::Response { bytes }] = &whole(&query, limits, Policy::NEVER)[..] else {
        panic!("no response")
    };
    for size in [1, bytes.len()] {
        assert_eq!(heard(bytes, size), Heard { values: Some(limits.values()), ..Heard::default() });
    }
    assert_eq!(heard(b"\x01\x0a\0\0\0\0\0\0", 8).values, Some(Values::default()));
}

#[test]
fn f21_a_client_learns_which_type_was_unknown() {
    let [Seen::Response { bytes }] =
        &whole(b"\x01\x63\0\0\0\0\0\0", Limits::default(), Policy::NEVER)[..]
    else {
        panic!("no response")
    };
    assert_eq!(heard(bytes, 3).unknown, Some(0x63));
}

#[test]
fn f26_a_client_aborts_and_is_answered() {
    let mut bytes = Vec::new();
    let request = client::Request::new(id(5));
    request.append_begin(Role::Responder, true, &mut bytes);
    request.append_abort(&mut bytes);
    assert_eq!(
        whole(&bytes, Limits::default(), Policy::NEVER).last(),
        Some(&Seen::Abort { id: 5 })
    );
    let answer = Output::new(id(5)).end_request(9, ProtocolStatus::RequestComplete);
    let result = EndRequest { app_status: 9, protocol_status: ProtocolStatus::RequestComplete };
    assert_eq!(heard(&answer, 5), Heard { results: vec![result], ..Heard::default() });
}

#[test]
fn f14_parameters_are_divided_between_pairs_where_that_is_possible() {
    let mut bytes = Vec::new();
    // Pairs of 30 000, 30 000, 5 537, 70 000 and 5 bytes: the third is two too long for the record
    // of the first two.
    let values = [29_994, 29_994, 5_531, 69_994, 2].map(|length| vec![b'v'; length]);
    client::Request::new(id(1))
        .append_params(values.iter().map(|value| ("A", value)), &mut bytes)
        .unwrap();
    let mut lengths = Vec::new();
    let mut rest = &bytes[..];
    while let [1, 4, 0, 1, length1, length0, 0, 0, after @ ..] = rest {
        lengths.push(u16::from_be_bytes([*length1, *length0]));
        rest = &after[usize::from(lengths[lengths.len() - 1])..];
    }
    assert_eq!(lengths, [60_000, 5_537, 65_528, 4_472, 5, 0]);
    assert!(rest.is_empty());
}

#[test]
fn f14_parameters_that_fill_a_record_take_one_record() {
    let mut bytes = Vec::new();
    let value = vec![b'v'; 65_535 - 5 - 6];
    client::Request::new(id(1))
        .append_params([("A", &value[..]), ("B", b"abc")], &mut bytes)
        .unwrap();
    assert_eq!(bytes[..8], *b"\x01\x04\0\x01\xff\xfa\0\0");
    bytes.clear();
    client::Request::new(id(1))
        .append_params([("A", &value[..]), ("B", b"ab")], &mut bytes)
        .unwrap();
    assert_eq!(bytes[..8], *b"\x01\x04\0\x01\xff\xff\0\0");
    assert_eq!(bytes.len(), 8 + 65_535 + 8);
}

#[test]
fn f16_parameters_that_cannot_be_written_leave_nothing_behind() {
    let mut bytes = vec![b'x'];
    // The pages of a buffer of zeros are never touched.
    let params = [("A", vec![b'v'; 70_000]), ("B", vec![0; fastcgi_server::pairs::MAX_LENGTH + 1])];
    let error = client::Request::new(id(1)).append_params(params, &mut bytes).unwrap_err();
    assert_eq!(error.length, 1 << 31);
    assert_eq!(bytes, b"x");
}

#[test]
fn f09_a_client_refuses_another_version() {
    let mut connection = client::ClientConnection::new();
    let error = connection.receive(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
    assert!(matches!(error, client::ClientError::UnknownVersion(_)));
    assert_eq!(connection.receive(b""), Err(error));
}

#[test]
fn f29_a_client_refuses_an_end_of_another_length() {
    let error = client::ClientConnection::new().receive(b"\x01\x03\0\x01\0\x07\0\0").unwrap_err();
    assert_eq!(error.to_string(), "`FCGI_END_REQUEST` of `7` bytes where 8 belong");
}

#[test]
fn a_client_ignores_what_only_web_servers_send_and_what_nobody_knows() {
    for record_type in [1, 2, 4, 5, 8, 9, 12, 200] {
        for id in [0, 1] {
            assert_eq!(heard(&[1, record_type, 0, id, 0, 1, 1, 0, b'x', 0], 4), Heard::default());
        }
    }
}

proptest! {
    #[test]
    fn f24_requests_arrive_as_they_were_sent(
        number in 1..=0xffff_u16,
        role in select(vec![Role::Responder, Role::Authorizer]),
        keep_connection in any::<bool>(),
        params in vec((vec(any::<u8>(), 0..200), vec(any::<u8>(), 0..300)), 0..40),
        body in vec(any::<u8>(), 0..3000),
        sizes in vec(1..500_usize, 1..10),
    ) {
        let mut bytes = Vec::new();
        let request = client::Request::new(id(number));
        let mut expected = vec![Seen::Begin { id: number, role, keep_connection }];
        request.append_begin(role, keep_connection, &mut bytes);
        let pairs = params.iter().map(|(name, value)| (name, value));
        request.append_params(pairs, &mut bytes).unwrap();
        expected.push(Seen::Params { id: number, pairs: params });
        if role.has_stdin() {
            request.append_stdin(&body, &mut bytes);
            request.append_end_of_stdin(&mut bytes);
            let length = body.len() as u64;
            expected.extend((length > 0).then_some(Seen::Stdin { id: number, bytes: body }));
            expected.push(Seen::StdinEnd { id: number, length });
        }
        let seen = in_pieces(&bytes, &sizes, Limits::default(), Policy::NEVER, true);
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn f41_responses_arrive_as_they_were_sent(
        number in 1..=0xffff_u16,
        pieces in vec((any::<bool>(), vec(any::<u8>(), 0..300)), 0..20),
        long in prop_oneof![4 => Just(0), 1 => 60_000..200_000_usize],
        padded in any::<bool>(),
        app_status in any::<u32>(),
        size in 1..5000_usize,
    ) {
        let output = Output::new(id(number));
        let output = if padded { output.padded() } else { output };
        let (mut response, mut expected) = (Vec::new(), Heard::default());
        output.append(Stream::Stdout, &vec![b'l'; long], &mut response);
        expected.stdout.extend(vec![b'l'; long]);
        for (is_error, content) in pieces {
            let (stream, heard) =
                match is_error {
                    true => (Stream::Stderr, &mut expected.stderr),
                    false => (Stream::Stdout, &mut expected.stdout),
                };
            output.append(stream, &content, &mut response);
            heard.extend(content);
        }
        let stderr_used = !expected.stderr.is_empty();
        response.extend_from_slice(&output.ending(app_status, stderr_used));
        expected.ends.push(Stream::Stdout);
        expected.ends.extend(stderr_used.then_some(Stream::Stderr));
        let protocol_status = ProtocolStatus::RequestComplete;
        expected.results.push(EndRequest { app_status, protocol_status });
        prop_assert_eq!(heard(&response, size), expected);
    }

    #[test]
    fn f06_frames_around_contents_that_are_not_copied_are_the_same_records(
        length in prop_oneof![0..100_usize, 65_500..65_600_usize, 131_000..132_000_usize],
        padded in any::<bool>(),
    ) {
        let output = Output::new(id(1));
        let output = if padded { output.padded() } else { output };
        let content = vec![b'c'; length];
        let (mut copied, mut framed, mut rest) = (Vec::new(), Vec::new(), &content[..]);
        output.append(Stream::Stdout, &content, &mut copied);
        for frame in output.frames(Stream::Stdout, length) {
            let (piece, after) = rest.split_at(frame.content_length());
            framed.extend([frame.header(), piece, frame.padding()].concat());
            rest = after;
        }
        prop_assert!(rest.is_empty());
        prop_assert!(copied == framed);
        let request = client::Request::new(id(1));
        let count = output.frames(Stream::Stdout, length).len();
        prop_assert_eq!(request.frames(length).len(), count);
    }
}
