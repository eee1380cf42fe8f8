//! The request to a FastCGI server that runs already, made as a web server makes it (FastCGI 1.0,
//! 3.3, 5 and 6.2).

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{
        BufRead, Read, Take, Write as _, {self},
    },
    num::NonZero,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use diagnostics::{
    escape,
    message::{Code, LogMessage},
};
use fastcgi_server::{
    Input,
    bodies::{EndRequest, ProtocolStatus, Role},
    client::{Connection, Error, Event, Request},
    record::UnknownVersion,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use crate::{
    call::{
        args::Call,
        composed, not_passed_on,
        print::{
            Printed, {self},
        },
        server::Server,
        wrong_words,
    },
    config::settings::AT_A_TERMINAL,
    exit::{Complaint, Exit},
};

/// The request has its connection for itself.
const ID: NonZero<u16> = NonZero::<u16>::MIN;

/// Bytes of the body that leave in one record, whose end is then at a multiple of eight.
const PIECE: usize = 0xfff8;

/// Bytes of what is no response that are shown.
const SHOWN: usize = 1000;

/// One request and its response on their way: read from it the bytes of the response.
struct Exchange {
    socket: OwnedFd,
    deadline: Option<Instant>,
    timeout: u64,
    /// Seconds that the server may be silent, where the request has no deadline.
    patience: Option<u64>,
    /// When something came from the server, or left for it, for the last time.
    stirred: Instant,
    /// The server has sent something.
    is_answered: bool,
    /// The rest of the request's body, until its end is in `out`.
    body: Option<Take<File>>,
    /// Records that are leaving, and how many of their bytes have left.
    out: Vec<u8>,
    sent: usize,
    connection: Connection,
    received: Box<[u8]>,
    /// Bytes of the response that are there and were not read.
    response: VecDeque<u8>,
    /// Something of the response has come.
    has_begun: bool,
    /// The last words on standard error did not end their line.
    within_line: bool,
    /// How the request ended, once it has.
    ending: Option<Result<EndRequest, LogMessage>>,
}

/// Makes the request and prints the response.
pub(super) fn run(words: &Call, server: &Server) -> Result<Exit, Complaint> {
    if let Some(target) = &words.target {
        return Err(wrong_words(format!(
            "`{target}` is one word too many: with --via there is no APP, only TARGET"
        )));
    }
    let script = words.script_filename.as_ref().map(|path| path.as_os_str());
    let made = composed(words, words.app.as_deref(), script)?;
    let timeout = words.options.timeout.unwrap_or(0);
    let patience = words.options.timeout.is_none().then_some(AT_A_TERMINAL);
    let mut out = Vec::new();
    let request = Request::new(ID);
    request.append_begin(Role::Responder, false, &mut out);
    let variables = made
        .request
        .variables
        .iter()
        .map(|(name, value)| (name.as_encoded_bytes(), value.as_encoded_bytes()));
    request.append_params(variables, &mut out).map_err(|error| wrong_words(error.to_string()))?;
    let body = File::from(made.body);
    // A file that grows meanwhile is sent as long as was announced.
    let length = body.metadata().map_or(0, |found| found.len());
    let deadline = in_seconds(timeout).filter(|_| timeout > 0);
    let mut exchange = Exchange {
        socket: server
            .connect(deadline.or_else(|| in_seconds(patience?)))
            .map_err(Complaint::failed)?,
        deadline,
        timeout,
        patience,
        stirred: Instant::now(),
        is_answered: false,
        body: Some(body.take(length)),
        out,
        sent: 0,
        connection: Connection::new(),
        received: vec![0; 1 << 16].into(),
        response: VecDeque::new(),
        has_begun: false,
        within_line: false,
        ending: None,
    };
    let printed = print::response(&mut exchange, words.include, made.request.is_head())
        .map_err(not_passed_on)?;
    let failure = match &printed {
        Printed::ReaderGone => return Ok(Exit::Done),
        Printed::Response { .. } => exchange.finish().map_or_else(Some, |end| failure_of(&end)),
        Printed::NoHead(start) => {
            // One that was refused or cut is first of all that.
            let failure = match exchange.ending.take() {
                Some(Err(entry)) => entry,
                Some(Ok(end)) => failure_of(&end).unwrap_or_else(no_head),
                None => no_head(),
            };
            let start = escape::text(&start[..start.len().min(SHOWN)]);
            Some(if start.is_empty() {
                failure
            } else {
                failure.detail(format!("it begins:\n{start}"))
            })
        }
    };
    exchange.end_line();
    match (failure, printed) {
        (Some(entry), _) => Err(Complaint::failed(entry)),
        (None, Printed::Response { status }) if status < 400 => Ok(Exit::Done),
        // The page has said why.
        (None, _) => Ok(Exit::Failed),
    }
}

/// So many seconds from now. A deadline beyond the end of all clocks is none.
fn in_seconds(seconds: u64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(seconds))
}

