//! One request to a target, and its outcome as a web server sees it within a time limit.

use std::{
    io::{
        Read as _, Write as _, {self},
    },
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fastcgi_server::bodies::ProtocolStatus;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open},
};

use crate::support::{
    assertions::{ValidResponse, parse_response},
    fastcgi_client::{FastcgiConnection, FastcgiRequest, Received},
};

/// The outcome of a request, as a web server sees it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A valid response, all of it.
    Whole(ValidResponse),
    /// No response, or one that ends too soon, and that can be seen.
    Cut(#[expect(dead_code, reason = "shown where it is wrong")] String),
    /// A keep-alive connection was closed before the request was begun: web servers take another
    /// one.
    Closed,
    /// The connection was refused.
    Refused(#[expect(dead_code, reason = "shown where it is wrong")] String),
    /// Bytes that are no valid response, and nothing says so.
    Invalid(String),
    /// The deadline passed before the response was complete.
    Hung(String),
}

impl Outcome {
    /// Returns whether this is a response with the status 200 and this body.
    pub(super) fn is(&self, body: &str) -> bool {
        matches!(self, Self::Whole(head) if head.status == 200 && head.body == body.as_bytes())
    }

    /// The fault, if the request may have this body or no response: a response of another request,
    /// an invalid one, or an endless wait.
    pub(super) fn wrong(&self, body: &str) -> Option<String> {
        match self {
            Self::Whole(head) if head.status == 200 && head.body != body.as_bytes() => {
                Some(format!("{:?} in place of {body:?}", String::from_utf8_lossy(&head.body)))
            }
            Self::Invalid(what) => Some(format!("invalid: {what}")),
            Self::Hung(what) => Some(format!("hangs: {what}")),
            _ => None,
        }
    }
}

/// Judges a response that has ended regularly: valid, and as long as its Content-Length says?
fn judged(response: &[u8]) -> Outcome {
    match parse_response(response) {
        Err(wrong) => Outcome::Invalid(wrong),
        Ok(head) => match head.all("Content-Length")[..] {
            [length] if length != head.body.len().to_string() => {
                Outcome::Invalid(format!("{} bytes of {length}", head.body.len()))
            }
            _ => Outcome::Whole(head),
        },
    }
}

/// A connection to the socket of a pool, on which nothing waits longer than `limit`.
pub(super) fn connect(socket: &Path, limit: Duration) -> io::Result<FastcgiConnection> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(FastcgiConnection::over(stream))
}

/// The outcome of a request over `connection`.
pub(super) fn over(
    connection: &mut FastcgiConnection,
    request: &FastcgiRequest,
    limit: Duration,
) -> Outcome {
    let began = Instant::now();
    // A request that could not be sent gets no response, or an earlier one.
    let sent = connection.try_send(&request.bytes());
    let (mut stdout, mut said) = (Vec::new(), 0);
    loop {
        match connection.try_next() {
            Ok(Some(Received::Stdout(_, bytes))) => stdout.extend(bytes),
            Ok(Some(Received::End(_, end))) => {
                let complete =
                    end.protocol_status == ProtocolStatus::RequestComplete && end.app_status == 0;
                return if complete { judged(&stdout) } else { Outcome::Cut(format!("{end:?}")) };
            }
            Ok(Some(_)) => {}
            Ok(None) if said == 0 => return Outcome::Closed,
            Err(error) if said == 0 && error.kind() == io::ErrorKind::ConnectionReset => {
                return Outcome::Closed;
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                return Outcome::Hung(format!(
                    "{} bytes after {:?}, sent: {sent:?}",
                    stdout.len(),
                    began.elapsed()
                ));
            }
            end => {
                return Outcome::Cut(format!(
                    "{} bytes, then {end:?}, sent: {sent:?}",
                    stdout.len()
                ));
            }
        }
        said += 1;
        if began.elapsed() > limit {
            return Outcome::Hung(format!("{} bytes, and no end", stdout.len()));
        }
    }
}

/// A CGI request that was begun.
pub(super) struct CgiProcess {
    child: Child,
    until: Instant,
}

impl CgiProcess {
    /// Starts the program of a request; it may take until `limit` is over.
    pub(super) fn start(command: &mut Command, limit: Duration) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.spawn()?, until: Instant::now() + limit })
    }

    /// The process of the gateway.
    pub(super) fn pid(&self) -> i32 {
        Pid::from_child(&self.child).as_raw_nonzero().get()
    }

    /// Writes a body that fits into a pipe, and no more.
    pub(super) fn give(&mut self, body: &[u8]) {
        if let Some(mut stdin) = self.child.stdin.take() {
            // A program that has ended reads nothing.
            let _ = stdin.write_all(body);
        }
    }

    /// Reads the response and returns the outcome.
    pub(super) fn outcome(mut self) -> Outcome {
        let mut stdout = self.child.stdout.take().expect("a pipe");
        let mut response = Vec::new();
        let mut piece = [0; 64 * 1024];
        loop {
            if !ready(&stdout, self.until) {
                return self.hung(format!("{} bytes, and no end", response.len()));
            }
            match stdout.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => response.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Outcome::Cut(error.to_string()),
            }
        }
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("a child");
        if !ready(&ended, self.until) {
            return self.hung("the response has ended, and the gateway has not".to_owned());
        }
        match self.child.wait() {
            Ok(status) if status.success() => judged(&response),
            Ok(status) => Outcome::Cut(format!("{status}, signal {:?}", status.signal())),
            Err(error) => Outcome::Cut(error.to_string()),
        }
    }

    /// Leaves after the first bytes, as the client of a web server does.
    pub(super) fn leave(mut self, until: Instant) -> Outcome {
        let stdout = self.child.stdout.take().expect("a pipe");
        if !ready(&stdout, until) {
            return self.hung("not a byte".to_owned());
        }
        drop(stdout);
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("a child");
        if !ready(&ended, until) {
            return self.hung("the client has left, and the gateway goes on".to_owned());
        }
        match self.child.wait() {
            Ok(status) => Outcome::Cut(format!("left, {status}")),
            Err(error) => Outcome::Cut(error.to_string()),
        }
    }

    /// Ends what hangs.
    fn hung(mut self, what: String) -> Outcome {
        if let Some(group) = Pid::from_raw(self.pid()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        Outcome::Hung(what)
    }
}

/// Waits until something can be read, or `until`.
pub(super) fn ready(file: &impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).expect("a short time");
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&limit)) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
