//! What a developer sees on the terminal: one line a request.

use std::{
    env,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use diagnostics::{error_log, escape, log_style, message::Subject};
use hyper::StatusCode;

/// Maximum length of a path in bytes.
const MAX_PATH_BYTES: usize = 300;

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Console {
    has_colour: bool,
}

/// The line about a request, which is printed when the response has ended.
pub(super) struct RequestLine {
    console: Console,
    request: String,
    status: StatusCode,
    start: Instant,
    is_cut: bool,
}

impl Console {
    /// Standard error of this process: colours on a terminal, unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { has_colour: !is_plain && std::io::stderr().is_terminal() }
    }

    /// Prints that a request was refused before its method and path were known.
    pub(super) fn refused(self, reason: &str) {
        print(&format!("refused a request that breaks HTTP: {reason}\n"));
    }

    /// The line about the request for `path`, which begins now.
    pub(super) fn line(self, method: &str, path: &str) -> RequestLine {
        let path = diagnostics::shorten::shorten(path, MAX_PATH_BYTES);
        let request = escape::visible(format!("{method} {path}").as_bytes());
        let (status, start) = (StatusCode::OK, Instant::now());
        RequestLine { console: self, request, status, start, is_cut: false }
    }
}

fn print(text: &str) {
    let about = Subject::no_request(log_style::pool());
    error_log::write(text.as_bytes(), Subject::new(&about));
}

impl RequestLine {
    /// Sets the status of the response.
    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// The application has not completed the body.
    pub(super) fn set_cut(&mut self) {
        self.is_cut = true;
    }

    fn text(&self, duration: Duration) -> String {
        let (before, after) = match self.status.as_u16() {
            _ if !self.console.has_colour => ("", ""),
            500.. => ("\x1b[31m", "\x1b[0m"),
            400.. => ("\x1b[33m", "\x1b[0m"),
            300.. => ("\x1b[36m", "\x1b[0m"),
            _ => ("\x1b[32m", "\x1b[0m"),
        };
        let end = if self.is_cut { ", cut" } else { "" };
        format!(
            "{} {before}{}{after} {} ms{end}\n",
            self.request,
            self.status.as_u16(),
            duration.as_millis()
        )
    }
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        print(&self.text(self.start.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_method_path_status_and_duration_and_a_colour_only_on_a_terminal() {
        for (has_colour, status, text) in [
            (false, 200, "GET /a\\u{1b}[2J 200 12 ms\n"),
            (true, 200, "GET /a\\u{1b}[2J \x1b[32m200\x1b[0m 12 ms\n"),
            (true, 404, "GET /a\\u{1b}[2J \x1b[33m404\x1b[0m 12 ms\n"),
            (true, 500, "GET /a\\u{1b}[2J \x1b[31m500\x1b[0m 12 ms\n"),
        ] {
            let mut line = Console { has_colour }.line("GET", "/a\x1b[2J");
            line.set_status(StatusCode::from_u16(status).unwrap());
            assert_eq!(line.text(Duration::from_millis(12)), text);
        }
    }
}
