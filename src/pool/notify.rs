//! Notifications to a service manager (sd_notify(3)): ready, reloading, stopping, status and
//! watchdog.
//!
//! The supervisor never blocks on the manager. A message that the manager does not take is sent
//! again later; a late watchdog message is skipped.

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

/// Pause before an unsent message is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Time that the stop of a pool may take beyond its own limits.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// State of the pool for the service manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManagedState {
    /// The application was loaded, and requests get responses.
    pub(super) serves: bool,
    /// The pool is stopping.
    pub(super) is_stopping: bool,
    /// Number of workers.
    pub(super) workers: usize,
    /// How often code was loaded.
    pub(super) generation: u64,
}

/// Connection to the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: Option<ManagerSocket>,
    /// How long the pool may take to stop: its workers for their requests, and then the template
    /// process for its exit.
    stop_limit: Duration,
    announced: Announced,
    last_reload_failed: bool,
    /// The last status that was sent.
    status: String,
    watchdog: Option<Watchdog>,
    unsent: VecDeque<String>,
    /// Log message about a failure, until it is returned once.
    failure: Option<LogMessage>,
}

#[derive(Debug)]
struct ManagerSocket {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The value of `NOTIFY_SOCKET`.
    name: OsString,
}

/// State of the last announcement to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announced {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// Watchdog messages that the manager expects (sd_watchdog_enabled(3)).
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    interval: Duration,
    /// Time by the manager's clock, which also counts while this process is stopped.
    due: Instant,
}

impl Notifier {
    /// Connects to the manager that `NOTIFY_SOCKET` names, for a pool that stops within
    /// `stop_limit`.
    pub(super) fn from_environment(stop_limit: Duration) -> Self {
        let mut notifier = Self {
            socket: None,
            stop_limit,
            announced: Announced::Starting,
            last_reload_failed: false,
            status: String::new(),
            watchdog: None,
            unsent: VecDeque::new(),
            failure: None,
        };
        if let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            match ManagerSocket::connect(&name) {
                Ok(socket) => {
                    notifier.socket = Some(socket);
                    notifier.watchdog = watchdog_timeout()
                        .map(|timeout| Watchdog { interval: timeout / 2, due: Instant::now() });
                }
                Err(error) => notifier.failure = Some(cannot_notify(&name, &error)),
            }
        }
        notifier
    }

    /// Goes on with a reload that the previous program of this process has announced.
    pub(super) fn continue_reload(&mut self) {
        self.announced = Announced::Reloading;
    }

    /// The pool stops within `stop_limit` from now on.
    pub(super) fn set_stop_limit(&mut self, stop_limit: Duration) {
        self.stop_limit = stop_limit;
    }

    /// Announces a reload. Call this for every request to reload: the manager compares its time.
    pub(super) fn announce_reload(&mut self) {
        if matches!(self.announced, Announced::Ready | Announced::Reloading) {
            self.announced = Announced::Reloading;
            let now = clock_gettime(ClockId::Monotonic);
            let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
            self.send(format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\n"));
        }
    }

    /// Announces the end of a reload.
    pub(super) fn announce_reloaded(&mut self, is_done: bool) {
        self.last_reload_failed = !is_done;
        if self.announced == Announced::Reloading {
            self.announced = Announced::Ready;
            self.send("READY=1\n".to_owned());
        }
    }

    /// Announces what has changed, and sends the watchdog message if it is due. Call this in every
    /// turn of the supervisor's loop: missing watchdog messages reveal a loop that hangs. Returns a
    /// log message, once, if the manager cannot be notified.
    pub(super) fn update(&mut self, state: ManagedState) -> Option<LogMessage> {
        if self.socket.is_some() {
            if state.is_stopping && self.announced != Announced::Stopping {
                self.announced = Announced::Stopping;
                // Otherwise the manager would kill the pool after its own timeout.
                let timeout = (self.stop_limit + STOP_MARGIN).as_micros();
                self.send(format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={timeout}\n"));
            } else if state.serves && self.announced == Announced::Starting {
                self.announced = Announced::Ready;
                self.send("READY=1\n".to_owned());
            }
            self.send_unsent();
            let status = self.status_line(state);
            if self.unsent.is_empty() && status != self.status {
                self.send(format!("STATUS={status}\n"));
                self.status = status;
            }
            if let Some(watchdog) =
                self.watchdog.as_mut().filter(|watchdog| watchdog.due <= Instant::now())
            {
                watchdog.due = Instant::now() + watchdog.interval;
                if self.unsent.is_empty() {
                    self.send("WATCHDOG=1\n".to_owned());
                }
            }
        }
        self.failure.take()
    }

    /// Time of the next message that no event triggers.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let now = running_clock::instant();
        let retry = (!self.unsent.is_empty()).then(|| now + RETRY_PAUSE);
        let watchdog = self.watchdog.map(|it| it.due.saturating_duration_since(Instant::now()));
        watchdog.map(|wait| now + wait).into_iter().chain(retry).min()
    }

    fn status_line(&self, state: ManagedState) -> String {
        let workers = if state.workers == 1 {
            "1 worker".to_owned()
        } else {
            format!("{} workers", state.workers)
        };
        let serves = format!("{workers}, generation {}", state.generation);
        match self.announced {
            Announced::Starting => "loading the application".to_owned(),
            Announced::Ready if self.last_reload_failed => {
                format!("{serves}; the last reload failed")
            }
            Announced::Ready => serves,
            Announced::Reloading => format!("{serves}; loading new code"),
            Announced::Stopping => "stopping; workers finish their requests".to_owned(),
        }
    }

    fn send(&mut self, message: String) {
        if self.socket.is_some() {
            self.unsent.push_back(message);
            self.send_unsent();
        }
    }

    /// Sends unsent messages, as far as the manager takes them.
    fn send_unsent(&mut self) {
        while let (Some(manager), Some(message)) = (&self.socket, self.unsent.front()) {
            match manager.socket.send_to_addr(message.as_bytes(), &manager.address) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) => drop(self.unsent.pop_front()),
                Err(error) => {
                    self.failure = Some(cannot_notify(&manager.name, &error));
                    self.socket = None;
                    self.watchdog = None;
                    self.unsent.clear();
                }
            }
        }
    }
}

impl ManagerSocket {
    fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::other("it is neither a path nor `@` and a name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, name: name.to_owned() })
    }
}

/// The watchdog timeout of this process, if the manager has set one.
fn watchdog_timeout() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID") == Some(process::id().into());
    number("WATCHDOG_USEC")
        .filter(|&microseconds| is_ours && microseconds > 0)
        .map(Duration::from_micros)
}

fn cannot_notify(name: &OsStr, error: &io::Error) -> LogMessage {
    LogMessage::new(
        Code::NotifyFailed,
        format!("cannot notify the service manager at `{}`: {error}", name.display()),
    )
    .hint("unset NOTIFY_SOCKET if no service manager waits for wsgate")
}
