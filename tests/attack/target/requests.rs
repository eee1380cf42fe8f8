//! Requests to the application under attack.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    attack::{
        BOUND,
        outcome::{CgiProcess, Outcome, connect, over},
        target::{Target, lock, pause},
    },
    support::fastcgi_client::{FastcgiConnection, FastcgiRequest},
};

impl Target {
    /// The command of a CGI request for `path`, with a body of this length.
    pub(in crate::attack) fn request(&self, path: &str, length: usize) -> Command {
        let mut command = self.command(&self.path("app.wsgi"));
        self.describe(&mut command);
        command.env("PATH_INFO", path).env("REQUEST_URI", format!("/cgi-bin/app.wsgi{path}"));
        command.env("REQUEST_METHOD", "POST").env("CONTENT_LENGTH", length.to_string());
        command
    }

    /// The outcome of a request for `path` with `body`, within `limit`.
    pub(in crate::attack) fn ask(&self, path: &str, body: &str, limit: Duration) -> Outcome {
        if !self.is_cgi() {
            return match connect(&self.socket(), limit) {
                Err(error) => Outcome::Refused(error.to_string()),
                Ok(mut connection) => {
                    match over(&mut connection, &FastcgiRequest::post(path, body), limit) {
                        Outcome::Closed => Outcome::Cut("closed without a word".to_owned()),
                        other => other,
                    }
                }
            };
        }
        let mut program = match CgiProcess::start(&mut self.request(path, body.len()), limit) {
            Ok(program) => program,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let pid = program.pid();
        lock(&self.gateways).push(pid);
        program.give(body.as_bytes());
        let outcome = program.outcome();
        lock(&self.gateways).retain(|known| *known != pid);
        outcome
    }

    /// A connection to a pool.
    #[track_caller]
    pub(in crate::attack) fn connect(&self) -> FastcgiConnection {
        connect(&self.socket(), BOUND)
            .unwrap_or_else(|error| panic!("{}: {error}", self.socket().display()))
    }

    /// Asks until the right response comes, while the pool is started again where it has ended.
    /// Gives the number of requests that were lost.
    pub(in crate::attack) fn good(&self, path: &str) -> Result<u64, String> {
        let (began, mut lost, mut last) = (Instant::now(), 0, String::new());
        let expected = format!("{path}|body of {path}");
        while began.elapsed() < BOUND {
            let outcome = self.ask_while_watched(path, &format!("body of {path}"));
            if outcome.is(&expected) {
                return Ok(lost);
            }
            if let Some(wrong) = outcome.wrong(&expected) {
                return Err(wrong);
            }
            if !matches!(outcome, Outcome::Refused(_)) {
                lost += 1;
            }
            last = format!("{outcome:?}");
            pause(Duration::from_millis(10));
        }
        Err(format!("no good response within {BOUND:?}, {lost} lost, at last {last}"))
    }

    /// Asks, while somebody starts the pool again where it has ended.
    fn ask_while_watched(&self, path: &str, body: &str) -> Outcome {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    self.revive();
                    pause(Duration::from_millis(5));
                }
            });
            let outcome = self.ask(path, body, BOUND);
            is_over.store(true, Ordering::Relaxed);
            outcome
        })
    }

    /// As above, and asserts that nothing is wrong.
    #[track_caller]
    pub(in crate::attack) fn await_good(&self, path: &str) -> u64 {
        self.good(path).unwrap_or_else(|wrong| panic!("{wrong}\n{}", self.log()))
    }
}