impl Exchange {
    /// Why the server has been waited for long enough.
    fn is_late(&self) -> LogMessage {
        let sentence = match (self.patience, self.is_answered) {
            (None, _) => {
                let sentence = format!("the request took longer than {} s", self.timeout);
                let hint = if self.is_answered {
                    "look at what the server is doing, or raise --timeout"
                } else {
                    "the server has sent nothing: look at what it is doing, and whether it speaks \
                     FastCGI"
                };
                return LogMessage::error(Code::TimedOut, sentence).hint(hint);
            }
            (Some(seconds), true) => format!("the server has sent nothing more for {seconds} s"),
            (Some(seconds), false) => format!("the server has sent nothing for {seconds} s"),
        };
        LogMessage::error(Code::TimedOut, sentence).hint(if self.is_answered {
            "look at what the server is doing; --timeout S waits longer, and --timeout 0 without \
             an end"
        } else {
            "see whether it speaks FastCGI: a server of HTTP waits for a request of its own kind; \
             --timeout S waits longer"
        })
    }

    /// Waits for the end of the request, whatever else of its response comes.
    fn finish(&mut self) -> Result<EndRequest, LogMessage> {
        loop {
            self.response.clear();
            self.await_more();
            if let Some(ending) = self.ending.take() {
                return ending;
            }
        }
    }

    /// Waits until there is something of the response to read, or the request has ended.
    fn await_more(&mut self) {
        while self.response.is_empty() && self.ending.is_none() {
            if let Err(entry) = self.advance() {
                self.ending = Some(Err(entry));
            }
        }
    }

