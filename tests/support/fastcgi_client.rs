//! A web server's end of a connection: sends requests, reads and checks responses.

use std::{
    fs::File,
    io::{
        Read as _, Write as _, {self},
    },
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    thread::{
        JoinHandle, {self},
    },
};

use fastcgi_server::{
    bodies::{EndRequest, ProtocolStatus},
    client::{ClientConnection, ClientError, ClientEvent},
    record::UnknownVersion,
    values::Values,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{Shutdown, shutdown},
};

pub(crate) use crate::support::fastcgi_request::{
    ABORT_REQUEST, BEGIN_REQUEST, FastcgiRequest, GET_VALUES, PARAMS, STDIN, record,
};
use crate::support::{
    assertions::{ValidResponse, complete_response},
    waiting::DEADLINE,
};

/// A connection to a pool.
pub(crate) struct FastcgiConnection {
    stream: File,
    protocol: ClientConnection,
    unread: Vec<u8>,
}

/// A record that the pool sent, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Stdout(u16, Vec<u8>),
    StdoutEnd(u16),
    Stderr(u16, Vec<u8>),
    StderrEnd(u16),
    End(u16, EndRequest),
    Values(Values),
    UnknownType(u8),
}

/// A record as it stands on the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) header: [u8; 8],
    pub(crate) content: Vec<u8>,
    pub(crate) padding: Vec<u8>,
}

/// All records until the end of a request.
#[derive(Debug)]
pub(crate) struct FastcgiResponse {
    pub(crate) said: Vec<Received>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) end: EndRequest,
}

impl FastcgiConnection {
    /// A connection to a Unix socket.
    #[track_caller]
    pub(crate) fn unix(path: &Path) -> Self {
        let stream =
            UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self::over(stream)
    }

