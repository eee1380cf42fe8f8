//! The guard of a request: starts python, or takes over a process of a warm pool, passes on what
//! the web server wants, and sees to it that a response is made.
//!
//! It holds a copy of the response's descriptor and knows from the engine's reports whether a head
//! has left. Until then it can still answer by itself, whatever becomes of python; from then on it
//! can only cut.

mod channels;
mod outcome;
mod served_process;

use std::{
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    time::{Duration, Instant},
};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use nix::sys::signal::Signal as Caught;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::Signal,
};
use wire::{
    launch::{RequestFds, Work},
    report::{MAX_REPORT_BYTES, Report, StopReason},
    running_clock,
};

pub(crate) use crate::guard::{
    channels::Channels,
    served_process::{Subject, signal_process},
};
use crate::{
    config::settings::Settings,
    exit::Exit,
    guard::{outcome::Ending, served_process::Outcome},
    python::{start::Start, start_error},
    request::Request,
    system::signals::Bell,
};

/// How long an application may take to end after it was told to. Apache kills three seconds after
/// it has told us.
const GRACE: Duration = Duration::from_millis(1500);

/// How long a process may take to end whose descriptors the kernel has closed.
const MOMENT: Duration = Duration::from_secs(1);

/// How long a web server may take between ending the gateway and closing its end of the response.
const CLOSING: Duration = Duration::from_millis(200);

/// How long python then has to write its stack to the log.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Does `work` in a new python. Whatever happens to that, the response is one, and the log says why
/// if it is ours.
pub(crate) fn run(
    settings: &Settings,
    work: fn(RequestFds) -> Work,
    request: &Request,
    channels: Channels,
) -> Exit {
    run_with(settings, work, request, channels, &mut |_| {})
}

fn run_with(
    settings: &Settings,
    work: fn(RequestFds) -> Work,
    request: &Request,
    channels: Channels,
    audited: &mut dyn FnMut(Audit),
) -> Exit {
    let response = match channels.response.try_clone() {
        Ok(response) => response,
        Err(error) => {
            return request.refuse(
                Status::ServiceUnavailable,
                &start_error::message(settings, &error),
                channels.response,
            );
        }
    };
    match Guard::start(settings, work, request, channels) {
        Ok(guard) => guard.watch(response, audited),
        Err(error) => {
            let status = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                    Status::ServiceUnavailable
                }
                _ => Status::InternalServerError,
            };
            request.refuse(status, &start_error::message(settings, &error), response)
        }
    }
}

/// What a process says of the application that it has loaded.
pub(crate) enum Audit {
    /// Other processes may load it meanwhile.
    Free,
    /// One process at a time may have what loading it leaves open, which the text lists.
    OneProcess(String),
    /// It has not loaded any.
    Unknown,
}

/// As [`run`] does for a CGI request, and hands what the process says of its application to
/// `audited`, once and as soon as possible.
pub(crate) fn run_audited(
    settings: &Settings,
    request: &Request,
    channels: Channels,
    audited: impl FnOnce(Audit),
) -> Exit {
    let mut audited = Some(audited);
    let mut hand_over = |audit| {
        if let Some(audited) = audited.take() {
            audited(audit);
        }
    };
    let exit = run_with(settings, Work::FirstCgi, request, channels, &mut hand_over);
    hand_over(Audit::Unknown);
    exit
}

/// Watches a process of a warm pool that has taken the request, and reports on `reports`. The
/// response is made as by [`run`].
pub(crate) fn take_over(
    settings: &Settings,
    request: &Request,
    subject: Subject,
    reports: OwnedFd,
    end_bell: Bell,
    response: OwnedFd,
) -> Exit {
    let guard = Guard {
        request,
        settings,
        subject,
        reports,
        end_bell,
        started: running_clock::instant(),
        seen: Seen { ready: true, loaded: true, ..Seen::default() },
        stopping: None,
    };
    guard.watch(response, &mut |_| {})
}

/// What has the web server's wish that a request ends.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn end_bell() -> io::Result<Bell> {
    Bell::on_end_of_request()
}

/// Why a request ends whose bell has rung.
pub(crate) fn reason(end_bell: &Bell) -> StopReason {
    match end_bell.last() {
        Some(Caught::SIGINT) => StopReason::Interrupted,
        Some(Caught::SIGHUP) => StopReason::HungUp,
        _ => StopReason::Terminated,
    }
}

/// Has the web server closed its end of `response`, now or a moment later? Web servers end a
/// program whose client has gone, and nobody needs to hear of that.
pub(crate) fn is_abandoned(response: &OwnedFd) -> bool {
    // Asked for nothing, the kernel tells of errors and of closed ends alone.
    let mut watched = [PollFd::new(response, PollFlags::empty())];
    let moment = Timespec::try_from(CLOSING).ok();
    matches!(poll(&mut watched, moment.as_ref()), Ok(1..))
}

struct Guard<'a> {
    request: &'a Request,
    settings: &'a Settings,
    subject: Subject,
    reports: OwnedFd,
    end_bell: Bell,
    started: Instant,
    seen: Seen,
    stopping: Option<Stopping>,
}

