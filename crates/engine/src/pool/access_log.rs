//! The access log: one line for each request, written when its worker has served it.
//!
//! The response counts its bytes only if the pool has an access log, so that other pools have no
//! overhead.

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

use diagnostics::{
    escape,
    log_record::{self, LogName, RecordStart},
    timestamp::Timestamp,
};
use pyo3::Python;
use serde::Serialize;
use wire::pool_logs::LineFormat;

use crate::{
    log::{access, files},
    process::local_time::LocalTime,
    transport::Request,
    wsgi::ResponseSink,
};

/// The logged status if no byte of the response was sent: 499, as nginx logs a client that closed
/// the connection.
const CLIENT_CLOSED_STATUS: u16 = 499;

/// The record of a request, written as a line after the response.
pub(crate) struct AccessRecord {
    form: LineFormat,
    request_id: String,
    begun: SystemTime,
    clock: Instant,
    counts: Arc<ResponseCounts>,
}

/// The part of a response that was sent.
#[derive(Default)]
struct ResponseCounts {
    /// The status; 0 before the response headers.
    status: AtomicU16,
    header_bytes: AtomicU64,
    sent: AtomicU64,
    whole: AtomicBool,
}

/// A response whose bytes are counted.
struct CountedResponse<R> {
    response: R,
    counts: Arc<ResponseCounts>,
}

impl AccessRecord {
    /// Begins the record of a request, if there is an access log.
    pub(crate) fn begin(request_id: &str) -> Option<Self> {
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

    fn count(&self, response: impl ResponseSink + 'static) -> Box<dyn ResponseSink> {
        Box::new(CountedResponse { response, counts: self.counts.clone() })
    }

    /// Writes the line of the served `request` of the address `client`, which the web server had
    /// received a time of `waited` before this worker.
    pub(crate) fn write(
        self,
        py: Python<'_>,
        request: &impl Request,
        client: Option<Vec<u8>>,
        waited: Option<Duration>,
    ) {
        let sent = self
            .counts
            .sent
            .load(Ordering::Relaxed)
            .saturating_sub(self.counts.header_bytes.load(Ordering::Relaxed));
        let status = match self.counts.status.load(Ordering::Relaxed) {
            0 => CLIENT_CLOSED_STATUS,
            status => status,
        };
        let line = AccessLine {
            request,
            client,
            begun: self.begun,
            status,
            sent,
            duration: self.clock.elapsed(),
            waited,
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

/// Counts the bytes of `response` in `record`, if there is a record.
pub(crate) fn counted(
    record: Option<&AccessRecord>,
    response: impl ResponseSink + 'static,
) -> Box<dyn ResponseSink> {
    match record {
        Some(record) => record.count(response),
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
        headers: &[u8],
        block: &[u8],
        last: bool,
    ) -> io::Result<usize> {
        let written = self.response.write(py, headers, block, last);
        if self.counts.status.load(Ordering::Relaxed) == 0 && matches!(written, Ok(1..)) {
            // The headers come from wsgate, which writes `Status:` in one of the first lines. An
            // error page is written together with its headers.
            let mut lines = headers.split(|&byte| byte == b'\n');
            let rest = lines.find_map(|line| line.strip_prefix(b"Status: "));
            let digits = rest.and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
            let status = digits.and_then(|digits| digits.parse().ok()).unwrap_or(200);
            let end = headers
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
                .map_or(headers.len(), |end| end + 4);
            self.counts.status.store(status, Ordering::Relaxed);
            self.counts.header_bytes.store(end as u64, Ordering::Relaxed);
        }
        self.add(&written);
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
        self.add(&sent);
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
    fn add(&self, sent: &io::Result<usize>) {
        if let Ok(count) = sent {
            self.counts.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
    }
}

/// The values of a line.
struct AccessLine<'a, R> {
    request: &'a R,
    client: Option<Vec<u8>>,
    begun: SystemTime,
    status: u16,
    sent: u64,
    duration: Duration,
    waited: Option<Duration>,
    request_id: &'a str,
    whole: bool,
}

/// A line as a JSON object.
#[derive(Serialize)]
struct JsonLine<'a> {
    #[serde(flatten)]
    start: RecordStart,
    request_id: &'a str,
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
    waiting_microseconds: Option<u128>,
    whole: bool,
}

impl<R: Request> AccessLine<'_, R> {
    /// Apache's combined format, followed by microseconds, the request id, `X` for a cut response
    /// or `-` for a complete one, and the microseconds that the request waited before.
    fn combined(&self) -> Vec<u8> {
        let mut line = String::with_capacity(256);
        escape(&mut line, self.client().unwrap_or(b"-"), true);
        line.push_str(" - ");
        escape(&mut line, self.param(b"REMOTE_USER").unwrap_or(b"-"), true);
        // Writing to a string cannot fail, here and below.
        let _ = write!(line, " [{}] \"", LocalTime::of(self.begun).common());
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
        let _ = write!(line, " {} {} {end} ", self.duration.as_micros(), self.request_id);
        match self.waited {
            Some(waited) => drop(writeln!(line, "{}", waited.as_micros())),
            None => line.push_str("-\n"),
        }
        line.into_bytes()
    }

    fn json(&self) -> Vec<u8> {
        let text = |name: &[u8]| self.param(name).map(|value| escape::text(value).into_owned());
        let object = JsonLine {
            start: RecordStart::new(LogName::Access, Timestamp::of(self.begun)),
            request_id: self.request_id,
            remote_addr: self.client().map(|client| escape::text(client).into_owned()),
            remote_user: text(b"REMOTE_USER"),
            method: text(b"REQUEST_METHOD"),
            target: escape::text(&self.target()).into_owned(),
            protocol: text(b"SERVER_PROTOCOL"),
            status: self.status,
            bytes: self.sent,
            referer: text(b"HTTP_REFERER"),
            user_agent: text(b"HTTP_USER_AGENT"),
            microseconds: self.duration.as_micros(),
            waiting_microseconds: self.waited.map(|waited| waited.as_micros()),
            whole: self.whole,
        };
        log_record::line(&object).into_bytes()
    }

    fn client(&self) -> Option<&[u8]> {
        self.client.as_deref().filter(|client| !client.is_empty())
    }

    fn param(&self, name: &[u8]) -> Option<&[u8]> {
        self.request.get(name).filter(|value| !value.is_empty())
    }

    /// The target of the request, composed of other variables if REQUEST_URI is missing.
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

/// Escapes `bytes` as Apache does, so that they cannot end the line, the quotes around them or,
/// with `spaces`, the field.
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
