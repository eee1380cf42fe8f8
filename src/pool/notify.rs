//! What a service manager is told (sd_notify(3)): that the pool serves, reloads, ends, and that the
//! supervisor is alive.
//!
//! It is never waited for: what it does not take is sent again at a later look, and a sign of life
//! that is late anyhow is left out.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::time::{ClockId, clock_gettime};
use wire::running_clock;

/// Wait until a manager that could not take a message is told again.
const A_MOMENT: Duration = Duration::from_millis(50);

/// What the end of a pool may take beyond the time that requests have.
const TO_TIDY_UP: Duration = Duration::from_secs(5);

/// How the pool is, as far as a service manager is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The application has been loaded, and connections are answered.
    pub(super) serves: bool,
    /// It ends.
    pub(super) stopping: bool,
    /// Workers that are there.
    pub(super) workers: usize,
    /// How often code was loaded.
    pub(super) generation: u64,
}

/// The line to a service manager, if there is one.
#[derive(Debug)]
pub(super) struct Notify {
    line: Option<Line>,
    /// How long requests have when the pool ends.
    drain: Duration,
    phase: Phase,
    last_reload_failed: bool,
    /// The status that was sent last.
    status: String,
    watchdog: Option<Watchdog>,
    unsent: VecDeque<String>,
    /// Why it cannot be told, until that is logged.
    trouble: Option<LogMessage>,
}

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    manager: SocketAddr,
    /// As the environment has it.
    name: OsString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Reloading,
    Stopping,
}

/// Signs of life that a manager waits for (sd_watchdog_enabled(3)).
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every: Duration,
    /// By the clock of the manager, which goes on while this process is stopped.
    due: Instant,
}

impl Notify {
    /// The line that the environment names (`NOTIFY_SOCKET`), for a pool whose requests have
    /// `drain` when it ends.
    pub(super) fn from_environment(drain: Duration) -> Self {
        let mut notify = Self {
            line: None,
            drain,
            phase: Phase::Starting,
            last_reload_failed: false,
            status: String::new(),
            watchdog: None,
            unsent: VecDeque::new(),
            trouble: None,
        };
        if let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            match Line::to(&name) {
                Ok(line) => {
                    notify.line = Some(line);
                    notify.watchdog = watchdog()
                        .map(|patience| Watchdog { every: patience / 2, due: Instant::now() });
                }
                Err(error) => notify.trouble = Some(cannot_be_told(&name, &error)),
            }
        }
        notify
    }

    /// New code is about to be loaded. To be told whenever that is asked for, since the manager
    /// looks at the time.
    pub(super) fn reloading(&mut self) {
        if matches!(self.phase, Phase::Serving | Phase::Reloading) {
            self.phase = Phase::Reloading;
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
            self.say(format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
        }
    }

    /// New code was loaded, or could not be.
    pub(super) fn reloaded(&mut self, is_done: bool) {
        self.last_reload_failed = !is_done;
        if self.phase == Phase::Reloading {
            self.phase = Phase::Serving;
            self.say("READY=1\n".to_owned());
        }
    }

    /// Tells what is new about the pool. To be called at every turn of the supervisor's loop: a
    /// loop that hangs is noticed by the signs of life that are missing. Gives, once, why the
    /// manager cannot be told.
    pub(super) fn tell(&mut self, state: State) -> Option<LogMessage> {
        if self.line.is_some() {
            if state.stopping && self.phase != Phase::Stopping {
                self.phase = Phase::Stopping;
                // Else the manager would end requests by its own clock.
                let patience = (self.drain + TO_TIDY_UP).as_micros();
                self.say(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={patience}\n"));
            } else if state.serves && self.phase == Phase::Starting {
                self.phase = Phase::Serving;
                self.say("READY=1\n".to_owned());
            }
            self.send();
            let status = self.status_of(state);
            if self.unsent.is_empty() && status != self.status {
                self.say(format!("STATUS={status}\n"));
                self.status = status;
            }
            if let Some(watchdog) =
                self.watchdog.as_mut().filter(|watchdog| watchdog.due <= Instant::now())
            {
                watchdog.due = Instant::now() + watchdog.every;
                if self.unsent.is_empty() {
                    self.say("WATCHDOG=1\n".to_owned());
                }
            }
        }
        self.trouble.take()
    }

    /// When to tell something though nothing happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let now = running_clock::instant();
        let again = (!self.unsent.is_empty()).then(|| now + A_MOMENT);
        let watchdog =
            self.watchdog.map(|it| now + it.due.saturating_duration_since(Instant::now()));
        watchdog.into_iter().chain(again).min()
    }

    fn status_of(&self, state: State) -> String {
        let workers = if state.workers == 1 {
            "1 worker".to_owned()
        } else {
            format!("{} workers", state.workers)
        };
        let serves = format!("{workers}, generation {}", state.generation);
        match self.phase {
            Phase::Starting => "loading the application".to_owned(),
            Phase::Serving if self.last_reload_failed => {
                format!("{serves}; the last reload failed")
            }
            Phase::Serving => serves,
            Phase::Reloading => format!("{serves}; loading new code"),
            Phase::Stopping => "ending; workers finish their requests".to_owned(),
        }
    }

    fn say(&mut self, words: String) {
        if self.line.is_some() {
            self.unsent.push_back(words);
            self.send();
        }
    }

    /// Sends what there is to send, as far as the manager takes it.
    fn send(&mut self) {
        while let (Some(line), Some(words)) = (&self.line, self.unsent.front()) {
            match line.socket.send_to_addr(words.as_bytes(), &line.manager) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) => drop(self.unsent.pop_front()),
                Err(error) => {
                    self.trouble = Some(cannot_be_told(&line.name, &error));
                    self.line = None;
                    self.watchdog = None;
                    self.unsent.clear();
                }
            }
        }
    }
}

impl Line {
    fn to(name: &OsStr) -> io::Result<Self> {
        let manager = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it is neither a path nor `@` and a name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, manager, name: name.to_owned() })
    }
}

/// How long the manager waits for a sign of life of this very process, if it does.
fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID") == Some(process::id().into());
    number("WATCHDOG_USEC")
        .filter(|&microseconds| is_ours && microseconds > 0)
        .map(Duration::from_micros)
}

fn cannot_be_told(name: &OsStr, error: &io::Error) -> LogMessage {
    LogMessage::warning(
        Code::NotifyFailed,
        format!("the service manager at `{}` cannot be told anything: {error}", name.display()),
    )
    .hint("start wsgate without the variable NOTIFY_SOCKET if no service manager waits for it")
}
