//! The pool behind `--mode warm`: the first request starts it, and each of its workers serves one
//! CGI request, or many with `--mode resident`.
//!
//! Standard input is the pool's lock file, locked by the gateway that starts the pool. While the
//! file is locked, no gateway starts another pool.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    rc::Rc,
    time::Duration,
};

use clap::Args;
use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{EventfdFlags, eventfd},
    process::setsid,
};
use wire::{
    jitter::with_jitter,
    launch::{Preload, Service},
    scoreboard::Scoreboard,
    stacks_file,
};

use crate::{
    config::{
        options::Mode,
        settings::{Settings, default_pool_name},
        warm_pool::{FAILED, WarmPoolSpec},
        worker_budget::MAX_DEFAULT_WARM_WORKERS,
    },
    exit::{CommandError, Exit},
    pool::{
        args::name,
        code_source::CodeSource,
        listeners::Listener,
        logs::Logs,
        service::{cannot_start, service},
        startup_warnings::{log, warn_of_missing_paths},
        supervisor::{OnDemand, PoolConfig, PoolResources, ReloadableConfig, Sockets, Supervisor},
        worker_count,
    },
    request::Request,
};

/// Spare workers, which wait for requests.
const MIN_WORKERS: u32 = 2;

/// How long an idle worker above [`MIN_WORKERS`] is kept.
const WORKER_IDLE_TIME: Duration = Duration::from_secs(10);

/// How long workers may finish requests when the pool stops. Their gateways enforce `--timeout`.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a process may take to exit after its last request, if there is no `--timeout`.
const DEFAULT_LINGER: Duration = Duration::from_secs(30);

/// The arguments of `wsgate warm-pool`, which gateways alone start.
#[derive(Args, Clone, Debug)]
pub(crate) struct WarmPoolArgs {
    /// Name of the pool for `wsgate status`
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: String,

    /// Description of the pool as JSON
    #[arg(value_name = "SPEC", value_parser = WarmPoolSpec::parse)]
    pub(crate) spec: WarmPoolSpec,
}

/// Runs a warm pool until it is idle or too old.
///
/// # Errors
/// If the pool cannot start.
pub(crate) fn run(args: &WarmPoolArgs) -> Result<Exit, CommandError> {
    // Signals to the web server's process group are not meant for the pool. A session leader has a
    // group of its own already.
    let _ = setsid();
    let ended = serve(args);
    if !matches!(ended, Ok(Exit::Success)) {
        // Prevents gateways from trying again at once.
        let mut lock = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(cannot_start)?);
        if lock.metadata().is_ok_and(|found| found.len() == 0) {
            let _ = lock.write_all(FAILED);
        }
    }
    ended
}

fn serve(args: &WarmPoolArgs) -> Result<Exit, CommandError> {
    let spec = &args.spec;
    let mut code = CodeSource::of(spec.app.clone(), spec.options.clone(), spec.base().to_owned());
    let mut settings = code.resolve().map_err(CommandError::settings)?;
    // Requests of the pool have the same name in the log as cold ones.
    settings.logging.apply_to_pool(default_pool_name(None, &settings.app));
    warn_of_missing_paths(&settings);
    code.hold_engine(&mut settings);
    let listener = Listener::for_warm_requests(spec.socket()).map_err(|error| {
        CommandError::failed(
            LogMessage::new(
                Code::WarmPoolFailed,
                format!("cannot listen at `{}`: {error:#}", spec.socket().display()),
            )
            .hint(
                "set WSGATE_RUNTIME_DIR to a directory with a short path that only this user can \
                 enter",
            ),
        )
    })?;
    let options = &spec.options.warm;
    let max_workers = options.max_processes.unwrap_or(MAX_DEFAULT_WARM_WORKERS);
    let warning = options
        .max_processes
        .and_then(|workers| worker_count::check_limits("max-processes", workers, 1));
    warning.iter().for_each(|message| log(&settings, message));
    let lines = usize::try_from(max_workers).unwrap_or(1);
    let (scoreboard, scoreboard_fd) = Scoreboard::create(lines).map_err(cannot_start)?;
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| cannot_start(error.into()))?;
    let stacks_file = stacks_file::create().map_err(cannot_start)?;
    let listeners = vec![listener];
    let service = Service {
        workers: max_workers,
        preload: Preload::Auto,
        bell_fd: Some(bell.as_raw_fd()),
        stacks_fd: Some(stacks_file.as_raw_fd()),
        warm: true,
        resident: spec.options.mode.mode == Mode::Resident,
        ..service(&settings, &listeners, &scoreboard_fd)
    };
    let request = Request::of_pool(&settings.app);
    let config = PoolConfig {
        name: args.name.clone(),
        reloadable: ReloadableConfig {
            service,
            min_workers: worker_count::spare_workers(MIN_WORKERS.min(max_workers)),
            idle: WORKER_IDLE_TIME,
            drain: DRAIN_TIMEOUT,
            linger: settings.timeout.unwrap_or(DEFAULT_LINGER),
            reload_on: spec.stops_on.clone(),
            code,
            slow: None,
            // The gateways enforce --timeout.
            settings: Settings { timeout: None, ..settings },
        },
        reader: None,
        blocks_per_worker: 1,
        grows_within_limits: options.max_processes.is_none(),
        listen: Default::default(),
        on_demand: Some(OnDemand {
            idle: Duration::from_secs(options.warm_idle),
            max_age: Some(options.warm_age)
                .filter(|&seconds| seconds > 0)
                .map(|age| Duration::from_secs(with_jitter(age))),
            lock: spec.socket().with_extension("lock"),
        }),
    };
    let resources = PoolResources {
        scoreboard: Rc::new(scoreboard),
        scoreboard_fd,
        bell,
        stacks_file: Rc::new(stacks_file),
        sockets: Sockets::new(listeners, None),
        request_queue: None,
        status_server: None,
        logs: Logs::none(),
        request,
    };
    Supervisor::new(config, resources).map_err(cannot_start)?.run()
}
