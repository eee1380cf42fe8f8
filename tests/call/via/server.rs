//! A FastCGI server that does what a script says.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::mpsc::{
        Receiver, {self},
    },
    thread,
};

use fastcgi_server::{
    Connection, Event, Limits, Output, Stream,
    bodies::{EndRequest, ProtocolStatus},
    record::{Header, RecordType, RequestId},
};

use crate::{call::Shell, support::waiting::DEADLINE};

/// Bytes to send, and things to do in between. What follows the last of them is the end of the
/// connection.
#[derive(Default)]
pub(super) struct Script {
    parts: Vec<Part>,
    unread: bool,
}

enum Part {
    Send(Vec<u8>),
    Do(Box<dyn FnOnce() + Send>),
}

impl Script {
    /// A whole response.
    pub(super) fn response(text: &str) -> Self {
        Self::default().stdout(text).end(0, 0)
    }

    /// Leaves the request body unread.
    pub(super) fn without_reading(mut self) -> Self {
        self.unread = true;
        self
    }

    pub(super) fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.parts.push(Part::Send(bytes.into()));
        self
    }

    pub(super) fn stdout(self, text: &str) -> Self {
        self.stream(Stream::Stdout, text)
    }

    pub(super) fn stderr(self, text: &str) -> Self {
        self.stream(Stream::Stderr, text)
    }

    fn stream(self, stream: Stream, text: &str) -> Self {
        let mut bytes = Vec::new();
        Output::new(RequestId::MIN).append(stream, text.as_bytes(), &mut bytes);
        self.bytes(bytes)
    }

    pub(super) fn end(self, app_status: u32, protocol_status: u8) -> Self {
        let end =
            EndRequest { app_status, protocol_status: ProtocolStatus::from_byte(protocol_status) };
        let header = Header::new(RecordType::EndRequest, Some(RequestId::MIN), 8).to_bytes();
        self.bytes([header, end.to_bytes()].concat())
    }

    /// Calls a function between two parts of the response.
    pub(super) fn then(mut self, what: impl FnOnce() + Send + 'static) -> Self {
        self.parts.push(Part::Do(Box::new(what)));
        self
    }
}

/// The request that the server received.
#[derive(Default)]
pub(super) struct ReceivedRequest {
    pub(super) id: u16,
    pub(super) role: u16,
    pub(super) kept: bool,
    pub(super) params: BTreeMap<String, String>,
    /// Bytes of the body.
    pub(super) body: u64,
}

/// The server; it serves one connection at `app.sock`.
pub(super) struct ScriptedServer {
    asked: Receiver<ReceivedRequest>,
}

impl ScriptedServer {
    pub(super) fn listen(
        shell: &Shell,
        script: impl FnOnce(Script) -> Script + Send + 'static,
    ) -> Self {
        let path = shell.path("app.sock");
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let listener = UnixListener::bind(path).unwrap();
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let script = script(Script::default());
            let request = read(&mut peer, script.unread);
            for part in script.parts {
                match part {
                    // The client may have had enough.
                    Part::Send(bytes) => drop(peer.write_all(&bytes)),
                    Part::Do(what) => what(),
                }
            }
            drop(peer);
            sender.send(request)
        });
        Self { asked }
    }

    /// Waits until the connection is closed by the server.
    #[track_caller]
    pub(super) fn asked(self) -> ReceivedRequest {
        self.asked.recv_timeout(DEADLINE).expect("nobody has asked")
    }
}

/// Reads a request to its end, or to that of its parameters.
fn read(peer: &mut UnixStream, only_params: bool) -> ReceivedRequest {
    let mut connection = Connection::new(Limits::default());
    let mut asked = ReceivedRequest::default();
    let mut bytes = vec![0; 1 << 17];
    loop {
        let length = peer.read(&mut bytes).unwrap();
        assert!(length > 0, "the request has no end");
        let mut at = 0;
        loop {
            let step = connection.receive(&bytes[at..length]).unwrap();
            at += step.consumed;
            match step.event {
                None => break,
                Some(Event::Begin { id, role, keep_connection }) => {
                    (asked.id, asked.role, asked.kept) =
                        (id.get(), role.to_number(), keep_connection);
                }
                Some(Event::Params { params, .. }) => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    asked.params =
                        params.iter().map(|(name, value)| (text(name), text(value))).collect();
                    if only_params {
                        return asked;
                    }
                }
                Some(Event::Stdin { bytes, .. }) => {
                    asked.body += u64::try_from(bytes.len()).unwrap()
                }
                Some(Event::StdinEnd { .. }) => return asked,
                Some(event) => panic!("{event:?}"),
            }
        }
    }
}
