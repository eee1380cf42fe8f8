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
    client::{ClientConnection, ClientEvent},
};

use crate::request::Prepared;

/// Bytes of the longest response that is remembered, and of one read.
const MAX_REMEMBERED_BYTES: usize = 256 * 1024;

/// The server's address.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// A connection to the server.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// The expected response.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) status: String,
    pub(crate) body: Vec<u8>,
    /// Status of a response by which the server refuses a request.
    pub(crate) refused: Option<String>,
}

/// The fault of a response.
#[derive(Debug)]
pub(crate) enum Failure {
    Connection(#[expect(dead_code, reason = "shown by `Debug`")] io::Error),
    Framing,
    /// The server has refused the request, as it may.
    Refused,
    Status,
    Body,
}

/// Sends requests, and compares the responses.
#[derive(Debug)]
pub(crate) struct Asker<'e> {
    address: &'e Address,
    expected: &'e Expected,
    buffer: Vec<u8>,
    /// The bytes of the last correct response, if they were few.
    remembered: Vec<u8>,
    /// Headers of the first correct response.
    headers: Option<String>,
}

/// A response that is read record by record.
struct Response<'e> {
    expected: &'e Expected,
    connection: ClientConnection,
    headers: Vec<u8>,
    /// The part of the expected body that has not arrived yet. `None` before the body.
    missing: Option<&'e [u8]>,
    is_other_body: bool,
}

impl<'e> Asker<'e> {
    pub(crate) const fn new(address: &'e Address, expected: &'e Expected) -> Self {
        Self { address, expected, buffer: Vec::new(), remembered: Vec::new(), headers: None }
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

    /// Headers of the first correct response.
    pub(crate) fn headers(&self) -> Option<&str> {
        self.headers.as_deref()
    }

    /// Sends one request over `stream`, and reads the response.
    pub(crate) fn exchange(
        &mut self,
        stream: &mut Stream,
        prepared: &Prepared,
    ) -> Result<(), Failure> {
        prepared.write(stream)?;
        let remembered = self.remembered.len();
        // One byte more than expected, so that a longer response is noticed.
        let room = if remembered > 0 { remembered + 1 } else { MAX_REMEMBERED_BYTES };
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

    /// Parses a response of which `filled` bytes are in the buffer already.
    fn read_closely(&mut self, stream: &mut Stream, filled: usize) -> Result<(), Failure> {
        let mut received = self.buffer[..filled].to_vec();
        let mut response = Response::new(self.expected);
        let mut is_over = response.receive(&received)?;
        let mut is_short = true;
        while !is_over {
            let length = read(stream, &mut self.buffer)?;
            is_over = response.receive(&self.buffer[..length])?;
            is_short &= received.len() + length <= MAX_REMEMBERED_BYTES;
            if is_short {
                received.extend_from_slice(&self.buffer[..length]);
            }
        }
        let headers = response.verdict()?;
        self.headers.get_or_insert(headers);
        self.remembered = if is_short { received } else { Vec::new() };
        Ok(())
    }
}

impl<'e> Response<'e> {
    fn new(expected: &'e Expected) -> Self {
        Self {
            expected,
            connection: ClientConnection::new(),
            headers: Vec::new(),
            missing: None,
            is_other_body: false,
        }
    }

    /// Receives bytes; true if the response is complete.
    fn receive(&mut self, mut bytes: &[u8]) -> Result<bool, Failure> {
        loop {
            let step = self.connection.receive(bytes).map_err(|_| Failure::Framing)?;
            bytes = &bytes[step.consumed..];
            match step.event {
                None => return Ok(false),
                Some(ClientEvent::Stdout { bytes, .. }) => {
                    take(self.expected, &mut self.headers, &mut self.missing, bytes)
                        .unwrap_or_else(|| self.is_other_body = true)
                }
                Some(ClientEvent::End { result, .. }) => {
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

    /// The headers of a response that is as expected.
    fn verdict(self) -> Result<String, Failure> {
        let headers = String::from_utf8(self.headers).map_err(|_| Failure::Status)?;
        let status = headers.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("status").then(|| value.trim())
        });
        let status = status.unwrap_or("200 OK");
        if self.expected.refused.as_deref() == Some(status) {
            return Err(Failure::Refused);
        }
        if status != self.expected.status {
            return Err(Failure::Status);
        }
        if self.is_other_body || self.missing != Some(&[]) {
            return Err(Failure::Body);
        }
        Ok(headers)
    }
}

/// Receives a piece of the response; `None` if the body differs from the expected one.
fn take<'e>(
    expected: &'e Expected,
    headers: &mut Vec<u8>,
    missing: &mut Option<&'e [u8]>,
    mut piece: &[u8],
) -> Option<()> {
    if missing.is_none() {
        let before = headers.len();
        headers.extend_from_slice(piece);
        let end = headers.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(end) = end else { return Some(()) };
        piece = &piece[end + 4 - before..];
        headers.truncate(end);
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

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.contains(':') => Ok(Self::Tcp(text.to_owned())),
            None => Err(format!("`{text}` is neither unix:PATH nor HOST:PORT")),
        }
    }
}
