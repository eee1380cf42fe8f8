//! What a connection should say, decided in the simplest way: all bytes are there, nothing is fast,
//! everything is kept.

use std::collections::BTreeMap;

use fastcgi_server::{
    Error, Limits, ParamsError, RequestId,
    bodies::Role,
    record::{RecordType, UnknownVersion},
};

use crate::drive::{Policy, Seen};

#[derive(Default)]
struct Request {
    role: u16,
    keep_connection: bool,
    aborted: bool,
    /// Nothing that still comes matters.
    deaf: bool,
    params: Vec<u8>,
    length: u64,
    /// Types of the streams that are over.
    over: Vec<u8>,
}

/// Everything that is said to `input`.
pub(crate) fn model(input: &[u8], limits: Limits, policy: Policy) -> Vec<Seen> {
    let mut model =
        Model { limits, policy, requests: BTreeMap::new(), closing: false, seen: Vec::new() };
    let mut rest = input;
    while !matches!(model.seen.last(), Some(Seen::MustClose | Seen::Failed(_))) {
        match *rest {
            [version, ..] if version != 1 => {
                model.say(Seen::Failed(Error::UnknownVersion(UnknownVersion(version))))
            }
            [_, kind, id1, id0, length1, length0, padding, _, ref after @ ..] => {
                let length = 256 * usize::from(length1) + usize::from(length0);
                let content = &after[..length.min(after.len())];
                model.record(kind, 256 * u16::from(id1) + u16::from(id0), length, content);
                rest = &after[(length + usize::from(padding)).min(after.len())..];
            }
            _ => break,
        }
    }
    model.seen
}

struct Model {
    limits: Limits,
    policy: Policy,
    requests: BTreeMap<u16, Request>,
    closing: bool,
    seen: Vec<Seen>,
}

