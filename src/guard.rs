//! The guard of a cold run: starts python, passes on what the web server wants, and sees to it that a reply is made.
//!
//! It holds a copy of the reply's descriptor and knows from the engine's reports whether a head has left. Until then it can
//! still answer by itself, whatever becomes of python; from then on it can only cut.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use link::{
    entry::{Code, Entry},
    launch::{Launch, Work},
    page::Status,
    report::{LONGEST, Report, Stop},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
    process::{Pid, Signal, kill_process, kill_process_group},
};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

use crate::{exit::Exit, request::Request, settings::Settings};

/// The lines of Python that load the engine.
const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// How long an application may take to end after it was told to. Apache kills three seconds after it has told us.
const GRACE: Duration = Duration::from_millis(1500);

/// How long python then has to write its stack to the log.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// First descriptor that is none of the standard three, which are open whenever `main` runs.
const FIRST_FREE: i32 = 3;

/// What the request comes in by and the reply goes out by.
pub(crate) struct Channels {
    /// The request body.
    pub(crate) body: OwnedFd,
    /// The reply.
    pub(crate) reply: OwnedFd,
}

impl Channels {
    /// Standard input and output: the web server's ends of a CGI request (RFC 3875 4.2, 6).
    ///
    /// # Errors
    /// If no descriptor is left to hold them.
    pub(crate) fn standard() -> io::Result<Self> {
        Ok(Self {
            body: fcntl_dupfd_cloexec(io::stdin(), FIRST_FREE)?,
            reply: fcntl_dupfd_cloexec(io::stdout(), FIRST_FREE)?,
        })
    }
}

/// Does `work` in a new python. Whatever happens to that, the reply is one, and the log says why if it is ours.
pub(crate) fn run(settings: &Settings, work: Work, request: &Request, channels: Channels) -> Exit {
    let reply = match channels.reply.try_clone() {
        Ok(reply) => reply,
        Err(error) => return request.refuse(Status::ServiceUnavailable, &no_process(settings, &error), channels.reply),
    };
    match Guard::start(settings, work, request, channels) {
        Ok(guard) => guard.watch(reply),
        Err(error) => {
            let status = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => Status::ServiceUnavailable,
                _ => Status::InternalServerError,
            };
            request.refuse(status, &no_process(settings, &error), reply)
        }
    }
}

struct Guard<'a> {
    request: &'a Request,
    settings: &'a Settings,
    child: Child,
    reports: OwnedFd,
    signals: Signals,
    started: Instant,
    seen: Seen,
    stopping: Option<Stopping>,
}

/// Signals, as bytes that can be waited for.
struct Signals {
    child: UnixStream,
    end: UnixStream,
}

/// What the engine has reported.
#[derive(Debug, Default)]
struct Seen {
    ready: bool,
    head_left: bool,
    done: Option<bool>,
    unfit: Option<String>,
}

/// A request that is being ended.
struct Stopping {
    reason: Stop,
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
    fn start(settings: &'a Settings, work: Work, request: &'a Request, channels: Channels) -> io::Result<Self> {
        let signals = Signals::register()?;
        let (reports, engines_end) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let launch = Launch {
            work,
            app: settings.app.clone(),
            sys_path: settings.sys_path.iter().map(|directory| directory.as_os_str().as_bytes().to_vec()).collect(),
            pycache_prefix: settings.pycache_prefix.as_ref().map(|directory| directory.as_os_str().as_bytes().to_vec()),
            venv: settings.interpreter.venv.clone(),
            debug: settings.debug,
            request_id: request.id.clone(),
            request: request.line(),
            form: request.form,
            timeout_seconds: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
            gateway_pid: rustix::process::getpid().as_raw_nonzero().get(),
            body_fd: channels.body.as_raw_fd(),
            reply_fd: channels.reply.as_raw_fd(),
            report_fd: engines_end.as_raw_fd(),
        };
        let frame = launch_frame(&launch)?;
        for inherited in [channels.body.as_fd(), channels.reply.as_fd(), engines_end.as_fd(), frame.as_fd()] {
            fcntl_setfd(inherited, FdFlags::empty())?;
        }
        let mut command = Command::new(&settings.interpreter.program);
        command
            .args(["-c", BOOTSTRAP])
            .arg(&settings.engine)
            .arg(frame.as_raw_fd().to_string())
            .arg(engines_end.as_raw_fd().to_string())
            .current_dir(&settings.working_directory)
            .envs(settings.variables.iter().map(|(name, value)| (name, value)))
            .envs(request.variables.iter().map(|(name, value)| (name, value)))
            // A header that HTTP clients take for a setting (CVE-2016-1000110).
            .env_remove("HTTP_PROXY")
            // Body and reply are the engine's; what the application prints goes to the log.
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            // A group of its own, so that what it has started can be ended with it.
            .process_group(0);
        let child = command.spawn()?;
        Ok(Self {
            request,
            settings,
            child,
            reports,
            signals,
            started: Instant::now(),
            seen: Seen::default(),
            stopping: None,
        })
    }

