//! Log messages: `wsgate: error[W0501]: lower-case sentence`, details, a hint, and the subject.
//! Time and pool, or the journal's priority, stand before them where [`log_style`] says so, and a
//! message may be a record of JSON instead.
//!
//! A message is one string, so that one `write` logs it and messages of parallel requests do not
//! mix.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use rustix::process::getpid;
use serde::Serialize;

use crate::{
    escape::Escaped,
    log_record::{self, LogName, RecordStart},
    log_style::{self, LogFormat},
    shorten::{shorten, shorten_lines},
    timestamp::Timestamp,
};

pub use crate::code::{Code, Severity};

/// Most bytes of a sentence, and of a line of a detail.
const MAX_SENTENCE_BYTES: usize = 2_000;

/// Most bytes of a detail.
const MAX_DETAIL_BYTES: usize = 32_000;

/// Most bytes of the sentence in a summary.
const MAX_SUMMARY_BYTES: usize = 500;

/// The start of a subject that is no request.
const NO_REQUEST: &str = "none, ";

/// `METHOD TARGET` of a request for its log messages, with `-` for a part that is empty.
pub fn request_line(method: &str, target: &str) -> String {
    fn shown(part: &str) -> &str {
        if part.is_empty() { "-" } else { part }
    }
    [shown(method), " ", shown(target)].concat()
}

/// The last line of log messages: `request: ID METHOD TARGET pid PID`. A message that concerns no
/// request has `none, WHAT` instead of the request.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a>(&'a str);

impl<'a> Subject<'a> {
    /// The request `line`, which is `ID METHOD TARGET`, or the text of [`Self::no_request`].
    pub fn new(line: &'a str) -> Self {
        Self(line)
    }

    /// The text for messages about `what`, such as `pool of app.wsgi`, instead of a request.
    pub fn no_request(what: &str) -> String {
        [NO_REQUEST, what].concat()
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pid {}", self.0, getpid().as_raw_nonzero())
    }
}

/// A message for the administrator.
#[derive(Clone, Debug)]
pub struct LogMessage {
    code: Code,
    sentence: String,
    detail: Option<String>,
    is_traceback: bool,
    hint: Option<String>,
    /// The request that the message is about, if another process serves it.
    request: Option<String>,
}

/// A message as a record of JSON.
#[derive(Serialize)]
struct MessageRecord<'a> {
    #[serde(flatten)]
    start: RecordStart,
    severity: String,
    code: String,
    message: &'a str,
    hint: Option<&'a str>,
    detail: Option<&'a str>,
    traceback: Option<&'a str>,
    request_id: Option<&'a str>,
    method: Option<&'a str>,
    target: Option<&'a str>,
    about: Option<&'a str>,
}

