//! The access log: one line for each request that was read, when its worker is done with it.
//!
//! What became of the response is observed where it leaves, so that nothing of this costs anything
//! without an access log.

use std::{
    fmt::Write as _,
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use diagnostics::escape;
use pyo3::Python;
use serde::Serialize;
use wire::pool_logs::LineFormat;

use crate::{
    log::{access, files},
    process::local_time::LocalTime,
    transport::Request,
    wsgi::ResponseSink,
};

/// What is written where nothing was sent: nginx's number for a client that did not wait.
const CLIENT_CLOSED_STATUS: u16 = 499;

/// A request that is going to have its line.
pub(crate) struct AccessRecord {
    form: LineFormat,
    request_id: String,
    begun: SystemTime,
    clock: Instant,
    counts: Arc<ResponseCounts>,
}

/// What has left of a response.
#[derive(Default)]
struct ResponseCounts {
    /// 0 before the head.
    status: AtomicU16,
    head: AtomicU64,
    sent: AtomicU64,
    whole: AtomicBool,
}

/// A response on its way, observed.
struct CountedResponse<R> {
    response: R,
    counts: Arc<ResponseCounts>,
}

impl AccessRecord {
    /// An account of a request that begins now, if there is an access log.
    pub(crate) fn open(request_id: &str) -> Option<Self> {
        let form = files::access_form()?;
        let request_id = request_id.to_owned();
        Some(Self {
            form,
            request_id,
            begun: SystemTime::now(),
            clock: Instant::now(),
            counts: Arc::default(),
        })
    }

    /// `response`, with an eye on it.
    fn observe(&self, response: impl ResponseSink + 'static) -> Box<dyn ResponseSink> {
        Box::new(CountedResponse { response, counts: self.counts.clone() })
    }

    /// Writes the line of the request, which is over.
    pub(crate) fn close(self, py: Python<'_>, request: &impl Request) {
        let sent = self
            .counts
            .sent
            .load(Ordering::Relaxed)
            .saturating_sub(self.counts.head.load(Ordering::Relaxed));
        let status = match self.counts.status.load(Ordering::Relaxed) {
            0 => CLIENT_CLOSED_STATUS,
            status => status,
        };
        let line = AccessLine {
            request,
            time: LocalTime::of(self.begun),
            status,
            sent,
            duration: self.clock.elapsed(),
            request_id: &self.request_id,
            whole: self.counts.whole.load(Ordering::Relaxed),
        };
        let line = match self.form {
            LineFormat::Combined => line.combined(),
            LineFormat::Json => line.json(),
        };
        py.detach(|| access::write_line(&line));
    }
}

/// `response`, observed if there is an account to be given of it.
pub(crate) fn observed(
    account: Option<&AccessRecord>,
    response: impl ResponseSink + 'static,
) -> Box<dyn ResponseSink> {
    match account {
        Some(account) => account.observe(response),
        None => Box::new(response),
    }
}

impl<R: ResponseSink> ResponseSink for CountedResponse<R> {
    fn headers_leave(&mut self) {
        self.response.headers_leave();
    }

    fn write(
        &mut self,
        py: Python<'_>,
        head: &[u8],
        block: &[u8],
        last: bool,
    ) -> io::Result<usize> {
        let written = self.response.write(py, head, block, last);
        if self.counts.status.load(Ordering::Relaxed) == 0 && matches!(written, Ok(1..)) {
            // The head is ours, and a `Status: 200 OK` stands among its first lines; an error page
            // comes in one piece with its head.
            let mut lines = head.split(|&byte| byte == b'\n');
            let rest = lines.find_map(|line| line.strip_prefix(b"Status: "));
            let digits = rest.and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
            let status = digits.and_then(|digits| digits.parse().ok()).unwrap_or(200);
            let end = head
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map_or(head.len(), |end| end + 4);
            self.counts.status.store(status, Ordering::Relaxed);
            self.counts.head.store(end as u64, Ordering::Relaxed);
        }
        self.count(&written);
        written
    }

    fn send_file(
        &mut self,
        py: Python<'_>,
        file: BorrowedFd<'_>,
        offset: u64,
        count: usize,
    ) -> io::Result<usize> {
        let sent = self.response.send_file(py, file, offset, count);
        self.count(&sent);
        sent
    }

    fn look(&mut self, py: Python<'_>) -> io::Result<()> {
        self.response.look(py)
    }

    fn sending_ended(&mut self, py: Python<'_>, complete: bool) {
        self.response.sending_ended(py, complete);
    }

    fn is_abandoned(&mut self, py: Python<'_>) -> bool {
        self.response.is_abandoned(py)
    }

    fn finish(&mut self, py: Python<'_>, complete: bool) -> io::Result<()> {
        let finished = self.response.finish(py, complete);
        self.counts.whole.store(complete && finished.is_ok(), Ordering::Relaxed);
        finished
    }

    fn had_surplus(&self) -> bool {
        self.response.had_surplus()
    }
}

impl<R> CountedResponse<R> {
    fn count(&self, sent: &io::Result<usize>) {
        if let Ok(count) = sent {
            self.counts.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

/// What a line says.
struct AccessLine<'a, R> {
    request: &'a R,
    time: LocalTime,
    status: u16,
    sent: u64,
    duration: Duration,
    request_id: &'a str,
    whole: bool,
}

/// A line as an object.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    remote_addr: Option<String>,
    remote_user: Option<String>,
    method: Option<String>,
    target: String,
    protocol: Option<String>,
    status: u16,
    bytes: u64,
    referer: Option<String>,
    user_agent: Option<String>,
    microseconds: u128,
    request_id: &'a str,
    whole: bool,
}

impl<R: Request> AccessLine<'_, R> {
    /// Apache's combined form; then microseconds, the id of the request, and `X` for a response
    /// that was cut or `-` for a whole one.
    fn combined(&self) -> Vec<u8> {
        let mut line = String::with_capacity(256);
        escape(&mut line, self.param(b"REMOTE_ADDR").unwrap_or(b"-"), true);
        line.push_str(" - ");
        escape(&mut line, self.param(b"REMOTE_USER").unwrap_or(b"-"), true);
        // Writing to a string cannot fail, here and below.
        let _ = write!(line, " [{}] \"", self.time.common());
        escape(&mut line, self.param(b"REQUEST_METHOD").unwrap_or(b"-"), false);
        line.push(' ');
        escape(&mut line, &self.target(), false);
        line.push(' ');
        escape(&mut line, self.param(b"SERVER_PROTOCOL").unwrap_or(b"-"), false);
        let _ = write!(line, "\" {} ", self.status);
        if self.sent == 0 {
            line.push('-');
        } else {
            let _ = write!(line, "{}", self.sent);
        }
        for name in [&b"HTTP_REFERER"[..], b"HTTP_USER_AGENT"] {
            line.push_str(" \"");
            escape(&mut line, self.param(name).unwrap_or(b"-"), false);
            line.push('"');
        }
        let end = if self.whole { '-' } else { 'X' };
        let _ = writeln!(line, " {} {} {end}", self.duration.as_micros(), self.request_id);
        line.into_bytes()
    }

    fn json(&self) -> Vec<u8> {
        let text =
            |name: &[u8]| self.param(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let object = JsonLine {
            time: self.time.rfc3339(),
            remote_addr: text(b"REMOTE_ADDR"),
            remote_user: text(b"REMOTE_USER"),
            method: text(b"REQUEST_METHOD"),
            target: String::from_utf8_lossy(&self.target()).into_owned(),
            protocol: text(b"SERVER_PROTOCOL"),
            status: self.status,
            bytes: self.sent,
            referer: text(b"HTTP_REFERER"),
            user_agent: text(b"HTTP_USER_AGENT"),
            microseconds: self.duration.as_micros(),
            request_id: self.request_id,
            whole: self.whole,
        };
        // None of the types can fail to be an object.
        let mut line =
            escape::json(serde_json::to_string(&object).unwrap_or_default()).into_bytes();
        line.push(b'\n');
        line
    }

    fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.request.get(name).filter(|value| !value.is_empty())
    }

    /// What the client asked for, or what can be told of it.
    fn target(&self) -> Vec<u8> {
        if let Some(target) = self.param(b"REQUEST_URI") {
            return target.to_vec();
        }
        let path = [b"SCRIPT_NAME".as_slice(), b"PATH_INFO"]
            .map(|name| self.param(name).unwrap_or_default())
            .concat();
        let mut target =
            if path.is_empty() { b"/".to_vec() } else { wire::percent::encode_path(&path) };
        if let Some(query) = self.param(b"QUERY_STRING") {
            target.push(b'?');
            target.extend(query);
        }
        target
    }
}

/// Writes `bytes` so that they end neither the line nor the quotes around them, nor, with `spaces`,
/// the word: as Apache does.
fn escape(line: &mut String, bytes: &[u8], spaces: bool) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(byte));
            }
            b' ' if spaces => line.push_str("\\x20"),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => {
                let _ = write!(line, "\\x{byte:02x}");
            }
        }
    }
}
