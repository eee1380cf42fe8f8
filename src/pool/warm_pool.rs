//! The pool behind `--mode warm`: a dynamic pool that the first request starts, whose workers are
//! forked ahead and each serve one CGI request.
//!
//! Standard input is the pool's lock file, locked by whoever started it: until the supervisor lets
//! go of it, or has ended, nobody starts another.

use std::{
    fs::File,
    io::{
        Write as _, {self},
    },
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{EventfdFlags, eventfd},
    process::setsid,
};
use wire::{
    app::App,
    jitter::with_jitter,
    launch::{Preload, Service},
    scoreboard::Scoreboard,
};

use crate::{
    config::options::Options,
    exit::{Complaint, Exit},
    pool::{
        cannot_begin,
        code_source::Origin,
        listeners::Listener,
        logs::Logs,
        service,
        supervisor::{OnDemand, Shared, Supervisor, Terms},
    },
};

/// Spare processes that wait for requests.
const SPARES: u32 = 2;

/// How long a spare process above [`SPARES`] stays without work.
const SPARE_IDLE: Duration = Duration::from_secs(10);

/// How long workers may take to finish when the pool ends. Their gateways watch over them.
const DRAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a process may take to end after its request, or a template after its processes, where
/// nothing is said of how long a request may take.
const LINGER: Duration = Duration::from_secs(30);

/// What stands in the lock file of a pool that could not begin.
pub(crate) const FAILED: &[u8] = b"failed\n";

/// What stands there if one process at a time may have what the application opens while it is
/// loaded.
pub(crate) const ONE_PROCESS: &[u8] = b"one process\n";

/// What a warm pool is started with, by a gateway and by nobody else.
#[derive(Args, Clone, Debug)]
pub(crate) struct Words {
    #[command(flatten)]
    options: Options,

    /// Where to listen
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// What `wsgate status` calls it
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What relative paths are taken from
    #[arg(long, value_name = "DIR")]
    base: PathBuf,

    /// Its processes stay after a request
    #[arg(long)]
    resident: bool,

    /// File whose change ends it (repeatable)
    #[arg(long, value_name = "PATH")]
    ends_on: Vec<PathBuf>,

    /// The application, as JSON
    #[arg(value_name = "APP")]
    app: String,
}

/// Serves until nobody has asked for anything for a while.
///
/// # Errors
/// If it cannot begin.
pub(crate) fn run(words: &Words) -> Result<Exit, Complaint> {
    // What the web server does to its own group is not meant for us. One that leads a session
    // already has that.
    let _ = setsid();
    let ended = serve(words);
    if !matches!(ended, Ok(Exit::Done)) {
        // The next requests are not to try the same again at once.
        let mut lock = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(cannot_begin)?);
        if lock.metadata().is_ok_and(|found| found.len() == 0) {
            let _ = lock.write_all(FAILED);
        }
    }
    ended
}

fn serve(words: &Words) -> Result<Exit, Complaint> {
    let app: App = serde_json::from_str(&words.app).map_err(|error| {
        Complaint::usage(
            LogMessage::error(Code::BadSetting, format!("the application cannot be read: {error}"))
                .hint(
                    "warm pools are started by requests, with `--mode warm` on the `#!` line of \
                    a script",
                ),
        )
    })?;
    let mut origin = Origin::of(app, words.options.clone(), words.base.clone());
    let mut settings = origin.resolve().map_err(Complaint::settings)?;
    origin.hold_engine(&mut settings);
    let listeners = vec![Listener::handoff(&words.socket).map_err(|error| {
        Complaint::failed(
            LogMessage::error(
                Code::NoWarmPool,
                format!("`{}` cannot be listened at: {error:#}", words.socket.display()),
            )
            .hint(
                "set WSGATE_RUNTIME_DIR to a directory with a short path that this user alone may \
                 enter",
            ),
        )
    })?];
    let pool = &words.options.warm;
    let (scoreboard, scoreboard_fd) =
        Scoreboard::create(usize::try_from(pool.max_processes).unwrap_or(1))
            .map_err(cannot_begin)?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| cannot_begin(error.into()))?;
    let terms = Terms {
        service: Service {
            workers: pool.max_processes,
            preload: Preload::Auto,
            bell_fd: Some(bell.as_raw_fd()),
            warm: true,
            resident: words.resident,
            ..service(&settings, &listeners, &scoreboard_fd)
        },
        logs: Logs::none(),
        least: SPARES.min(pool.max_processes),
        idle: SPARE_IDLE,
        name: words.name.clone(),
        drain: DRAIN,
        linger: settings.timeout.unwrap_or(LINGER),
        watched: words.ends_on.clone(),
        origin,
        slow: None,
        slots: 1,
        on_demand: Some(OnDemand {
            idle: Duration::from_secs(pool.warm_idle),
            age: Some(pool.warm_age)
                .filter(|&seconds| seconds > 0)
                .map(|age| Duration::from_secs(with_jitter(age))),
            lock: words.socket.with_extension("lock"),
        }),
    };
    // The gateways count the time of their requests.
    let settings = crate::config::settings::Settings { timeout: None, ..settings };
    Supervisor::new(
        &settings,
        terms,
        listeners,
        Shared { scoreboard, scoreboard_fd, bell, handover: None },
    )
    .map_err(cannot_begin)?
    .run()
}
