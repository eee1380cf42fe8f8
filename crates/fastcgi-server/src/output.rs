//! The records that an application sends for a request: `FCGI_STDOUT`, `FCGI_STDERR`,
//! `FCGI_END_REQUEST` (FastCGI 1.0, 5.3, 5.5, 6.1).

use std::ops::Deref;

use crate::{
    bodies::{EndRequest, ProtocolStatus},
    frames::Frames,
    record::{Header, RecordType, RequestId},
};

/// A stream from the application to the web server (FastCGI 1.0, 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `FCGI_STDOUT`: the response, which begins with response headers like that of a CGI program.
    /// Only the headers `Status:` and `Location:` set the response status (6.1).
    Stdout,
    /// `FCGI_STDERR`: messages for the web server's log. Some web servers need the response headers
    /// before the first message.
    Stderr,
}

/// Makes the records of one request's response.
///
/// The order is: contents of both streams, which may alternate, then [`Output::ending`] exactly
/// once. Send nothing before [`Event::Params`](crate::Event::Params) (FastCGI 1.0, 6.2).
///
/// ```
/// use fastcgi_server::{Output, RequestId, Stream};
///
/// let output = Output::new(RequestId::MIN);
/// let mut response = Vec::new();
/// output.append(Stream::Stdout, b"Content-Type: text/plain\r\n\r\nhello", &mut response);
/// response.extend_from_slice(&output.ending(0, false));
/// assert_eq!(response.len(), 8 + 33 + 8 + 8 + 8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    id: RequestId,
    padded: bool,
}

/// The last bytes of a response; see [`Output::ending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl Output {
    /// The response to the request `id`, without padding.
    pub const fn new(id: RequestId) -> Self {
        Self { id, padded: false }
    }

    /// Pads records to a multiple of eight bytes, as the specification recommends. No web server
    /// needs padding (FastCGI 1.0, 3.3).
    #[must_use]
    pub const fn padded(self) -> Self {
        Self { padded: true, ..self }
    }

    /// The records for the next `length` bytes of `stream`; none if `length` is 0.
    ///
    /// With these records, a caller sends the bytes without copying them.
    pub const fn frames(&self, stream: Stream, length: usize) -> Frames {
        Frames::new(stream.record_type(), self.id, self.padded, length)
    }

    /// Appends the next `content` of `stream` to `out`, in as many records as necessary. Empty
    /// content appends nothing.
    pub fn append(&self, stream: Stream, content: &[u8], out: &mut Vec<u8>) {
        self.frames(stream, content.len()).append(content, out);
    }

    /// The record that ends `stream`, which [`Output::ending`] includes.
    pub const fn end_of(&self, stream: Stream) -> [u8; Header::LEN] {
        Header::new(stream.record_type(), Some(self.id), 0).to_bytes()
    }

    /// The records after the last content: the end of `FCGI_STDOUT`, which is required even without
    /// content (FastCGI 1.0, 6.1); the end of `FCGI_STDERR` if `stderr_used`; and
    /// `FCGI_END_REQUEST`. `app_status` is the status with which a CGI program would have exited
    /// (6.2).
    pub fn ending(&self, app_status: u32, stderr_used: bool) -> Ending {
        let mut ending = Ending::default();
        ending.push(&self.end_of(Stream::Stdout));
        if stderr_used {
            ending.push(&self.end_of(Stream::Stderr));
        }
        ending.push(&self.end_request(app_status, ProtocolStatus::RequestComplete));
        ending
    }

    /// `FCGI_END_REQUEST` alone, as the response to an abort (FastCGI 1.0, 5.4) or to refuse a
    /// request (5.5).
    pub fn end_request(
        &self,
        app_status: u32,
        protocol_status: ProtocolStatus,
    ) -> [u8; Header::LEN + EndRequest::LEN] {
        let mut record = [0; Header::LEN + EndRequest::LEN];
        let (header, body) = record.split_at_mut(Header::LEN);
        header.copy_from_slice(&Header::new(RecordType::EndRequest, Some(self.id), 8).to_bytes());
        body.copy_from_slice(&EndRequest { app_status, protocol_status }.to_bytes());
        record
    }
}

impl Stream {
    /// The type of the stream's records.
    pub const fn record_type(self) -> RecordType {
        match self {
            Self::Stdout => RecordType::Stdout,
            Self::Stderr => RecordType::Stderr,
        }
    }
}

impl Ending {
    /// Maximum length of an ending in bytes.
    pub const MAX: usize = 3 * Header::LEN + EndRequest::LEN;

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

impl Default for Ending {
    fn default() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }
}

impl Deref for Ending {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl AsRef<[u8]> for Ending {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: Output = Output::new(RequestId::new(0x0102).unwrap());

    #[test]
    fn f25_stdout_and_stderr_go_out_under_their_types() {
        let mut out = Vec::new();
        OUTPUT.append(Stream::Stdout, b"abc", &mut out);
        OUTPUT.append(Stream::Stderr, b"d", &mut out);
        assert_eq!(out, b"\x01\x06\x01\x02\0\x03\0\0abc\x01\x07\x01\x02\0\x01\0\0d");
    }

    #[test]
    fn f33_nothing_on_a_stream_is_no_record() {
        let mut out = Vec::new();
        OUTPUT.append(Stream::Stderr, b"", &mut out);
        assert_eq!(out, b"");
        assert_eq!(OUTPUT.end_of(Stream::Stderr), *b"\x01\x07\x01\x02\0\0\0\0");
    }

    #[test]
    fn f33_stderr_is_ended_if_and_only_if_it_was_used() {
        let quiet = OUTPUT.ending(0, false);
        assert!(!quiet.chunks(8).any(|record| record[1] == 7));
        let used = OUTPUT.ending(0, true);
        assert_eq!(used[8..16], OUTPUT.end_of(Stream::Stderr));
        assert_eq!(used.len(), Ending::MAX);
    }

    #[test]
    fn f34_stdout_is_ended_even_if_it_is_empty() {
        assert_eq!(OUTPUT.ending(0, false)[..8], *b"\x01\x06\x01\x02\0\0\0\0");
    }

    #[test]
    fn f41_the_last_record_is_end_request_with_the_status_of_exit() {
        let ending = OUTPUT.ending(938, false);
        assert_eq!(ending[8..], *b"\x01\x03\x01\x02\0\x08\0\0\0\0\x03\xaa\0\0\0\0");
    }

    #[test]
    fn f08_padding_follows_the_content() {
        let mut out = Vec::new();
        OUTPUT.padded().append(Stream::Stdout, b"abc", &mut out);
        assert_eq!(out, b"\x01\x06\x01\x02\0\x03\x05\0abc\0\0\0\0\0");
    }
}