impl LogMessage {
    /// Makes a message: `sentence` is lower-case, has values in backticks and no full stop. The
    /// code decides the severity.
    pub fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
            detail: None,
            is_traceback: false,
            hint: None,
            request: None,
        }
    }

    /// The error that the application has closed descriptors of wsgate's; `which` says what cannot
    /// be done without them.
    pub fn descriptors_lost(which: &str) -> Self {
        Self::new(
            Code::DescriptorsLost,
            format!("the application closed descriptors of wsgate's: {which}"),
        )
        .hint(
            "close only what the application has opened: look for `os.closerange()`, `os.close()` \
             and `os.dup2()` with numbers, and for code that makes a daemon",
        )
    }

    /// The warning that the request `request` has been running for `elapsed` in the worker `pid`.
    pub fn slow_request(request: &str, pid: i32, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f32();
        Self::new(
            Code::SlowRequest,
            format!("the request `{request}` has been running for {seconds:.1} s in worker {pid}"),
        )
        .hint("the stacks of the worker's threads follow, the innermost call first")
        .request(request)
    }

    /// The error that the request `request` still runs after it was interrupted, `elapsed` after it
    /// began.
    pub fn not_interrupted(request: &str, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f32();
        Self::new(
            Code::TimedOut,
            format!(
                "the request `{request}` could not be interrupted after {seconds:.1} s; its worker \
                 is aborted"
            ),
        )
        .hint("the stacks follow; it waits in C code, or the application catches the exception")
        .request(request)
    }

    /// Adds lines that explain.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a traceback of Python in place of other details.
    #[must_use]
    pub fn traceback(self, traceback: impl Into<String>) -> Self {
        Self { is_traceback: true, ..self.detail(traceback) }
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the request `line`, which is `ID METHOD TARGET`, in a record of JSON. The sentence or
    /// the detail names it for readers.
    #[must_use]
    pub fn request(mut self, line: impl Into<String>) -> Self {
        self.request = Some(line.into());
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// The code and the sentence, for another message or a status.
    pub fn summary(&self) -> String {
        format!("{}: {}", self.code, Escaped(&shorten(&self.sentence, MAX_SUMMARY_BYTES)))
    }

    /// The message for an error page with `--debug`: sentence, detail and hint.
    pub fn for_client(&self) -> String {
        self.render(None)
    }

    /// The message for the log, in the style of this process.
    pub fn for_log(&self, about: Subject<'_>) -> String {
        log_style::with_prefix(self.in_format(about), self.code.severity())
    }

    /// The message for a log file of its own, wherever standard error leads to.
    pub fn for_file(&self, about: Subject<'_>) -> String {
        log_style::with_time(self.in_format(about))
    }

    fn in_format(&self, about: Subject<'_>) -> String {
        match log_style::format() {
            LogFormat::Text => self.for_reader(about),
            LogFormat::Json => self.record(about),
        }
    }

    /// The message as text for somebody who waits for the response, or whose log has times.
    pub fn for_reader(&self, about: Subject<'_>) -> String {
        self.render(Some(about))
    }

    fn record(&self, Subject(about): Subject<'_>) -> String {
        let sentence = shorten(&self.sentence, MAX_SENTENCE_BYTES);
        let detail = self.detail.as_deref().map(|detail| shorten_lines(detail, MAX_DETAIL_BYTES));
        let (traceback, detail) =
            if self.is_traceback { (detail.as_deref(), None) } else { (None, detail.as_deref()) };
        let no_request = about.strip_prefix(NO_REQUEST);
        let line = self.request.as_deref().or(no_request.is_none().then_some(about));
        let mut request = line.into_iter().flat_map(|line| line.splitn(3, ' '));
        log_record::line(&MessageRecord {
            start: RecordStart::new(LogName::Error, Timestamp::now()),
            severity: self.code.severity().to_string(),
            code: self.code.to_string(),
            message: &sentence,
            hint: self.hint.as_deref(),
            detail: detail.map(str::trim_end),
            traceback,
            request_id: request.next(),
            method: request.next(),
            target: request.next(),
            about: no_request,
        })
    }

    fn render(&self, about: Option<Subject<'_>>) -> String {
        let sentence = shorten(&self.sentence, MAX_SENTENCE_BYTES);
        let mut text =
            format!("wsgate: {}[{}]: {}\n", self.code.severity(), self.code, Escaped(&sentence));
        // Writing to a string cannot fail.
        if let Some(detail) = &self.detail {
            for line in shorten_lines(detail, MAX_DETAIL_BYTES).lines() {
                let _ = writeln!(text, "  {}", Escaped(&shorten(line, MAX_SENTENCE_BYTES)));
            }
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {}", Escaped(hint));
        }
        if let Some(about) = about {
            let _ = writeln!(text, "request: {}", Escaped(&about.to_string()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_four_parts_in_order() {
        let message = LogMessage::new(Code::NoCallable, "no `application` in `x.wsgi`")
            .detail("found: a\nfound: b")
            .hint("name it");
        assert_eq!(
            message.for_log(Subject::new("abc GET /")),
            format!(
                "wsgate: error[W0303]: no `application` in `x.wsgi`\n  found: a\n  found: b\nhint: \
                 name it\nrequest: abc GET / pid {}\n",
                std::process::id()
            )
        );
        assert!(!message.for_client().contains("request:"));
        assert_eq!(message.summary(), "W0303: no `application` in `x.wsgi`");
    }

    #[test]
    fn no_value_can_forge_a_line() {
        let message = LogMessage::new(Code::BadRequest, "bad `a\nwsgate: error`");
        assert_eq!(
            message.for_log(Subject::new("x\r\ny")),
            format!(
                "wsgate: error[W0401]: bad `a\\nwsgate: error`\nrequest: x\\r\\ny pid {}\n",
                std::process::id()
            )
        );
    }

    #[test]
    fn a_message_is_short_however_long_its_parts_are() {
        let message = LogMessage::new(Code::ApplicationRaised, "é".repeat(1_000_000))
            .detail(format!("first\n{}\nlast", "é".repeat(1_000_000)));
        let text = message.for_client();
        assert!(
            text.len() < 40_000 && text.contains("\n  first\n") && text.ends_with("last\n"),
            "{text:.9000}"
        );
    }
}