    /// Waits until python has ended, and makes good what it has left undone. `reply` is the reply's descriptor.
    fn watch(mut self, reply: OwnedFd) -> Exit {
        let mut reply = Some(reply);
        loop {
            if let Err(error) = self.wait() {
                // Only a lack of memory does this; without eyes there is nothing left but to end it.
                self.request.log(&Entry::error(Code::Internal, format!("waiting failed: {error}")));
                self.stop(Stop::Terminated);
                self.signal_group(Signal::KILL);
            }
            self.take_reports();
            if self.seen.done.is_some() {
                // The web server takes the reply for over when its last holder closes it.
                reply = None;
            }
            if self.signals.ended() {
                self.stop(Stop::Terminated);
            }
            if self.settings.timeout.is_some_and(|timeout| self.started.elapsed() >= timeout)
                && self.seen.done.is_none()
            {
                self.stop(Stop::Timeout);
            }
            self.escalate();
            if self.signals.child_changed() {
                if self.stopping.is_some() {
                    // While its leader is not reaped, the group's number is nobody else's.
                    self.signal_group(Signal::KILL);
                }
                if let Ok(Some(status)) = self.child.try_wait() {
                    // What it said last may have come after the last look.
                    self.take_reports();
                    return self.conclude(status, reply);
                }
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let now = Instant::now();
        let due = match (&self.stopping, self.settings.timeout) {
            (Some(stopping), _) => Some(stopping.due),
            (None, Some(timeout)) if self.seen.done.is_none() => Some(self.started + timeout),
            _ => None,
        };
        let patience = due
            .map(|due| Timespec::try_from(due.saturating_duration_since(now)))
            .transpose()
            .map_err(io::Error::other)?;
        let mut watched = [
            PollFd::new(&self.signals.child, PollFlags::IN),
            PollFd::new(&self.signals.end, PollFlags::IN),
            PollFd::new(&self.reports, PollFlags::IN),
        ];
        // Once the engine has closed its end there is nothing to wait for on it but its own end.
        let count = if self.seen.done.is_some() || self.seen.unfit.is_some() { 2 } else { 3 };
        match poll(&mut watched[..count], patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_reports(&mut self) {
        let mut packet = [0; LONGEST];
        while let Ok((length @ 1.., _)) = recv(&self.reports, &mut packet[..], RecvFlags::DONTWAIT) {
            match Report::decode(&packet[..length]) {
                Some(Report::Ready) => self.seen.ready = true,
                Some(Report::HeadLeaves) => self.seen.head_left = true,
                Some(Report::Done { complete }) => self.seen.done = Some(complete),
                Some(Report::Unfit(reason)) => self.seen.unfit = Some(reason),
                // Whatever else comes is not the engine's: an application may have found the descriptor.
                None => {}
            }
        }
    }

    /// Tells the engine, once, that the request is to end.
    fn stop(&mut self, reason: Stop) {
        if self.stopping.is_some() {
            return;
        }
        // If python has ended already, its end is dealt with as that.
        let _ = send(&self.reports, reason.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        self.signal(Signal::TERM);
        self.stopping = Some(Stopping { reason, next: Step::Abort, due: Instant::now() + GRACE });
    }

    fn escalate(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if Instant::now() < stopping.due {
            return;
        }
        stopping.due = Instant::now() + LAST_WORDS;
        match std::mem::replace(&mut stopping.next, Step::Kill) {
            Step::Abort => self.signal(Signal::ABORT),
            Step::Kill => self.signal_group(Signal::KILL),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended a moment ago.
            let _ = kill_process(pid, signal);
        }
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    fn conclude(self, status: ExitStatus, reply: Option<OwnedFd>) -> Exit {
        match (self.seen.done, reply) {
            (Some(true), _) => Exit::Done,
            (Some(false), _) | (None, None) => Exit::Failed,
            (None, Some(_)) if self.seen.head_left => {
                self.request.log(
                    &Entry::error(
                        Code::EndedAfterHead,
                        format!("python {} after the head of the reply had left", self.ended_how(status)),
                    )
                    .hint("the reply was cut there; look for what ended it just above, and in the system's log"),
                );
                Exit::Failed
            }
            (None, Some(reply)) => {
                let (page, entry) = self.explain(status);
                self.request.refuse(page, &entry, reply)
            }
        }
    }

    /// Status and entry for a python that ended without a reply.
    fn explain(&self, status: ExitStatus) -> (Status, Entry) {
        let how = self.ended_how(status);
        if let Some(stopping) = &self.stopping {
            return match stopping.reason {
                Stop::Timeout => (
                    Status::GatewayTimeout,
                    Entry::error(Code::TimedOut, format!("the request took longer than {} s", self.timeout_seconds()))
                        .hint("it did not react to being told; its stack may stand just above"),
                ),
                Stop::Terminated => (
                    Status::ServiceUnavailable,
                    Entry::error(Code::Terminated, format!("the web server ended the request, and python {how}"))
                        .hint("the client went away, or the web server stopped or lost its patience"),
                ),
            };
        }
        if let Some(reason) = &self.seen.unfit {
            return (
                Status::InternalServerError,
                Entry::error(
                    Code::UnfitEngine,
                    format!(
                        "the engine `{}` does not work in `{}`: {reason}",
                        self.settings.engine.display(),
                        self.settings.interpreter.program.display()
                    ),
                )
                .hint(
                    "it needs CPython 3.9 or later and the gateway of the same build; install both with `make install`",
                ),
            );
        }
        let python = self.settings.interpreter.program.display();
        if !self.seen.ready {
            return (
                Status::InternalServerError,
                Entry::error(Code::PythonEnded, format!("`{python}` {how} before the engine was loaded"))
                    .hint(format!("see what `{python} -c pass` says to the user that the request runs as")),
            );
        }
        match status.signal() {
            Some(signal) => (
                Status::BadGateway,
                Entry::error(Code::ProcessKilled, format!("python {how} before it replied")).hint(
                    match Signal::from_named_raw(signal) {
                        Some(Signal::KILL) => {
                            "the system may have run out of memory, or a limit was reached: look at its log"
                        }
                        _ => "a C extension crashed, most likely; the Python stack stands just above",
                    },
                ),
            ),
            None => (
                Status::InternalServerError,
                Entry::error(Code::ProcessEnded, format!("python {how} before it replied"))
                    .hint("the application, or a library it uses, called `os._exit`"),
            ),
        }
    }

    fn ended_how(&self, status: ExitStatus) -> String {
        let after = self.started.elapsed().as_millis();
        match status.signal() {
            Some(signal) => format!("was killed by {} after {after} ms", signal_name(signal)),
            None => format!("exited with status {} after {after} ms", status.code().unwrap_or(-1)),
        }
    }

    fn timeout_seconds(&self) -> u64 {
        self.settings.timeout.map_or(0, |timeout| timeout.as_secs())
    }
}

impl Signals {
    fn register() -> io::Result<Self> {
        let (child, childs_end) = UnixStream::pair()?;
        let (end, ends_end) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        end.set_nonblocking(true)?;
        pipe::register(SIGCHLD, childs_end)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, ends_end.try_clone()?)?;
        }
        Ok(Self { child, end })
    }

    fn child_changed(&self) -> bool {
        Self::drain(&self.child)
    }

    fn ended(&self) -> bool {
        Self::drain(&self.end)
    }

    fn drain(stream: &UnixStream) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut &*stream, &mut bytes), Ok(1..))
    }
}

fn launch_frame(launch: &Launch) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("wsgate-launch", MemfdFlags::CLOEXEC)?);
    file.write_all(&launch.encode().map_err(io::Error::other)?)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

fn no_process(settings: &Settings, error: &io::Error) -> Entry {
    let hint = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::TOOBIG) => {
            "the variables of the request are too large together: lower the web server's limits on headers"
        }
        Some(Errno::AGAIN) => {
            "this user has as many processes as it may have: raise the limit, or serve fewer requests at once"
        }
        Some(Errno::NOEXEC) => "it is no program for this machine",
        _ => "see whether this user can run it from a shell",
    };
    Entry::error(Code::NoProcess, format!("`{}` could not be started: {error}", settings.interpreter.program.display()))
        .hint(hint)
}

fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}
