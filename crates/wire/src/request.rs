//! A CGI request, as the gateway describes it to the process that serves it.
//!
//! A cold start and a warm request carry the same message. Python that is started for a request
//! inherits the environment, the working directory and the umask; a process of a warm pool gets
//! them in the message.
//!
//! A warm request goes over a `SOCK_SEQPACKET` connection. The process sends a [`Greeting`] first,
//! so the gateway can still fall back to cold CGI while no process takes the request. Then the
//! gateway sends [`RequestFollows`] with the descriptors of the request. From there on the process
//! sends [`crate::report`]s, as Python does that the gateway has started.

use serde::{Deserialize, Serialize};

use crate::{
    descriptors::MAX_DESCRIPTORS,
    message::{Kind, Message},
};

/// Descriptors that come with [`RequestFollows`], in this order: request body, response, error log,
/// a file with the [`RequestMessage`], and the reading end of a pipe whose other end the kernel
/// closes when the gateway exits.
pub const WARM_DESCRIPTORS: usize = MAX_DESCRIPTORS;

/// Longest message over a warm connection before the reports, in bytes.
pub const MAX_GREETING_BYTES: usize = 256;

/// A CGI request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMessage {
    /// Id of the request in the log and on error pages.
    pub id: String,
    /// Method and target of the request, for the log.
    pub line: String,
    /// How the response headers are written.
    pub response_format: ResponseFormat,
    /// Timeout of the request in seconds, for log messages; 0 is no timeout.
    pub timeout_seconds: u64,
    /// Timeout until the response begins, in seconds, for log messages; 0 is no timeout.
    pub response_timeout_seconds: u64,
    /// What the process has to take over before it serves the request; `None` if it was inherited.
    pub process: Option<ProcessState>,
}

/// Properties of the gateway's process that a CGI program inherits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// The whole environment, each name once.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory, as bytes.
    pub working_directory: Vec<u8>,
    /// Permission bits that new files do not get (umask(2)).
    pub umask: u32,
}

/// How response headers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseFormat {
    /// `Status:` and headers, which the web server completes (RFC 3875 6.2).
    Cgi,
    /// The same over FastCGI, in an order of headers that every web server understands.
    FastCgi,
    /// A whole HTTP response, for scripts whose name begins with `nph-` (RFC 3875 5).
    NonParsed,
}

/// The first message of a process of a warm pool to a gateway that has connected. A descriptor of
/// the process (pidfd_open(2)) comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The process id, in the process's own namespace.
    pub pid: i32,
    /// The code on disk has changed since this process loaded it: it takes no request.
    pub stale: bool,
}

/// The gateway's answer to a [`Greeting`]: the request is in the file among the descriptors. A
/// packet could not hold every environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestFollows;

impl Message for RequestMessage {
    const KIND: Kind = Kind::Request;
}

impl Message for Greeting {
    const KIND: Kind = Kind::Greeting;
}

impl Message for RequestFollows {
    const KIND: Kind = Kind::RequestFollows;
}

impl ResponseFormat {
    /// Text before and after a status such as `200 OK` at the beginning of the response headers,
    /// line ends included.
    pub const fn around_status(self) -> (&'static str, &'static str) {
        match self {
            Self::Cgi | Self::FastCgi => ("Status: ", "\r\n"),
            // The connection ends with the response, since nothing says how long the body is (RFC
            // 3875 5.2).
            Self::NonParsed => ("HTTP/1.1 ", "\r\nConnection: close\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;

    fn request() -> RequestMessage {
        RequestMessage {
            id: "0123456789abcdef".into(),
            line: "GET /".into(),
            response_format: ResponseFormat::Cgi,
            timeout_seconds: 30,
            response_timeout_seconds: 0,
            process: Some(ProcessState {
                environment: vec![
                    (b"QUERY_STRING".to_vec(), b"\xff=1".to_vec()),
                    (b"EMPTY".to_vec(), Vec::new()),
                ],
                working_directory: b"/srv/\xff".to_vec(),
                umask: 0o027,
            }),
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent_whatever_its_size() {
        let mut large = request();
        large
            .process
            .as_mut()
            .unwrap()
            .environment
            .extend((0..1000).map(|number| (format!("N{number}").into_bytes(), vec![b'x'; 1000])));
        for request in [request(), RequestMessage { process: None, ..request() }, large] {
            let file = message::to_file(&request, "wsgate-request").unwrap();
            for _ in 0..2 {
                let bytes = message::read_file(&file).unwrap();
                assert_eq!(message::decode::<RequestMessage>(&bytes).as_ref(), Ok(&request));
            }
        }
    }

    #[test]
    fn a_greeting_fits_its_buffer() {
        let greeting = Greeting { pid: i32::MIN, stale: true };
        assert!(message::encode(&greeting).unwrap().len() <= MAX_GREETING_BYTES);
        assert!(message::encode(&RequestFollows).unwrap().len() <= MAX_GREETING_BYTES);
    }
}