/// What the engine has reported.
#[derive(Default)]
struct Seen {
    ready: bool,
    /// The application is loaded, or cannot be.
    loaded: bool,
    head_left: bool,
    /// Nothing more of the response will be sent, and whether all of it was.
    over: Option<bool>,
    done: Option<bool>,
    /// Whoever serves the request needs no guard any more.
    released: bool,
    unfit: Option<String>,
    /// Not handed on yet.
    audit: Option<Audit>,
    /// Nothing more can be reported.
    closed: bool,
    /// The application has closed descriptors that its response needs.
    lost: bool,
}

/// A request that is being ended.
struct Stopping {
    reason: StopReason,
    next: Step,
    due: Instant,
}

/// The next thing that is done to a process that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Python writes its stack to the log and dies.
    Abort,
    Kill,
}

impl<'a> Guard<'a> {
    /// Starts python for `work`.
    fn start(
        settings: &'a Settings,
        work: fn(RequestFds) -> Work,
        request: &'a Request,
        channels: Channels,
    ) -> io::Result<Self> {
        let child_bell = Bell::on(&[Caught::SIGCHLD])?;
        let end_bell = end_bell()?;
        let work = work(RequestFds {
            body_fd: channels.body.as_raw_fd(),
            response_fd: channels.response.as_raw_fd(),
        });
        let mut start = Start::new(
            settings,
            work,
            request,
            &[channels.body.as_fd(), channels.response.as_fd()],
        )?;
        // A group of its own, so that what it has started can be ended with it.
        let child = start.command.process_group(0).spawn()?;
        Ok(Self {
            request,
            settings,
            subject: Subject::Child { child, bell: child_bell, _lifeline: start.lifeline },
            reports: start.channel,
            end_bell,
            started: running_clock::instant(),
            seen: Seen::default(),
            stopping: None,
        })
    }

