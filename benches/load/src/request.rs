//! The bytes of a request, prepared once.

use std::{
    error::Error,
    io::{self, Write},
};

use fastcgi_server::{RequestId, bodies::Role, client::Request};

/// Parameters that nginx sends for a small page, without those that depend on the request.
const PARAMETERS: [(&str, &str); 19] = [
    ("SCRIPT_NAME", ""),
    ("DOCUMENT_ROOT", "/usr/share/nginx/html"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REQUEST_SCHEME", "http"),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx/1.22.1"),
    ("REMOTE_ADDR", "127.0.0.1"),
    ("REMOTE_PORT", "50123"),
    ("SERVER_ADDR", "127.0.0.1"),
    ("SERVER_PORT", "80"),
    ("SERVER_NAME", "localhost"),
    ("REDIRECT_STATUS", "200"),
    ("HTTP_HOST", "localhost"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.5"),
    ("HTTP_ACCEPT_ENCODING", "gzip, deflate"),
    ("HTTP_CONNECTION", "keep-alive"),
    ("HTTP_COOKIE", "session=0123456789abcdef0123456789abcdef"),
];

/// Bytes of body in one record, as nginx sends them from a file.
const PIECE: usize = 32 * 1024;

/// Records of body in one call of `write`.
const AT_ONCE: usize = 8;

/// The bytes of a request.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The start of the request; for a request without a body, all of it.
    first: Vec<u8>,
    /// Records of body, which are written `times` times.
    again: Vec<u8>,
    times: usize,
    /// The end of the request.
    last: Vec<u8>,
}

impl Prepared {
    /// A request for `path`, with `post` bytes of body if it is a POST request: the letters of the
    /// alphabet in turn.
    pub(crate) fn new(path: &str, post: Option<usize>, keep: bool) -> Result<Self, Box<dyn Error>> {
        let request = Request::new(RequestId::MIN);
        let mut first = Vec::new();
        request.append_begin(Role::Responder, keep, &mut first);
        let length = post.map_or_else(String::new, |length| length.to_string());
        let (method, content_type) = match post {
            Some(_) => ("POST", "application/octet-stream"),
            None => ("GET", ""),
        };
        let own = [
            ("QUERY_STRING", ""),
            ("REQUEST_METHOD", method),
            ("CONTENT_TYPE", content_type),
            ("CONTENT_LENGTH", &length),
            ("PATH_INFO", path),
            ("REQUEST_URI", path),
            ("DOCUMENT_URI", path),
        ];
        request.append_params(own.into_iter().chain(PARAMETERS), &mut first)?;

        let piece: Vec<u8> = (b'a'..=b'z').cycle().take(PIECE).collect();
        let all = post.unwrap_or(0);
        let mut again = Vec::new();
        for _ in 0..AT_ONCE {
            request.append_stdin(&piece, &mut again);
        }
        let mut last = Vec::new();
        let mut rest = all % (PIECE * AT_ONCE);
        while rest > 0 {
            let length = rest.min(PIECE);
            request.append_stdin(&piece[..length], &mut last);
            rest -= length;
        }
        request.append_end_of_stdin(&mut last);
        let times = all / (PIECE * AT_ONCE);
        if times == 0 {
            first.append(&mut last);
        }
        Ok(Self { first, again, times, last })
    }

    /// Writes the request.
    pub(crate) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        stream.write_all(&self.first)?;
        for _ in 0..self.times {
            stream.write_all(&self.again)?;
        }
        if !self.last.is_empty() {
            stream.write_all(&self.last)?;
        }
        Ok(())
    }
}
