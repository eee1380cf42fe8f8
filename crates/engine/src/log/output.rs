//! Output of the application as records of JSON, if the log has them.

use std::{borrow::Cow, cell::RefCell, sync::Arc};

use diagnostics::{
    escape,
    log_record::{self, LogName, RecordStart},
    log_style::{self, LogFormat},
    timestamp::Timestamp,
};
use serde::Serialize;

use crate::log::RequestLabel;

thread_local! {
    /// The request that this thread serves.
    static REQUEST: RefCell<Option<Arc<RequestLabel>>> = const { RefCell::new(None) };
}

/// Output of the application.
#[derive(Serialize)]
struct OutputRecord<'a> {
    #[serde(flatten)]
    start: RecordStart,
    request_id: Option<&'a str>,
    message: &'a str,
}

/// Notes the request that this thread serves, until the returned value is dropped. A log in text
/// does not need it.
pub(super) fn enter(request: &Arc<RequestLabel>) -> OutputLabel {
    if log_style::format() == LogFormat::Json {
        set_request(Some(request.clone()));
    }
    OutputLabel(())
}

fn set_request(request: Option<Arc<RequestLabel>>) {
    // A thread that exits serves no request.
    let _ = REQUEST.try_with(|current| current.replace(request));
}

/// Ends the note of [`enter`].
pub(crate) struct OutputLabel(());

impl Drop for OutputLabel {
    fn drop(&mut self) {
        if log_style::format() == LogFormat::Json {
            set_request(None);
        }
    }
}

/// Text that the application has written at once, as the log takes it. One record has all lines of
/// the text, such as a traceback.
pub(super) fn in_style(bytes: &[u8]) -> Cow<'_, [u8]> {
    if log_style::format() == LogFormat::Text {
        return Cow::Borrowed(bytes);
    }
    // `print` writes the end of its line by itself.
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if text.is_empty() {
        return Cow::Borrowed(text);
    }
    let request = REQUEST.try_with(|request| request.borrow().clone()).unwrap_or_default();
    let record = OutputRecord {
        start: RecordStart::new(LogName::Output, Timestamp::now()),
        request_id: request.as_deref().map(RequestLabel::id),
        message: &escape::text(text),
    };
    Cow::Owned(log_record::line(&record).into_bytes())
}

/// Are `lines` the start of a traceback that the application writes line by line? A record of JSON
/// has all of it.
pub(crate) fn is_open_traceback(lines: &[u8]) -> bool {
    if log_style::format() == LogFormat::Text
        || !lines.starts_with(b"Traceback (most recent call last):")
    {
        return false;
    }
    // The exception's own line, which is not indented, ends a traceback.
    let mut rest = lines.split(|&byte| byte == b'\n').skip(1).peekable();
    while let Some(line) = rest.next() {
        if rest.peek().is_some() && !line.starts_with(b" ") {
            return false;
        }
    }
    true
}
