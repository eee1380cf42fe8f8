//! Writes bytes for tests, with no help of the crate's own writers, and sequences of them for
//! property tests.

use fastcgi_server::RequestId;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

pub(crate) const BEGIN: u8 = 1;
pub(crate) const ABORT: u8 = 2;
pub(crate) const END: u8 = 3;
pub(crate) const PARAMS: u8 = 4;
pub(crate) const STDIN: u8 = 5;
pub(crate) const STDOUT: u8 = 6;
pub(crate) const DATA: u8 = 8;
pub(crate) const GET_VALUES: u8 = 9;

pub(crate) const RESPONDER: u8 = 1;
pub(crate) const AUTHORIZER: u8 = 2;
pub(crate) const FILTER: u8 = 3;

/// A request id.
pub(crate) fn id(number: u16) -> RequestId {
    RequestId::new(number).unwrap()
}

/// A record before it is bytes.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) record_type: u8,
    pub(crate) id: u16,
    pub(crate) content: Vec<u8>,
    pub(crate) padding: u8,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let [id1, id0] = self.id.to_be_bytes();
        let [length1, length0] = u16::try_from(self.content.len()).unwrap().to_be_bytes();
        let mut bytes = vec![1, self.record_type, id1, id0, length1, length0, self.padding, 0];
        bytes.extend(&self.content);
        bytes.extend(std::iter::repeat_n(0xee, self.padding.into()));
        bytes
    }
}

/// The bytes of a record without padding.
pub(crate) fn record(record_type: u8, id: u16, content: &[u8]) -> Vec<u8> {
    Record { record_type, id, content: content.to_vec(), padding: 0 }.to_bytes()
}

/// The bytes of a `FCGI_BEGIN_REQUEST`.
pub(crate) fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
    record(BEGIN, id, &[0, role, flags, 0, 0, 0, 0, 0])
}

/// Bytes of a [`request`] before its body.
pub(crate) const HEAD: usize = 36;

/// A responder's request with one parameter and this body.
pub(crate) fn request(id: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        [begin(id, RESPONDER, flags), record(PARAMS, id, b"\x01\x01AB"), record(PARAMS, id, b"")]
            .concat();
    if !body.is_empty() {
        bytes.extend(record(STDIN, id, body));
    }
    bytes.extend(record(STDIN, id, b""));
    bytes
}