    /// A connection to HOST:PORT.
    #[track_caller]
    pub(crate) fn tcp(address: &str) -> Self {
        let stream =
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// A connection that is open already.
    pub(crate) fn over(stream: impl Into<OwnedFd>) -> Self {
        Self {
            stream: File::from(stream.into()),
            protocol: ClientConnection::new(),
            unread: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send(&self, bytes: &[u8]) {
        (&self.stream).write_all(bytes).unwrap();
    }

    /// Sends bytes as they are, if it can: the other end may have closed the connection.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.stream).write_all(bytes)
    }

    /// Sends bytes beside everything else; whether they could be sent is the thread's result.
    pub(crate) fn send_beside(&self, bytes: Vec<u8>) -> JoinHandle<io::Result<()>> {
        let stream = self.stream.try_clone().unwrap();
        thread::spawn(move || (&stream).write_all(&bytes))
    }

    /// Sends for ever, beside everything else; how that ends is the thread's result.
    pub(crate) fn send_without_end(&self) -> JoinHandle<io::Result<()>> {
        let stream = self.stream.try_clone().unwrap();
        thread::spawn(move || {
            loop {
                (&stream).write_all(&[0; 64 * 1024])?;
            }
        })
    }

    /// Returns whether the socket buffer is full.
    pub(crate) fn is_full(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], Some(&at_once)).unwrap() == 0
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end_sending(&self) {
        shutdown(&self.stream, Shutdown::Write).unwrap();
    }

    /// The next that is said; nothing if the connection was closed.
    pub(crate) fn try_next(&mut self) -> io::Result<Option<Received>> {
        loop {
            let step = match self.protocol.receive(&self.unread) {
                // An incomplete response ends like this.
                Err(ClientError::UnknownVersion(UnknownVersion(0))) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "what is no record"));
                }
                step => step.expect("records of FastCGI"),
            };
            let said = step.event.map(|event| match event {
                ClientEvent::Stdout { id, bytes } => Received::Stdout(id.get(), bytes.to_vec()),
                ClientEvent::StdoutEnd { id } => Received::StdoutEnd(id.get()),
                ClientEvent::Stderr { id, bytes } => Received::Stderr(id.get(), bytes.to_vec()),
                ClientEvent::StderrEnd { id } => Received::StderrEnd(id.get()),
                ClientEvent::End { id, result } => Received::End(id.get(), result),
                ClientEvent::Values(values) => Received::Values(values),
                ClientEvent::UnknownType(number) => Received::UnknownType(number),
            });
            let consumed = step.consumed;
            self.unread.drain(..consumed);
            if said.is_some() {
                return Ok(said);
            }
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(length) => self.unread.extend_from_slice(&piece[..length]),
                // A read with a deadline is not taken up again by the kernel after a signal, such
                // as that of a child's end.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next that is said; nothing if the connection was closed in good order.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Option<Received> {
        self.try_next().unwrap_or_else(|error| panic!("nothing can be read: {error}"))
    }

    /// Reads at most so many bytes as they are; gives how many came.
    pub(crate) fn read_some(&mut self, most: usize) -> io::Result<usize> {
        self.stream.read(&mut vec![0; most])
    }

    /// The records up to the end of a request, byte for byte.
    #[track_caller]
    pub(crate) fn records(&mut self) -> Vec<Record> {
        let take = |length: usize| {
            let mut bytes = vec![0; length];
            (&self.stream).read_exact(&mut bytes).unwrap();
            bytes
        };
        let mut records: Vec<Record> = Vec::new();
        while records.last().is_none_or(|record| record.header[1] != 3) {
            let header: [u8; 8] = take(8).try_into().unwrap();
            let content = take(usize::from(u16::from_be_bytes([header[4], header[5]])));
            records.push(Record { header, content, padding: take(usize::from(header[6])) });
        }
        records
    }

    /// All bytes up to the end of the connection.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Returns whether unread bytes have arrived.
    pub(crate) fn has_more(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut watched = [PollFd::new(&self.stream, PollFlags::IN)];
        !self.unread.is_empty() || poll(&mut watched, Some(&at_once)).unwrap() > 0
    }

    /// All that is said until a request ends; nothing if the connection is closed before the first
    /// word.
    pub(crate) fn try_response(&mut self) -> io::Result<Option<FastcgiResponse>> {
        let mut said = Vec::new();
        let mut stdout = Vec::new();
        loop {
            let next = self.try_next().map_err(|error| match said.is_empty() {
                true => error,
                false => {
                    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{error} after {said:?}"))
                }
            })?;
            match next {
                Some(Received::End(id, end)) => {
                    said.push(Received::End(id, end));
                    return Ok(Some(FastcgiResponse { said, stdout, end }));
                }
                Some(other) => {
                    if let Received::Stdout(_, bytes) = &other {
                        stdout.extend_from_slice(bytes);
                    }
                    said.push(other);
                }
                None if said.is_empty() => return Ok(None),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("cut after {said:?}"),
                    ));
                }
            }
        }
    }

    /// All that is said until a request ends.
    #[track_caller]
    pub(crate) fn response(&mut self) -> FastcgiResponse {
        let response = self.try_response().unwrap_or_else(|error| panic!("no answer: {error}"));
        response.expect("an answer, not the end of the connection")
    }

    /// Sends a request and waits for its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &FastcgiRequest) -> FastcgiResponse {
        self.send(&request.bytes());
        let response = self.response();
        assert!(
            matches!(response.said.last(), Some(Received::End(id, _)) if *id == request.id),
            "{response:?}"
        );
        response
    }

    /// Asserts that the pool closes the connection in good order and says nothing more.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        assert_eq!(self.next(), None);
        assert_eq!(self.unread, b"", "the connection ends within a record");
    }
}

impl FastcgiResponse {
    /// The response, if it is a valid one, whole, and all of it was sent as the specification says
    /// (FastCGI 1.0, 6.1 and 6.2).
    #[track_caller]
    pub(crate) fn valid(&self) -> ValidResponse {
        assert_eq!(
            self.end,
            EndRequest { app_status: 0, protocol_status: ProtocolStatus::RequestComplete }
        );
        let ends = self.said.iter().filter(|said| matches!(said, Received::StdoutEnd(_))).count();
        assert_eq!(ends, 1, "FCGI_STDOUT is ended once: {:?}", self.said);
        let last = self.said.iter().rposition(|said| matches!(said, Received::Stdout(..)));
        let end = self.said.iter().position(|said| matches!(said, Received::StdoutEnd(_)));
        assert!(last < end, "nothing follows the end of FCGI_STDOUT: {:?}", self.said);
        assert!(
            !self
                .said
                .iter()
                .any(|said| matches!(said, Received::Stderr(..) | Received::StderrEnd(_))),
            "{:?}",
            self.said
        );
        complete_response(&self.stdout)
    }

    /// The body of a response of status 200.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let response = self.valid();
        assert_eq!(response.status, 200, "{:?}", String::from_utf8_lossy(&self.stdout));
        String::from_utf8_lossy(&response.body).into_owned()
    }

    /// The process that answered.
    #[track_caller]
    pub(crate) fn pid(&self) -> i32 {
        self.valid().all("X-Pid")[0].parse().unwrap()
    }
}
