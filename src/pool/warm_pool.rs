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
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{EventfdFlags, eventfd},
    process::setsid,
};
use wire::{
    jitter::with_jitter,
    launch::{Preload, Service},
    scoreboard::Scoreboard,
};

use crate::{
    config::{options::Mode, warm_pool::FAILED},
    exit::{CommandError, Exit},
    pool::{
        args::WarmPoolArgs,
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

/// Serves until nobody has asked for anything for a while.
///
/// # Errors
/// If it cannot begin.
pub(crate) fn run(args: &WarmPoolArgs) -> Result<Exit, CommandError> {
    // What the web server does to its own group is not meant for us. One that leads a session
    // already has that.
    let _ = setsid();
    let ended = serve(args);
    if !matches!(ended, Ok(Exit::Success)) {
        // The next requests are not to try the same again at once.
        let mut lock = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(cannot_begin)?);
        if lock.metadata().is_ok_and(|found| found.len() == 0) {
            let _ = lock.write_all(FAILED);
        }
    }
    ended
}

fn serve(args: &WarmPoolArgs) -> Result<Exit, CommandError> {
    let spec = &args.spec;
    let mut origin = Origin::of(spec.app.clone(), spec.options.clone(), spec.base().to_owned());
    let mut settings = origin.resolve().map_err(CommandError::settings)?;
    origin.hold_engine(&mut settings);
    let listeners = vec![Listener::handoff(spec.socket()).map_err(|error| {
        CommandError::failed(
            LogMessage::error(
                Code::NoWarmPool,
                format!("`{}` cannot be listened at: {error:#}", spec.socket().display()),
            )
            .hint(
                "set WSGATE_RUNTIME_DIR to a directory with a short path that this user alone may \
                 enter",
            ),
        )
    })?];
    let pool = &spec.options.warm;
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
            resident: spec.options.mode.mode == Mode::Resident,
            ..service(&settings, &listeners, &scoreboard_fd)
        },
        logs: Logs::none(),
        least: SPARES.min(pool.max_processes),
        idle: SPARE_IDLE,
        name: args.name.clone(),
        drain: DRAIN,
        linger: settings.timeout.unwrap_or(LINGER),
        watched: spec.stops_on.clone(),
        origin,
        slow: None,
        slots: 1,
        on_demand: Some(OnDemand {
            idle: Duration::from_secs(pool.warm_idle),
            age: Some(pool.warm_age)
                .filter(|&seconds| seconds > 0)
                .map(|age| Duration::from_secs(with_jitter(age))),
            lock: spec.socket().with_extension("lock"),
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