    /// Waits until python has ended, and makes good what it has left undone. `response` is the
    /// response's descriptor.
    fn watch(mut self, response: OwnedFd, audited: &mut dyn FnMut(Audit)) -> Exit {
        let mut response = Some(response);
        loop {
            if let Err(error) = self.wait() {
                // Only a lack of memory does this; without eyes there is nothing left but to end
                // it.
                self.request
                    .log(&LogMessage::error(Code::Internal, format!("waiting failed: {error}")));
                self.stop(StopReason::Terminated);
                self.subject.signal_group(Signal::KILL);
            }
            self.take_reports();
            if let Some(audit) = self.seen.audit.take() {
                audited(audit);
            }
            if self.seen.released {
                return self.conclude(Outcome::Unknown, response);
            }
            if self.seen.over.is_some() && !self.subject.may_stay() {
                // The web server takes the response for over when its last holder closes it.
                response = None;
            }
            if self.seen.closed && self.subject.may_stay() {
                if self.seen.done.is_some() {
                    return self.conclude(Outcome::Unknown, response);
                }
                // It has ended, or the application has closed what it reports by, and the response
                // with that.
                self.subject.signal(Signal::KILL);
            }
            if self.end_bell.rang() {
                let reason = reason(&self.end_bell);
                let is_web_servers =
                    self.request.is_from_web_server && reason == StopReason::Terminated;
                if is_web_servers && self.is_closing() && self.stopping.is_none() {
                    // The web server has the response. The engine gives `close()` its time.
                    return self.conclude(Outcome::Unknown, response);
                }
                self.stop(reason);
            }
            if self.limit().is_some_and(|limit| running_clock::elapsed(self.started) >= limit) {
                self.stop(StopReason::Timeout);
            }
            self.escalate(response.as_ref());
            if self.subject.stirred() {
                if self.stopping.is_some() {
                    // While its leader is not reaped, the group's number is nobody else's.
                    self.subject.signal_group(Signal::KILL);
                }
                if let Some(outcome) = self.subject.ended() {
                    // What it said last may have come after the last look.
                    self.take_reports();
                    if let Some(audit) = self.seen.audit.take() {
                        audited(audit);
                    }
                    return self.conclude(outcome, response);
                }
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let now = running_clock::instant();
        let due = match (&self.stopping, self.limit()) {
            (Some(stopping), _) => Some(stopping.due),
            (None, limit) => limit.map(|limit| self.started + limit),
        };
        let left = due.map(|due| due.saturating_duration_since(now));
        let mut watched = [
            PollFd::from_borrowed_fd(self.subject.watched(), PollFlags::IN),
            PollFd::new(&self.end_bell, PollFlags::IN),
            PollFd::new(&self.reports, PollFlags::IN),
        ];
        let count = if self.seen.closed { 2 } else { 3 };
        let polled = running_clock::wait(left, |patience| {
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            poll(&mut watched[..count], patience.as_ref())
        });
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How long after its start the process has to be done with what it is at.
    fn limit(&self) -> Option<Duration> {
        let of_loading = self.settings.load_timeout.filter(|_| !self.seen.loaded);
        self.settings
            .timeout
            .into_iter()
            .chain(of_loading)
            .min()
            .filter(|_| self.seen.done.is_none())
    }

    fn take_reports(&mut self) {
        let mut packet = [0; MAX_REPORT_BYTES];
        loop {
            let length = match recv(&self.reports, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    // A process that ends closes everything, and has ended a moment later.
                    let has_ended = self.seen.closed
                        || self.seen.done.is_some()
                        || self.subject.ends_within(MOMENT);
                    self.seen.lost |= !has_ended;
                    self.seen.closed = true;
                    return;
                }
                Ok((length, _)) => length,
                // Python has ended without reading what it was told last. The kernel says that
                // once, and before what python itself had still to say.
                Err(Errno::CONNRESET | Errno::INTR) => continue,
                Err(_) => return,
            };
            match Report::decode(&packet[..length]) {
                Some(Report::Ready) => self.seen.ready = true,
                Some(Report::ResponseStarts) => self.seen.head_left = true,
                Some(Report::ResponseEnded { complete }) => self.seen.over = Some(complete),
                Some(Report::RequestEnded { complete }) => {
                    self.seen.over = Some(complete);
                    self.seen.done = Some(complete);
                }
                Some(Report::Released { complete }) => {
                    self.seen.over = Some(complete);
                    self.seen.done = Some(complete);
                    self.seen.released = true;
                }
                Some(Report::EngineFailed(reason)) => self.seen.unfit = Some(reason),
                Some(Report::DescriptorsLost) => self.seen.lost = true,
                Some(Report::Loaded) => self.seen.loaded = true,
                Some(Report::Audited) => self.seen.audit = Some(Audit::Free),
                Some(Report::OneProcess(listing)) => {
                    self.seen.audit = Some(Audit::OneProcess(listing))
                }
                // Whatever else comes is not the engine's: an application may have found the
                // descriptor.
                None => {}
            }
        }
    }

    /// Has the response ended, and the application not?
    fn is_closing(&self) -> bool {
        self.seen.over.is_some() && self.seen.done.is_none()
    }

    /// Tells the engine, once, that the request is to end.
    fn stop(&mut self, reason: StopReason) {
        if self.stopping.is_some() {
            return;
        }
        if self.seen.done.is_some() {
            // What is left is the application's own affair, and needs no stack in the log if it
            // takes too long.
            self.stopping =
                Some(Stopping { reason, next: Step::Kill, due: running_clock::instant() + GRACE });
            return;
        }
        // If python has ended already, its end is dealt with as that.
        let _ = send(&self.reports, reason.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        self.subject.signal(Signal::TERM);
        self.stopping =
            Some(Stopping { reason, next: Step::Abort, due: running_clock::instant() + GRACE });
    }

    /// Ends a process that was asked to end and has not done so. `response` is the descriptor of
    /// its response, unless that has ended.
    fn escalate(&mut self, response: Option<&OwnedFd>) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if running_clock::instant() < stopping.due {
            return;
        }
        stopping.due = running_clock::instant() + LAST_WORDS;
        match std::mem::replace(&mut stopping.next, Step::Kill) {
            Step::Abort
                if stopping.reason == StopReason::Terminated
                    && response.is_some_and(is_abandoned) =>
            {
                // No message follows that the stack would belong to.
                self.subject.signal_group(Signal::KILL);
            }
            Step::Abort => self.subject.signal(Signal::ABORT),
            Step::Kill => self.subject.signal_group(Signal::KILL),
        }
    }

    fn conclude(self, outcome: Outcome, response: Option<OwnedFd>) -> Exit {
        let stopped = self.stopping.as_ref().map(|stopping| stopping.reason);
        let is_interrupted = stopped == Some(StopReason::Interrupted);
        let exit = self.make_good(outcome, response);
        if is_interrupted { Exit::Interrupted } else { exit }
    }

    /// Logs and sends what python has left undone.
    fn make_good(self, outcome: Outcome, response: Option<OwnedFd>) -> Exit {
        if let Some(stopping) = self.stopping.as_ref().filter(|_| self.is_closing()) {
            self.request.log(&crate::guard::outcome::close_ended(stopping.reason, self.settings));
        }
        match (self.seen.over, response) {
            (Some(true), _) => Exit::Done,
            (Some(false), _) | (None, None) => Exit::Failed,
            (None, Some(response))
                if self
                    .stopping
                    .as_ref()
                    .is_some_and(|stopping| stopping.reason == StopReason::Terminated)
                    && is_abandoned(&response) =>
            {
                Exit::Failed
            }
            (None, Some(response)) => {
                let ending = Ending {
                    settings: self.settings,
                    outcome,
                    after: running_clock::elapsed(self.started),
                    stopped: self.stopping.map(|stopping| stopping.reason),
                    ready: self.seen.ready,
                    loaded: self.seen.loaded,
                    lost: self.seen.lost,
                    unfit: self.seen.unfit,
                };
                if self.seen.head_left {
                    self.request.log(&ending.after_head());
                    Exit::Failed
                } else {
                    let (page, entry) = ending.before_head();
                    self.request.refuse(page, &entry, response)
                }
            }
        }
    }
}