impl Model {
    fn say(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    /// `content` is shorter than `length` if the input ends within it.
    fn record(&mut self, kind: u8, id: u16, length: usize, content: &[u8]) {
        let whole = content.len() == length;
        let active = self.requests.contains_key(&id);
        match (kind, id) {
            (9, 0) if whole => self.get_values(content),
            (9..=11, 0) => {}
            (_, 0) => self.response(&[1, 11, 0, 0, 0, 8, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0]),
            (1, _) if active => self.say(Seen::Failed(Error::AlreadyActive { id: request_id(id) })),
            (1, _) if length != 8 => {
                let length = u16::try_from(length).unwrap();
                self.say(Seen::Failed(Error::BeginLength { id: request_id(id), length }));
            }
            (1, _) if whole => {
                self.begin(id, 256 * u16::from(content[0]) + u16::from(content[1]), content[2])
            }
            (2, _) if active => self.abort(id),
            (4 | 5, _) if active => self.stream(kind, id, length, content),
            _ => {}
        }
    }

    fn get_values(&mut self, content: &[u8]) {
        let asked = |name: &str| pairs(content).0.iter().any(|(asked, _)| asked == name.as_bytes());
        let mut answer = String::new();
        for (name, value) in [
            ("FCGI_MAX_CONNS", self.limits.max_conns),
            ("FCGI_MAX_REQS", self.limits.max_reqs),
            ("FCGI_MPXS_CONNS", Some(if self.limits.active_requests > 1 { 1 } else { 0 })),
        ] {
            if let Some(value) = value.filter(|_| asked(name)) {
                let value = value.to_string();
                answer.push(char::from(u8::try_from(name.len()).unwrap()));
                answer.push(char::from(u8::try_from(value.len()).unwrap()));
                answer.push_str(name);
                answer.push_str(&value);
            }
        }
        let mut bytes = vec![1, 10, 0, 0, 0, u8::try_from(answer.len()).unwrap(), 0, 0];
        bytes.extend(answer.bytes());
        self.response(&bytes);
    }

    fn begin(&mut self, id: u16, role: u16, flags: u8) {
        let keep_connection = flags % 2 == 1;
        let known = [(1, Role::Responder), (2, Role::Authorizer)];
        let known = known.iter().find(|(number, _)| *number == role);
        let status = if known.is_none() {
            3
        } else if self.requests.len() < self.limits.active_requests.max(1) {
            0
        } else if self.limits.active_requests > 1 {
            2
        } else {
            1
        };
        if status == 0 {
            self.requests.insert(id, Request { role, keep_connection, ..Request::default() });
            self.say(Seen::Begin { id, role: known.unwrap().1, keep_connection });
        } else {
            self.closing |= !keep_connection;
            let [id1, id0] = id.to_be_bytes();
            self.response(&[1, 3, id1, id0, 0, 8, 0, 0, 0, 0, 0, 0, status, 0, 0, 0]);
        }
    }

    fn response(&mut self, bytes: &[u8]) {
        self.say(Seen::Response { bytes: bytes.to_vec() });
        self.close();
    }

    fn abort(&mut self, id: u16) {
        let request = self.requests.get_mut(&id).unwrap();
        if !request.aborted {
            request.aborted = true;
            request.deaf = true;
            self.tell(id, Seen::Abort { id });
        }
    }

    fn stream(&mut self, kind: u8, id: u16, length: usize, content: &[u8]) {
        let request = self.requests.get_mut(&id).unwrap();
        let inputs: &[u8] = match request.role {
            1 => &[4, 5],
            _ => &[4],
        };
        let Some(place) = inputs.iter().position(|input| *input == kind) else { return };
        if request.deaf || request.over.contains(&kind) {
            return;
        }
        if inputs[..place].iter().any(|earlier| !request.over.contains(earlier)) {
            let (id, record_type) = (request_id(id), RecordType::Stdin);
            return self.say(Seen::Failed(Error::OutOfOrder { id, record_type }));
        }
        if length == 0 {
            request.over.push(kind);
        }
        match (kind, length) {
            (4, 0) => self.end_params(id),
            (4, _) => request.params.extend(content),
            (_, 0) => {
                let length = request.length;
                self.tell(id, Seen::StdinEnd { id, length });
            }
            (_, _) => {
                request.length += content.len() as u64;
                match self.seen.last_mut() {
                    Some(Seen::Stdin { id: last, bytes }) if *last == id => bytes.extend(content),
                    _ if content.is_empty() => {}
                    _ => self.say(Seen::Stdin { id, bytes: content.to_vec() }),
                }
            }
        }
    }

    fn end_params(&mut self, id: u16) {
        let request = self.requests.get_mut(&id).unwrap();
        let (pairs, cut) = pairs(&request.params);
        let (bytes, count) = (self.limits.params_bytes, self.limits.params_count);
        let error = if request.params.len() > bytes {
            Some(ParamsError::TooLong { limit: bytes })
        } else if pairs.len() > count {
            Some(ParamsError::TooMany { limit: count })
        } else {
            cut.map(|at| ParamsError::Truncated { at })
        };
        request.deaf = error.is_some();
        self.tell(
            id,
            match error {
                Some(error) => Seen::BadParams { id, error },
                None => Seen::Params { id, pairs },
            },
        );
    }

    /// Says something to which the application may answer by ending the request.
    fn tell(&mut self, id: u16, seen: Seen) {
        if self.policy.finishes(&seen) {
            self.closing |= !self.requests.remove(&id).unwrap().keep_connection;
        }
        self.say(seen);
        self.close();
    }

    fn close(&mut self) {
        if self.policy.closes && self.closing && self.requests.is_empty() {
            self.say(Seen::MustClose);
        }
    }
}

fn request_id(id: u16) -> RequestId {
    RequestId::new(id).unwrap()
}

/// Names and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The whole pairs in `bytes`, and where one begins that is cut off.
pub(crate) fn pairs(bytes: &[u8]) -> (Pairs, Option<usize>) {
    let byte = |at: usize| bytes.get(at).copied().map(u128::from);
    let length = |at: usize| match byte(at)? {
        short if short < 128 => Some((short, 1)),
        long => Some((
            ((long - 128) << 24) + (byte(at + 1)? << 16) + (byte(at + 2)? << 8) + byte(at + 3)?,
            4,
        )),
    };
    let mut pairs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let pair = || {
            let (name, first) = length(at)?;
            let (value, second) = length(at + first)?;
            let start = at + first + second;
            if start as u128 + name + value > bytes.len() as u128 {
                return None;
            }
            let middle = start + usize::try_from(name).unwrap();
            let end = middle + usize::try_from(value).unwrap();
            Some((bytes[start..middle].to_vec(), bytes[middle..end].to_vec(), end))
        };
        let Some((name, value, end)) = pair() else { return (pairs, Some(at)) };
        pairs.push((name, value));
        at = end;
    }
    (pairs, None)
}
