//! What a developer sees on the terminal: one line a request.

use std::{
    env,
    io::IsTerminal as _,
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use diagnostics::{error_log, escape, log_style, message::Subject};
use hyper::StatusCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::task::{spawn_local, yield_now};

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
    client: Rc<OwnedFd>,
    /// `None` until there is a response.
    status: Option<StatusCode>,
    start: Instant,
    /// The client has not received the whole response.
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

    /// The line about the request for `path`, which begins now, on the connection to `client`.
    pub(super) fn line(self, method: &str, path: &str, client: Rc<OwnedFd>) -> RequestLine {
        let path = diagnostics::shorten::shorten(path, MAX_PATH_BYTES);
        let request = escape::visible(format!("{method} {path}").as_bytes());
        let start = Instant::now();
        RequestLine { console: self, request, client, status: None, start, is_cut: true }
    }
}

fn print(text: &str) {
    let about = Subject::no_request(log_style::pool());
    error_log::write(text.as_bytes(), Subject::new(&about));
}

impl RequestLine {
    /// Sets the status of the response.
    pub(super) fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The response is complete. Prints the line when hyper has sent the rest, which shows whether
    /// the client is still there.
    pub(super) fn finish(self) {
        spawn_local(async move {
            let mut line = self;
            yield_now().await;
            line.is_cut = has_closed(&line.client);
        });
    }

    fn text(&self, duration: Duration) -> String {
        let status = self.status.map(|status| status.as_u16());
        let (before, after) = match status {
            _ if !self.console.has_colour => ("", ""),
            None | Some(500..) => ("\x1b[31m", "\x1b[0m"),
            Some(400..) => ("\x1b[33m", "\x1b[0m"),
            Some(300..) => ("\x1b[36m", "\x1b[0m"),
            Some(_) => ("\x1b[32m", "\x1b[0m"),
        };
        let status = status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let end = if self.is_cut { ", cut" } else { "" };
        format!("{} {before}{status}{after} {} ms{end}\n", self.request, duration.as_millis())
    }
}

/// Has the client refused what was sent, since it has closed its connection? One that only ends its
/// direction still reads.
fn has_closed(client: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(client, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default()))
        .is_ok_and(|_| polled[0].revents().contains(PollFlags::ERR))
}

impl Drop for RequestLine {
    fn drop(&mut self) {
        print(&self.text(self.start.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_line_has_method_path_status_and_duration_and_a_colour_only_on_a_terminal() {
        let client = Rc::new(OwnedFd::from(UnixStream::pair().unwrap().0));
        let cut = Console { has_colour: false }.line("GET", "/", client.clone());
        assert_eq!(cut.text(Duration::from_millis(3)), "GET / - 3 ms, cut\n");
        for (has_colour, status, text) in [
            (false, 200, "GET /a\\u{1b}[2J 200 12 ms\n"),
            (true, 200, "GET /a\\u{1b}[2J \x1b[32m200\x1b[0m 12 ms\n"),
            (true, 404, "GET /a\\u{1b}[2J \x1b[33m404\x1b[0m 12 ms\n"),
            (true, 500, "GET /a\\u{1b}[2J \x1b[31m500\x1b[0m 12 ms\n"),
        ] {
            let mut line = Console { has_colour }.line("GET", "/a\x1b[2J", client.clone());
            line.is_cut = false;
            line.set_status(StatusCode::from_u16(status).unwrap());
            assert_eq!(line.text(Duration::from_millis(12)), text);
        }
    }
}