    /// Waits until bytes can go either way, and lets them. A server that replies before it has read
    /// everything must find a reader, or both would wait for ever.
    fn advance(&mut self) -> Result<(), LogMessage> {
        self.refill()?;
        let due =
            self.deadline.or_else(|| self.stirred.checked_add(Duration::from_secs(self.patience?)));
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let out = if self.sent < self.out.len() { PollFlags::OUT } else { PollFlags::empty() };
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN | out)];
        match poll(&mut socket, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(0) => {
                return Err(self.is_late());
            }
            Err(Errno::INTR) => return Ok(()),
            ready => ready.map_err(|error| cut(&error.to_string()))?,
        };
        let found = socket[0].revents();
        if found.contains(PollFlags::OUT) {
            match send(
                &self.socket,
                &self.out[self.sent..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(length) => {
                    self.sent += length;
                    self.stirred = Instant::now();
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It wants no more of the request, and may have replied all the same.
                Err(_) => {
                    self.body = None;
                    self.out.clear();
                    self.sent = 0;
                }
            }
        }
        if found.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match recv(&self.socket, &mut *self.received, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(cut("the server closed the connection")),
                Ok((length, _)) => {
                    (self.stirred, self.is_answered) = (Instant::now(), true);
                    self.understand(length)?;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(cut(&error.to_string())),
            }
        }
        Ok(())
    }

    /// Makes the next record of the body when the last one has left.
    fn refill(&mut self) -> Result<(), LogMessage> {
        if self.sent < self.out.len() {
            return Ok(());
        }
        self.out.clear();
        self.sent = 0;
        let Some(body) = &mut self.body else { return Ok(()) };
        let mut piece = Vec::with_capacity(PIECE);
        body.take(PIECE as u64).read_to_end(&mut piece).map_err(|error| {
            LogMessage::error(Code::BadSetting, format!("the request body cannot be read: {error}"))
                .hint("look at the file that --data names")
        })?;
        Request::new(ID).append_input(Input::Stdin, &piece, &mut self.out);
        if piece.len() < PIECE {
            Request::new(ID).append_end_of_input(Input::Stdin, &mut self.out);
            self.body = None;
        }
        Ok(())
    }

    /// Takes the records apart whose bytes were received.
    fn understand(&mut self, length: usize) -> Result<(), LogMessage> {
        let mut rest = &self.received[..length];
        while self.ending.is_none() {
            let step = self.connection.receive(rest).map_err(|error| match error {
                // So pools of ours end a response that is not whole.
                Error::UnknownVersion(UnknownVersion(0)) if self.has_begun => {
                    cut("what followed is no record")
                }
                error => no_fastcgi(&error),
            })?;
            rest = &rest[step.consumed..];
            match step.event {
                None => break,
                Some(Event::Stdout { id: ID, bytes }) => {
                    self.response.extend(bytes);
                    self.has_begun = true;
                }
                Some(Event::Stderr { id: ID, bytes }) => {
                    // If standard error is closed there is nobody to tell.
                    let _ = io::stderr().lock().write_all(escape::lines(bytes).as_bytes());
                    self.within_line = !bytes.ends_with(b"\n");
                }
                Some(Event::End { id: ID, result }) => self.ending = Some(Ok(result)),
                Some(
                    Event::Stdout { id, .. }
                    | Event::StdoutEnd { id }
                    | Event::Stderr { id, .. }
                    | Event::StderrEnd { id }
                    | Event::End { id, .. },
                ) if id != ID => {
                    return Err(no_fastcgi(&format_args!(
                        "a response to request `{id}`, which was not made"
                    )));
                }
                // The end of a stream says nothing that the end of the request does not; the others
                // answer nobody.
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Ends the line of the server's words on standard error.
    fn end_line(&mut self) {
        if std::mem::take(&mut self.within_line) {
            let _ = io::stderr().lock().write_all(b"\n");
        }
    }
}

impl Read for Exchange {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Exchange {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.await_more();
        self.response.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.response.consume(amount);
    }
}

fn no_head() -> LogMessage {
    LogMessage::error(
        Code::NoResponse,
        "the response has no head: lines `Name: value` and an empty one",
    )
    .hint("the program printed something else first; the web server would answer 500 or 502")
}

fn no_fastcgi(error: &dyn fmt::Display) -> LogMessage {
    LogMessage::error(Code::NoResponse, format!("what came is not FastCGI: {error}"))
        .hint("see what listens there; HTTP and uwsgi are other protocols")
}

fn cut(how: &str) -> LogMessage {
    LogMessage::error(
        Code::ResponseCut,
        format!(
            "the response ended before the request did: {how}, and `FCGI_END_REQUEST` never came"
        ),
    )
    .hint("look at the server's error log: the process that served the request may have died")
}

/// What a request that has ended in good order failed of.
fn failure_of(end: &EndRequest) -> Option<LogMessage> {
    let hint = match end.protocol_status {
        ProtocolStatus::RequestComplete if end.app_status == 0 => return None,
        ProtocolStatus::RequestComplete => {
            let sentence =
                format!("the application reports that it failed, with status `{}`", end.app_status);
            return Some(
                LogMessage::error(Code::ResponseCut, sentence)
                    .hint("look at the server's error log"),
            );
        }
        ProtocolStatus::Overloaded => "it has no process free: try again, or give it more of them",
        ProtocolStatus::CantMpxConn => {
            "it takes one request a connection and got no other: look at the server's error log"
        }
        ProtocolStatus::UnknownRole => {
            "it is no responder but an authorizer or a filter; this is no request for it"
        }
        ProtocolStatus::Other(_) => {
            "FastCGI 1.0 knows no such status: look at the server's error log"
        }
    };
    Some(
        LogMessage::error(
            Code::Refused,
            format!("the server refused the request: `{}`", end.protocol_status),
        )
        .hint(hint),
    )
}
