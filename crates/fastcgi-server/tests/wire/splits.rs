//! Where bytes are cut makes no difference, and neither does padding.

use fastcgi_server::Limits;
use proptest::{collection::vec, prelude::*};

use crate::{
    bytes::{
        DATA, GET_VALUES, PARAMS, RESPONDER, Record, STDIN, begin, record, records, request,
        streams,
    },
    drive::{Drive, Policy, Seen, in_pieces, whole},
    model::model,
};

const LIMITS: Limits = Limits {
    params_bytes: 1200,
    params_count: 9,
    active_requests: 3,
    max_conns: Some(4),
    max_reqs: Some(12),
};

/// Everything that is legal, in some two thousand bytes.
fn long_stream() -> Vec<u8> {
    let padded = |record_type, id, content: &[u8], padding| {
        Record { record_type, id, content: content.to_vec(), padding }.to_bytes()
    };
    [
        record(GET_VALUES, 0, b"\x0e\0FCGI_MAX_CONNS\x0d\0FCGI_MAX_REQS\x0f\0FCGI_MPXS_CONNS"),
        request(1, 1, &[b'x'; 300]),
        begin(2, RESPONDER, 1),
        padded(PARAMS, 2, b"\x01\x80\0\x01\0A", 3),
        begin(3, RESPONDER, 1),
        padded(PARAMS, 2, &[b'v'; 256], 0),
        padded(99, 0, b"what", 9),
        padded(PARAMS, 3, b"\x02\x02ABCD\0\0", 255),
        padded(PARAMS, 3, b"", 7),
        begin(4, 9, 1),
        padded(PARAMS, 2, b"", 0),
        begin(5, RESPONDER, 1),
        padded(STDIN, 3, b"abc", 5),
        record(PARAMS, 5, b"\x05\x05"),
        record(PARAMS, 5, b""),
        padded(STDIN, 3, b"", 0),
        padded(STDIN, 2, &[b'y'; 200], 1),
        padded(DATA, 3, &[b'z'; 100], 1),
        begin(6, RESPONDER, 1),
        padded(2, 6, b"", 0),
        padded(2, 2, b"", 0),
        padded(STDIN, 2, b"late", 0),
        padded(DATA, 3, b"", 8),
        request(1, 0, b"last"),
    ]
    .concat()
}

#[test]
fn f53_every_truncation_of_a_long_stream_is_understood_as_far_as_it_goes() {
    let bytes = long_stream();
    for policy in [Policy::NEVER, Policy::AT_THE_END] {
        for cut in 0..=bytes.len() {
            assert_eq!(
                whole(&bytes[..cut], LIMITS, policy),
                model(&bytes[..cut], LIMITS, policy),
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn f53_every_truncation_of_a_long_stream_goes_on_where_it_was_cut() {
    let bytes = long_stream();
    let all = whole(&bytes, LIMITS, Policy::AT_THE_END);
    assert_eq!(all.last(), Some(&Seen::MustClose));
    for cut in 0..=bytes.len() {
        for direct in [false, true] {
            let mut drive = Drive::new(LIMITS, Policy::AT_THE_END, direct);
            drive.feed(&bytes[..cut]);
            drive.feed(b"");
            drive.feed(&bytes[cut..]);
            assert_eq!(drive.seen, all, "cut at {cut}");
        }
    }
}

proptest! {
    #[test]
    fn f14_legal_requests_are_understood_as_the_model_understands_them(
        bytes in streams(0),
        bits in any::<u8>(),
        active_requests in 0..4_usize,
    ) {
        let (limits, policy) = (Limits { active_requests, ..LIMITS }, Policy::from_bits(bits));
        prop_assert_eq!(whole(&bytes, limits, policy), model(&bytes, limits, policy));
    }

    #[test]
    fn f53_random_pieces_are_the_same_as_all_at_once(
        bytes in streams(3),
        bits in any::<u8>(),
        sizes in vec(1..60_usize, 1..20),
        direct in any::<bool>(),
    ) {
        let policy = Policy::from_bits(bits);
        let expected = model(&bytes, LIMITS, policy);
        prop_assert_eq!(in_pieces(&bytes, &sizes, LIMITS, policy, direct), expected);
    }

    #[test]
    fn f07_random_padding_makes_no_difference(
        records in records(3),
        padding in vec(any::<u8>(), 1..20),
        bits in any::<u8>(),
    ) {
        let with = |padding: &[u8]| {
            let padded = records.iter().zip(padding.iter().cycle());
            padded
                .flat_map(|(record, padding)| {
                    Record { padding: *padding, ..record.clone() }.to_bytes()
                })
                .collect()
        };
        let (bare, padded): (Vec<u8>, Vec<u8>) = (with(&[0]), with(&padding));
        let policy = Policy::from_bits(bits);
        prop_assert_eq!(whole(&padded, LIMITS, policy), whole(&bare, LIMITS, policy));
    }
}
