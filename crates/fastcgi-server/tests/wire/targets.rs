//! Functions of bytes that must hold for all bytes there are. Fuzzers call them, and so do the
//! tests.

use fastcgi_server::{
    Limits, Params,
    addresses::Addresses,
    client,
    pairs::{self, Pairs},
    values::Values,
};

use crate::{
    drive::{Policy, in_pieces, whole},
    model::{self, model},
};

/// A function of bytes and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: [Target; 4] =
    [("server", server), ("client", client), ("pairs", pairs), ("texts", texts)];

/// A connection of an application says what the model says, however the bytes are split. The first
/// four bytes are settings.
fn server(bytes: &[u8]) {
    let Some(([limit, active, policy, size], input)) = bytes.split_first_chunk() else { return };
    let limits = Limits {
        params_bytes: usize::from(*limit) * 8,
        params_count: usize::from(*limit / 4),
        active_requests: usize::from(*active % 4),
        max_conns: (*active >= 128).then_some(u32::from(*limit)),
        max_reqs: (*active % 2 == 0).then_some(u32::MAX),
    };
    let policy = Policy::from_bits(*policy);
    let expected = model(input, limits, policy);
    assert_eq!(whole(input, limits, policy), expected);
    assert_eq!(in_pieces(input, &[1], limits, policy, false), expected);
    assert_eq!(in_pieces(input, &[usize::from(*size), 1, 8, 3], limits, policy, true), expected);
}

/// A connection of a client says the same however the bytes are split.
fn client(bytes: &[u8]) {
    assert_eq!(responses(bytes, bytes.len().max(1)), responses(bytes, 1));
    assert_eq!(responses(bytes, bytes.len().max(1)), responses(bytes, 7));
}

/// What a client's connection says to pieces of `size` bytes, as text; contents that follow each
/// other are one.
fn responses(bytes: &[u8], size: usize) -> Vec<String> {
    let mut connection = client::ClientConnection::new();
    let mut said: Vec<String> = Vec::new();
    let mut stretch = None;
    for piece in bytes.chunks(size) {
        let mut rest = piece;
        loop {
            let step = match connection.receive(rest) {
                Ok(step) => step,
                Err(error) => {
                    said.push(error.to_string());
                    return said;
                }
            };
            rest = &rest[step.consumed..];
            let Some(event) = step.event else { break };
            let (kind, content) = match event {
                client::ClientEvent::Stdout { id, bytes } => (Some((id, 'o')), bytes),
                client::ClientEvent::Stderr { id, bytes } => (Some((id, 'e')), bytes),
                _ => (None, &[][..]),
            };
            match said.last_mut().filter(|_| kind.is_some() && kind == stretch) {
                Some(last) => last.extend(content.iter().copied().map(char::from)),
                None if kind.is_some() => {
                    said.push(content.iter().copied().map(char::from).collect())
                }
                None => said.push(format!("{event:?}")),
            }
            stretch = kind;
        }
        assert!(rest.is_empty());
    }
    said
}

/// Pairs are read as the model reads them, and what is read can be written and read again.
fn pairs(bytes: &[u8]) {
    let (expected, cut) = model::pairs(bytes);
    let mut written = Vec::new();
    let mut count = 0;
    for pair in Pairs::new(bytes) {
        match pair {
            Ok((name, value)) => {
                assert_eq!((name, value), (&expected[count].0[..], &expected[count].1[..]));
                pairs::append(name, value, &mut written).unwrap();
                count += 1;
            }
            Err(truncated) => assert_eq!(Some(truncated.at), cut),
        }
    }
    assert_eq!(count, expected.len());
    assert_eq!(model::pairs(&written), (expected, None));
    assert!(written.len() <= bytes.len());
    assert_eq!(Params::default().len(), 0);
}

/// Texts of a peer or an administrator are read or refused.
fn texts(bytes: &[u8]) {
    let values = Values::answered(bytes);
    let mut record = Vec::new();
    values.append_result(&mut record);
    assert_eq!(Values::answered(&record[8..]), values);
    assert_eq!(values.requested(b""), Values::default());
    if let Ok(list) = str::from_utf8(bytes) {
        match Addresses::parse(list) {
            Ok(addresses) => assert!(!addresses.allow(None)),
            Err(error) => assert!(list.contains(&error.item)),
        }
    }
}
