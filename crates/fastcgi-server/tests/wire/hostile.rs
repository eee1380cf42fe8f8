//! Bytes of somebody who means no good, or has lost count. Also the smoke run of the fuzz targets.

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    bytes::{Record, records, streams},
    targets,
};

fn all_targets(bytes: &[u8]) {
    for (_, target) in targets::ALL {
        target(bytes);
    }
}

#[test]
fn no_bytes_and_few_bytes_hold_for_every_target() {
    all_targets(b"");
    for first in 0..=0xff {
        all_targets(&[first]);
        all_targets(&[first, 0x80, 0, 0, 1, 1]);
    }
}

#[test]
fn every_header_is_survived() {
    for record_type in 0..=0xff {
        for id in [0, 1, 0xff] {
            let header = [0x40, 1, 0, 0, 1, record_type, id, id, 0, 2, 1, 0, 0xff, 0xff, 0xff];
            all_targets(&header);
        }
    }
}

proptest! {
    // A thousand by default, and more with the environment variable `PROPTEST_CASES`.
    #![proptest_config(ProptestConfig {
        cases: 4 * ProptestConfig::default().cases,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_hold_for_every_target(bytes in vec(any::<u8>(), 0..400)) {
        all_targets(&bytes);
    }

    #[test]
    fn arbitrary_records_hold_for_every_target(
        settings in any::<[u8; 4]>(),
        records in vec((0..13_u8, 0..4_u16, prop_oneof![
            1 => Just(Vec::new()),
            2 => vec(any::<u8>(), 0..30),
            2 => (0..5_u8, any::<u8>())
                .prop_map(|(role, flags)| vec![0, role, flags, 0, 0, 0, 0, 0]),
        ], 0..3_u8), 0..30),
    ) {
        let records = records.into_iter().map(|(record_type, id, content, padding)| {
            Record { record_type, id, content, padding }.to_bytes()
        });
        all_targets(&[settings.to_vec(), records.flatten().collect()].concat());
    }

    #[test]
    fn disturbed_requests_hold_for_every_target(settings in any::<[u8; 4]>(), bytes in streams(8)) {
        all_targets(&[&settings[..], &bytes].concat());
    }

    #[test]
    fn mutated_requests_hold_for_every_target(
        settings in any::<[u8; 4]>(),
        mut bytes in streams(2),
        changes in vec((any::<Index>(), any::<u8>(), 0..4_u8), 1..6),
    ) {
        for (place, byte, kind) in changes {
            let at = place.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                },
            }
        }
        all_targets(&[&settings[..], &bytes].concat());
    }

    #[test]
    fn headers_with_changed_fields_hold_for_every_target(
        settings in any::<[u8; 4]>(),
        records in records(1),
        changes in vec(
            (
                any::<Index>(),
                1..8_usize,
                prop_oneof![any::<u8>(), Just(0), Just(1), Just(0xff)],
            ),
            1..3,
        ),
    ) {
        let mut records: Vec<Vec<u8>> = records.iter().map(Record::to_bytes).collect();
        if !records.is_empty() {
            for (which, field, byte) in changes {
                let which = which.index(records.len());
                records[which][field] = byte;
            }
        }
        all_targets(&[settings.to_vec(), records.concat()].concat());
    }
}
