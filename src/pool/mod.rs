//! The FastCGI pool: listening sockets, and the processes that serve them. Runs no Python and reads no FastCGI.

pub(crate) mod ask;
mod control;
mod listen;
mod supervisor;
mod template;
mod watch;
pub(crate) mod words;

use std::{
    ffi::OsStr,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    thread,
    time::Duration,
};

use link::{
    app::{App, Source},
    entry::{Code, Entry},
    launch::{Service, Work},
    scoreboard::Scoreboard,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{
    exit::{Complaint, Exit},
    options::Options,
    request::Request,
    script_line,
    settings::{Settings, application},
    start::Start,
};
pub(crate) use listen::stdin_listens;
use listen::{Access, Address, Listener};
use supervisor::{SLOTS, Shared, Supervisor, Terms};
use words::Fastcgi;

/// Serves a pool until it is told to end.
///
/// # Errors
/// If it cannot begin.
pub(crate) fn run(words: &Fastcgi) -> Result<Exit, Complaint> {
    let (app, base) = application(&words.app).map_err(Complaint::usage)?;
    let settings = script_line::complete(words.options.clone(), &app, &base)
        .and_then(|options| Settings::resolve(&options, app, &base))
        .map_err(Complaint::settings)?;
    let bad_address = |error: anyhow::Error| {
        Complaint::settings(
            Entry::error(Code::BadListener, format!("{error:#}"))
                .hint("`wsgate fastcgi --help` shows the forms of --listen"),
        )
    };
    let access = Access::new(words.socket_mode, words.socket_owner.as_deref()).map_err(bad_address)?;
    let listeners = words
        .listen
        .iter()
        .map(|address| Listener::open(address, &access))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad_address)?;
    let inherited = words.listen.iter().all(|address| *address == Address::StandardInput);
    let workers = words.workers.unwrap_or_else(|| if inherited { 1 } else { processors() });
    let workers = words.max.unwrap_or(workers);
    let least = if words.max.is_some() { words.min } else { workers };
    if least > workers {
        return Err(Complaint::settings(
            Entry::error(Code::BadSetting, format!("--min {least} is more than --max {workers}"))
                .hint("--min is the number of workers that stay when there is no work"),
        ));
    }
    // Whoever gave us the socket manages processes already, unless more is wished for.
    let alone = inherited && workers == 1 && words.max.is_none();
    let slots = if alone { 1 } else { u64::from(workers) * u64::from(SLOTS) };
    let lines = usize::try_from(slots * u64::from(words.threads)).unwrap_or(1);
    let (scoreboard, scoreboard_fd) = Scoreboard::create(lines).map_err(cannot_begin)?;
    let service = Service {
        workers,
        threads: words.threads,
        max_requests: words.max_requests,
        max_age: words.max_age,
        max_rss: words.max_rss,
        ..service(&listeners, &scoreboard_fd)
    };
    if alone {
        return Err(become_worker(&settings, service, &listeners, &scoreboard_fd));
    }
    let bell =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| cannot_begin(error.into()))?;
    let terms = Terms {
        service: Service { bell_fd: Some(bell.as_raw_fd()), ..service },
        least,
        idle: Duration::from_secs(words.idle),
        name: words.name.clone().unwrap_or_else(|| name_of(&settings.app)),
        drain: Duration::from_secs(words.drain),
        slow: words.slow.filter(|&seconds| seconds > 0).map(Duration::from_secs),
    };
    Supervisor::new(&settings, terms, listeners, Shared { scoreboard, scoreboard_fd, bell })
        .map_err(cannot_begin)?
        .run()
}

/// Serves the socket on standard input with `script`, as mod_fcgid, lighttpd and spawn-fcgi expect it.
///
/// # Errors
/// If it cannot; this process is another when it can.
pub(crate) fn serve_standard_input(app: App, options: &Options, base: &Path) -> Complaint {
    let settings = match Settings::resolve(options, app, base) {
        Ok(settings) => settings,
        Err(entry) => return Complaint::settings(entry),
    };
    let access = Access { mode: 0o600, owner: (None, None) };
    match Listener::open(&Address::StandardInput, &access) {
        Ok(listener) => {
            let listeners = [listener];
            match Scoreboard::create(1) {
                Ok((_, scoreboard)) => {
                    become_worker(&settings, service(&listeners, &scoreboard), &listeners, &scoreboard)
                }
                Err(error) => cannot_begin(error),
            }
        }
        Err(error) => Complaint::settings(
            Entry::error(Code::BadListener, format!("{error:#}")).hint("start it by the web server's process manager"),
        ),
    }
}

/// What one worker does that has one thread and no limits.
fn service(listeners: &[Listener], scoreboard: &OwnedFd) -> Service {
    Service {
        listeners: listeners.iter().map(|listener| listener.socket.as_raw_fd()).collect(),
        threads: 1,
        workers: 1,
        max_requests: 0,
        max_age: 0,
        max_rss: 0,
        scoreboard_fd: scoreboard.as_raw_fd(),
        bell_fd: None,
    }
}

/// Makes this process the worker. Returns only if that fails.
fn become_worker(settings: &Settings, service: Service, listeners: &[Listener], scoreboard: &OwnedFd) -> Complaint {
    let inherited: Vec<_> =
        listeners.iter().map(|listener| listener.socket.as_fd()).chain([scoreboard.as_fd()]).collect();
    let request = Request::made("pool", &settings.app.to_string(), Vec::new());
    match Start::new(settings, Work::Worker(service), &request, &inherited) {
        // The process group is the process manager's to choose.
        Ok(mut start) => cannot_begin(start.command.exec()),
        Err(error) => cannot_begin(error),
    }
}

fn cannot_begin(error: std::io::Error) -> Complaint {
    Complaint::failed(
        Entry::error(Code::NoProcess, format!("the pool cannot begin: {error}"))
            .hint("see whether this user can run python from a shell"),
    )
}

/// The name of a pool that is given none: that of its file or module.
fn name_of(app: &App) -> String {
    let whole = match &app.source {
        Source::File(path) => {
            Path::new(OsStr::from_bytes(path)).file_stem().unwrap_or_default().to_string_lossy().into_owned()
        }
        Source::Module(name) => name.clone(),
    };
    let plain = whole.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' });
    plain.take(40).collect()
}

fn processors() -> u32 {
    thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok()).unwrap_or(1)
}
