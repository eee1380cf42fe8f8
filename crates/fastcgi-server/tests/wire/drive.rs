//! Feeds a connection as an application does, and writes down what it says.

use fastcgi_server::{Connection, Error, Event, Limits, ParamsError, bodies::Role};

/// What a connection said, without borrowing from the input. Contents that follow each other are
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Begin { id: u16, role: Role, keep_connection: bool },
    Params { id: u16, pairs: Vec<(Vec<u8>, Vec<u8>)> },
    BadParams { id: u16, error: ParamsError },
    Stdin { id: u16, bytes: Vec<u8> },
    StdinEnd { id: u16, length: u64 },
    Abort { id: u16 },
    Response { bytes: Vec<u8> },
    MustClose,
    Failed(Error),
}

/// At which events an application says that it is done with a request. It closes the connection
/// when it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) after_params: bool,
    pub(crate) after_stdin: bool,
    pub(crate) after_abort: bool,
    pub(crate) after_bad_params: bool,
    pub(crate) closes: bool,
}

impl Policy {
    /// An application that never ends a request.
    pub(crate) const NEVER: Self = Self::from_bits(0);

    /// An application that answers a request when its last input is over, and closes the connection
    /// when it has to.
    pub(crate) const AT_THE_END: Self =
        Self { after_params: false, after_stdin: true, ..Self::from_bits(0xff) };

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self {
            after_params: bits & 1 != 0,
            after_stdin: bits & 2 != 0,
            after_abort: bits & 8 != 0,
            after_bad_params: bits & 16 != 0,
            closes: bits & 32 != 0,
        }
    }

    /// Whether the request is over after `seen`.
    pub(crate) fn finishes(self, seen: &Seen) -> bool {
        match seen {
            Seen::Params { .. } => self.after_params,
            Seen::StdinEnd { .. } => self.after_stdin,
            Seen::Abort { .. } => self.after_abort,
            Seen::BadParams { .. } => self.after_bad_params,
            _ => false,
        }
    }
}

/// A connection, its application, and what it has said so far.
pub(crate) struct Drive {
    pub(crate) connection: Connection,
    policy: Policy,
    /// Contents are taken past the connection where that is possible.
    direct: bool,
    pub(crate) seen: Vec<Seen>,
}

impl Drive {
    pub(crate) fn new(limits: Limits, policy: Policy, direct: bool) -> Self {
        Self { connection: Connection::new(limits), policy, direct, seen: Vec::new() }
    }

    /// Gives the connection all of `input`, unless the connection fails or is closed before.
    pub(crate) fn feed(&mut self, input: &[u8]) {
        let mut rest = input;
        while !matches!(self.seen.last(), Some(Seen::MustClose | Seen::Failed(_))) {
            if let Some(expected) =
                self.connection.expected().filter(|_| self.direct && !rest.is_empty())
            {
                let (content, after) = rest.split_at(expected.remaining.min(rest.len()));
                self.connection.took(content.len());
                rest = after;
                self.content(expected.id.get(), content);
                continue;
            }
            let step = match self.connection.receive(rest) {
                Ok(step) => step,
                Err(error) => {
                    assert_eq!(self.connection.receive(b""), Err(error), "an error stays");
                    assert_eq!(self.connection.expected(), None);
                    self.seen.push(Seen::Failed(error));
                    break;
                }
            };
            rest = &rest[step.consumed..];
            let Some(event) = step.event else {
                assert!(rest.is_empty(), "no event leaves nothing over");
                break;
            };
            self.event(event);
        }
    }

    fn event(&mut self, event: Event<'_>) {
        let seen = match event {
            Event::Begin { id, role, keep_connection } => {
                Seen::Begin { id: id.get(), role, keep_connection }
            }
            Event::Params { id, params } => {
                let pairs: Vec<_> =
                    params.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                assert_eq!(pairs.len(), params.len());
                self.connection.reuse(params);
                Seen::Params { id: id.get(), pairs }
            }
            Event::BadParams { id, error } => Seen::BadParams { id: id.get(), error },
            Event::Stdin { id, bytes } => return self.content(id.get(), bytes),
            Event::StdinEnd { id, length } => Seen::StdinEnd { id: id.get(), length },
            Event::Abort { id } => Seen::Abort { id: id.get() },
            Event::Response(response) => {
                let mut bytes = Vec::new();
                response.append_to(&mut bytes);
                Seen::Response { bytes }
            }
        };
        let over = self.policy.finishes(&seen);
        let id = match seen {
            Seen::Params { id, .. }
            | Seen::BadParams { id, .. }
            | Seen::StdinEnd { id, .. }
            | Seen::Abort { id } => id,
            _ => 0,
        };
        self.seen.push(seen);
        let active = self.connection.active().find(|active| active.get() == id);
        if let Some(id) = active.filter(|_| over) {
            self.connection.finish(id);
            assert!(!self.connection.is_active(id));
        }
        if self.policy.closes && self.connection.must_close() {
            self.seen.push(Seen::MustClose);
        }
    }

    fn content(&mut self, id: u16, content: &[u8]) {
        assert!(!content.is_empty(), "no piece is empty");
        match self.seen.last_mut() {
            Some(Seen::Stdin { id: last, bytes }) if *last == id => {
                bytes.extend_from_slice(content)
            }
            _ => self.seen.push(Seen::Stdin { id, bytes: content.to_vec() }),
        }
    }
}

/// What a connection says to `input` when it comes in one piece.
pub(crate) fn whole(input: &[u8], limits: Limits, policy: Policy) -> Vec<Seen> {
    in_pieces(input, &[usize::MAX], limits, policy, false)
}

/// What a connection says to `input` when it comes in pieces of these sizes, over and over again.
pub(crate) fn in_pieces(
    input: &[u8],
    sizes: &[usize],
    limits: Limits,
    policy: Policy,
    direct: bool,
) -> Vec<Seen> {
    let mut drive = Drive::new(limits, policy, direct);
    let mut rest = input;
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
        drive.feed(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    drive.seen
}