/// Content of a stream of parameters; now and then one that is cut off.
fn params() -> impl Strategy<Value = Vec<u8>> {
    let pair = (vec(any::<u8>(), 0..6), vec(any::<u8>(), 0..200), any::<bool>()).prop_map(
        |(name, value, long)| {
            let mut bytes = vec![u8::try_from(name.len()).unwrap()];
            let length = u32::try_from(value.len()).unwrap();
            if long || length > 127 {
                bytes.extend((length | 0x8000_0000).to_be_bytes());
            } else {
                bytes.push(u8::try_from(length).unwrap());
            }
            [bytes, name, value].concat()
        },
    );
    (vec(pair, 0..12), prop_oneof![9 => Just(0), 1 => 1..3_usize]).prop_map(|(pairs, cut)| {
        let mut bytes = pairs.concat();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

/// The records of a stream, ended or not.
fn stream(
    record_type: u8,
    id: u16,
    content: Vec<u8>,
    cuts: Vec<Index>,
    ended: bool,
) -> Vec<Record> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(content.len() + 1)).collect();
    at.extend([0, content.len()]);
    at.sort_unstable();
    at.dedup();
    let pieces = at.windows(2).map(|ends| content[ends[0]..ends[1]].to_vec());
    let ends = ended.then(Vec::new);
    pieces.chain(ends).map(|content| Record { record_type, id, content, padding: 0 }).collect()
}

/// The records of one whole request, in a legal order.
fn conversation(id: u16) -> impl Strategy<Value = Vec<Record>> {
    let role =
        prop_oneof![5 => Just(RESPONDER), 2 => Just(AUTHORIZER), 3 => Just(FILTER), 1 => Just(77)];
    let cuts = || vec(any::<Index>(), 0..4);
    let body = || vec(any::<u8>(), 0..300);
    let end = || prop::bool::weighted(0.95);
    (role, any::<u8>(), (params(), cuts(), end()), (body(), cuts(), end()), (body(), cuts(), end()))
        .prop_map(move |(role, flags, params, stdin, data)| {
            let begin = Record {
                record_type: BEGIN,
                id,
                content: vec![0, role, flags, 1, 2, 3, 4, 5],
                padding: 0,
            };
            let mut records = vec![begin];
            records.extend(stream(PARAMS, id, params.0, params.1, params.2));
            if params.2 && role != AUTHORIZER {
                records.extend(stream(STDIN, id, stdin.0, stdin.1, stdin.2));
            }
            // No role has this stream, and it disturbs none.
            if params.2 && stdin.2 && role == RESPONDER {
                records.extend(stream(DATA, id, data.0, data.1, data.2));
            }
            records
        })
}

/// A record that has no place in a conversation, though many are legal all the same.
fn noise() -> impl Strategy<Value = Record> {
    let names: [&[u8]; 5] = [
        b"\x0e\0FCGI_MAX_CONNS",
        b"\x0d\0FCGI_MAX_REQS",
        b"\x0f\x80\0\0\x01FCGI_MPXS_CONNSx",
        b"\x03\0YES",
        b"\xff\xff",
    ];
    let query = vec(select(names.to_vec()), 0..4);
    prop_oneof![
        (query, any::<u8>()).prop_map(|(names, padding)| {
            Record { record_type: GET_VALUES, id: 0, content: names.concat(), padding }
        }),
        (0..14_u8, vec(any::<u8>(), 0..20)).prop_map(|(record_type, content)| {
            Record { record_type, id: 0, content, padding: 0 }
        }),
        // Ids that are not active, or are over.
        (2..14_u8, 1..9_u16, vec(any::<u8>(), 0..20)).prop_map(|(record_type, id, content)| {
            Record {
                record_type,
                id: if record_type == PARAMS { id + 100 } else { id },
                content,
                padding: 0,
            }
        }),
        (1..9_u16).prop_map(|id| Record {
            record_type: ABORT,
            id,
            content: Vec::new(),
            padding: 0
        }),
    ]
}

/// What a web server may send: requests one after the other and at the same time, with padding, and
/// with `disturbances` records in between that need not be legal.
pub(crate) fn records(disturbances: usize) -> impl Strategy<Value = Vec<Record>> {
    let requests = vec((1..5_u16).prop_flat_map(conversation), 0..5);
    let noise = vec((any::<Index>(), noise()), 0..=disturbances);
    let order = vec(prop_oneof![3 => Just(0), 1 => any::<usize>()], 100);
    (requests, order, noise, vec(prop_oneof![2 => Just(0), 1 => any::<u8>()], 30)).prop_map(
        |(requests, order, noise, padding)| {
            // Each step sends the next record of some request, mostly of the first that is not
            // over.
            let mut waiting: Vec<_> = requests.into_iter().map(Vec::into_iter).collect();
            let mut sent = Vec::new();
            for choice in order {
                waiting.retain(|request| !request.as_slice().is_empty());
                if !waiting.is_empty() {
                    let chosen = choice % waiting.len();
                    sent.extend(waiting[chosen].next());
                }
            }
            for (place, record) in noise {
                sent.insert(place.index(sent.len() + 1), record);
            }
            for (record, padding) in sent.iter_mut().zip(padding.iter().cycle()) {
                record.padding = *padding;
            }
            sent
        },
    )
}

/// The bytes of [`records`].
pub(crate) fn streams(disturbances: usize) -> impl Strategy<Value = Vec<u8>> {
    records(disturbances).prop_map(|records| records.iter().flat_map(Record::to_bytes).collect())
}
