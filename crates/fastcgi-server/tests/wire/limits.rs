//! What a peer cannot make a connection keep.

use fastcgi_server::{Connection, Event, Limits, ParamsError};

use crate::{
    bytes::{PARAMS, RESPONDER, STDIN, begin, id, record, request},
    drive::{Policy, Seen, whole},
};

const LIMITS: Limits = Limits {
    params_bytes: 20,
    params_count: 3,
    active_requests: 1,
    max_conns: None,
    max_reqs: None,
};

/// What is said about the parameters in `streams`, each of which is a record of its own.
fn said(streams: &[&[u8]]) -> Seen {
    let mut bytes = begin(1, RESPONDER, 1);
    for content in streams {
        bytes.extend(record(PARAMS, 1, content));
    }
    bytes.extend(record(PARAMS, 1, b""));
    bytes.extend(record(STDIN, 1, b"body"));
    bytes.extend(record(STDIN, 1, b""));
    // The next request must not suffer.
    bytes.extend(request(1, 1, b""));
    let mut seen = whole(&bytes, LIMITS, Policy::AT_THE_END);
    assert_eq!(
        seen.split_off(seen.len() - 3),
        whole(&request(1, 1, b""), LIMITS, Policy::AT_THE_END)
    );
    seen.swap_remove(1)
}

#[test]
fn f52_parameters_up_to_the_limit_are_taken() {
    assert!(matches!(said(&[b"\x01\x11A", &[b'x'; 17]]), Seen::Params { .. }));
}

#[test]
fn f52_parameters_above_the_limit_are_refused_at_their_end() {
    let error = ParamsError::TooLong { limit: 20 };
    assert_eq!(said(&[b"\x01\x12A", &[b'x'; 18]]), Seen::BadParams { id: 1, error });
    assert_eq!(error.to_string(), "more than `20` bytes of parameters");
}

#[test]
fn f52_too_many_parameters_are_refused() {
    assert!(matches!(said(&[b"\0\0\0\0\0\0"]), Seen::Params { .. }));
    let error = ParamsError::TooMany { limit: 3 };
    assert_eq!(said(&[b"\0\0\0\0\0\0\0\0"]), Seen::BadParams { id: 1, error });
    assert_eq!(error.to_string(), "more than `3` parameters");
}

#[test]
fn f37_nothing_is_said_about_endless_parameters_before_they_end() {
    let mut connection = Connection::new(LIMITS);
    let consumed = connection.receive(&begin(1, RESPONDER, 1)).unwrap().consumed;
    assert_eq!(consumed, 16);
    let piece = record(PARAMS, 1, &[0; 65535]);
    for _ in 0..100 {
        let step = connection.receive(&piece).unwrap();
        assert_eq!((step.consumed, step.event), (piece.len(), None));
    }
    let error = ParamsError::TooLong { limit: 20 };
    let end = record(PARAMS, 1, b"");
    assert_eq!(
        connection.receive(&end).unwrap().event,
        Some(Event::BadParams { id: id(1), error })
    );
}

#[test]
fn f52_an_announced_length_takes_no_memory() {
    // Two gigabytes and a value of as many: nobody has sent them yet.
    let bytes = [
        begin(1, RESPONDER, 1),
        record(PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        record(PARAMS, 1, b""),
    ];
    let seen = whole(&bytes.concat(), Limits::default(), Policy::NEVER);
    assert_eq!(
        seen.last(),
        Some(&Seen::BadParams { id: 1, error: ParamsError::Truncated { at: 0 } })
    );
}

#[test]
fn f52_the_defaults_take_what_a_web_server_sends_at_most() {
    // Apache: a hundred header fields of 8190 bytes, and a request line of as many.
    let mut bytes = begin(1, RESPONDER, 1);
    for number in 0..101_u8 {
        let value = [b'x'; 8190];
        bytes.extend(record(
            PARAMS,
            1,
            &[b"\x08\x80\0\x1f\xfeHTTP_X_", &[number][..], &value].concat(),
        ));
    }
    bytes.extend(record(PARAMS, 1, b""));
    let seen = whole(&bytes, Limits::default(), Policy::NEVER);
    assert!(matches!(&seen[..], [_, Seen::Params { pairs, .. }] if pairs.len() == 101));
}

#[test]
fn f52_no_active_requests_count_as_one() {
    let limits = Limits { active_requests: 0, ..LIMITS };
    assert_eq!(
        whole(&request(1, 1, b""), limits, Policy::NEVER),
        whole(&request(1, 1, b""), LIMITS, Policy::NEVER)
    );
}

#[test]
fn f52_a_buffer_that_is_handed_back_is_used_again() {
    let mut connection = Connection::new(Limits::default());
    let mut places = Vec::new();
    for _ in 0..3 {
        let bytes = request(1, 1, b"");
        let mut at = 0;
        loop {
            let step = connection.receive(&bytes[at..]).unwrap();
            at += step.consumed;
            match step.event {
                Some(Event::Params { params, .. }) => {
                    places.push(params.as_bytes().as_ptr());
                    connection.reuse(params);
                }
                Some(Event::StdinEnd { id, .. }) => connection.finish(id),
                Some(_) => {}
                None => break,
            }
        }
    }
    assert_eq!(places[0], places[1]);
    assert_eq!(places[1], places[2]);
}
