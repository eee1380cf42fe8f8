//! One request and its response.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    str::FromStr,
};

use fastcgi_server::{
    bodies::ProtocolStatus,
    client::{Connection, Event},
};

use crate::request::Prepared;

/// The longest response that is remembered as it came, in bytes, and the most that is read at once.
const LONGEST_REMEMBERED: usize = 256 * 1024;

/// Where the server listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// A connection to it.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What every response must be.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) status: String,
    pub(crate) body: Vec<u8>,
}

/// What was wrong with a response.
#[derive(Debug)]
pub(crate) enum Failure {
    Connection(#[expect(dead_code, reason = "for those who read the complaint")] io::Error),
    Framing,
    Status,
    Body,
}

/// Asks, and compares.
#[derive(Debug)]
pub(crate) struct Asker<'e> {
    address: &'e Address,
    expected: &'e Expected,
    buffer: Vec<u8>,
    /// The last right response, records and all, if it was short.
    remembered: Vec<u8>,
    /// The first right response's fields.
    head: Option<String>,
}

/// A response that is read record by record.
struct Response<'e> {
    expected: &'e Expected,
    connection: Connection,
    head: Vec<u8>,
    /// The part of the expected body that has not come yet. `None` before the body.
    missing: Option<&'e [u8]>,
    is_other_body: bool,
}

impl<'e> Asker<'e> {
    pub(crate) const fn new(address: &'e Address, expected: &'e Expected) -> Self {
        Self { address, expected, buffer: Vec::new(), remembered: Vec::new(), head: None }
    }

    pub(crate) fn connect(&self) -> Result<Stream, Failure> {
        Ok(match self.address {
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        })
    }

    /// The first right response's fields.
    pub(crate) fn head(&self) -> Option<&str> {
        self.head.as_deref()
    }

    /// One request over `stream`.
    pub(crate) fn exchange(
        &mut self,
        stream: &mut Stream,
        prepared: &Prepared,
    ) -> Result<(), Failure> {
        prepared.write(stream)?;
        let remembered = self.remembered.len();
        // One byte more than is awaited, so that too much is seen too.
        let room = if remembered > 0 { remembered + 1 } else { LONGEST_REMEMBERED };
        self.buffer.resize(self.buffer.len().max(room), 0);
        let mut filled = 0;
        while filled < remembered {
            filled += read(stream, &mut self.buffer[filled..room])?;
            if self.buffer.get(..filled) != self.remembered.get(..filled) {
                break;
            }
        }
        if remembered > 0 && filled == remembered && self.buffer[..filled] == self.remembered {
            return Ok(());
        }
        self.read_closely(stream, filled)
    }

    /// Reads a response of which `filled` bytes are in the buffer already.
    fn read_closely(&mut self, stream: &mut Stream, filled: usize) -> Result<(), Failure> {
        let mut came = self.buffer[..filled].to_vec();
        let mut response = Response::new(self.expected);
        let mut is_over = response.receive(&came)?;
        let mut is_short = true;
        while !is_over {
            let length = read(stream, &mut self.buffer)?;
            is_over = response.receive(&self.buffer[..length])?;
            is_short &= came.len() + length <= LONGEST_REMEMBERED;
            if is_short {
                came.extend_from_slice(&self.buffer[..length]);
            }
        }
        let head = response.verdict()?;
        self.head.get_or_insert(head);
        self.remembered = if is_short { came } else { Vec::new() };
        Ok(())
    }
}

impl<'e> Response<'e> {
    fn new(expected: &'e Expected) -> Self {
        Self {
            expected,
            connection: Connection::new(),
            head: Vec::new(),
            missing: None,
            is_other_body: false,
        }
    }

    /// Takes bytes; true if the response is over.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        loop {
            let step = self.connection.receive(bytes).map_err(|_| Failure::Framing)?;
            bytes = &bytes[step.consumed..];
            match step.event {
                None => return Ok(false),
                Some(Event::Stdout { bytes, .. }) => {
                    take(self.expected, &mut self.head, &mut self.missing, bytes)
                        .unwrap_or_else(|| self.is_other_body = true)
                }
                Some(Event::End { result, .. }) => {
                    let is_complete = result.app_status == 0
                        && result.protocol_status == ProtocolStatus::RequestComplete;
                    return if is_complete && bytes.is_empty() {
                        Ok(true)
                    } else {
                        Err(Failure::Framing)
                    };
                }
                Some(_) => {}
            }
        }
    }

    /// What the whole response was: its fields.
    fn verdict(self) -> Result<String, Failure> {
        let head = String::from_utf8(self.head).map_err(|_| Failure::Status)?;
        let status = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("status").then(|| value.trim())
        });
        if status.unwrap_or("200 OK") != self.expected.status {
            return Err(Failure::Status);
        }
        if self.is_other_body || self.missing != Some(&[]) {
            return Err(Failure::Body);
        }
        Ok(head)
    }
}

/// Takes a piece of the response; `None` if it is not what the body must be.
fn take<'e>(
    expected: &'e Expected,
    head: &mut Vec<u8>,
    missing: &mut Option<&'e [u8]>,
    mut piece: &[u8],
) -> Option<()> {
    if missing.is_none() {
        let before = head.len();
        head.extend_from_slice(piece);
        let end = head.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else { return Some(()) };
        piece = &piece[end + 4 - before..];
        head.truncate(end);
        *missing = Some(&expected.body);
    }
    let rest = missing.as_ref()?.strip_prefix(piece)?;
    *missing = Some(rest);
    Some(())
}

fn read(stream: &mut Stream, buffer: &mut [u8]) -> io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None if word.contains(':') => Ok(Self::Tcp(word.to_owned())),
            None => Err(format!("`{word}` is neither unix:PATH nor HOST:PORT")),
        }
    }
}
