//! The FastCGI pool: listening sockets, and the processes that serve them. Runs no Python, and
//! reads FastCGI only to refuse requests that nobody can serve.

mod allowed_addresses;
pub(crate) mod args;
mod code_source;
pub(crate) mod commands;
mod control;
mod control_client;
mod error_log;
mod file_changes;
mod file_owner;
mod inherited;
mod listeners;
mod logs;
mod notify;
mod refuser;
mod supervisor;
mod template;
pub(crate) mod warm_pool;

use std::{
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    thread,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use wire::{
    app::App,
    connection_queue::ConnectionQueue,
    launch::{Preload, Service, Work},
    scoreboard::Scoreboard,
};

use rustix::event::{EventfdFlags, eventfd};

pub(crate) use crate::pool::listeners::stdin_listens;
use crate::{
    config::{
        options::ScriptOptions,
        settings::{Settings, default_pool_name},
    },
    exit::{CommandError, Exit},
    guard::{start::Start, start_error},
    pool::{
        args::{DEFAULT_DRAIN_SECS, FastcgiArgs},
        code_source::Origin,
        file_owner::Maker,
        inherited::Inherited,
        listeners::{Access, Address, Listener},
        logs::Logs,
        supervisor::{Shared, Supervisor, Terms},
    },
    python::engine,
    request::Request,
    system::{
        account::Account,
        runtime_directory,
        trusted_path::{Untrusted, is_real_root},
    },
};

/// Slots for each worker of a pool: its own, and that of the one that it replaces.
const SLOTS: u32 = 2;

/// The least time that a worker has for its end once it serves nobody any more.
const LEAST_LINGER: Duration = Duration::from_secs(1);

/// Serves a pool until it is asked to stop.
///
/// # Errors
/// If it cannot begin.
pub(crate) fn run(args: &FastcgiArgs) -> Result<Exit, CommandError> {
    let options = &args.pool;
    let origin = Origin::new(&args.app, &args.script_options()).map_err(CommandError::usage)?;
    let account = options.user.as_deref().map(|user| Account::find(user, options.group.as_deref()));
    let account = account.transpose().map_err(CommandError::settings)?;
    let maker = Maker::new(account.as_ref());
    let bad_address = |error: anyhow::Error| {
        if error.downcast_ref().is_some_and(Untrusted::is_cause_of) {
            return CommandError::settings(crate::pool::logs::untrusted(format!("{error:#}")));
        }
        CommandError::settings(
            LogMessage::error(Code::BadListener, format!("{error:#}"))
                .hint("`wsgate fastcgi --help` shows the forms of --listen"),
        )
    };
    let mut inherited = Inherited::take(&options.listen).map_err(bad_address)?;
    let access =
        Access::new(options.socket_mode.0, options.socket_owner.as_deref()).map_err(|error| {
            CommandError::settings(
                LogMessage::error(Code::BadListener, format!("{error:#}"))
                    .hint("`getent passwd` and `getent group` list what this machine knows"),
            )
        })?;
    let addresses = inherited.addresses(&options.listen);
    let listeners = addresses
        .iter()
        .map(|address| Listener::open(address, &access, maker, &mut inherited))
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad_address)?;
    let mut logs = Logs::open(&args.logs, maker).map_err(CommandError::settings)?;
    // Root's work is done. Nothing of the application was read yet.
    let mut origin = match &account {
        Some(account) => {
            if is_real_root() && account.uid != 0 {
                runtime_directory::create_for(account);
            }
            account.assume().map_err(CommandError::settings)?;
            origin.with_variables(account.variables())
        }
        None => origin,
    };
    let mut settings = origin.resolve().map_err(CommandError::settings)?;
    // Service managers pass sockets and know nothing of workers; FastCGI's own put one on standard
    // input and start more of us.
    let managed = addresses.iter().all(|address| *address == Address::STANDARD_INPUT);
    let workers = options.workers.unwrap_or_else(|| if managed { 1 } else { processors() });
    let workers = options.max.unwrap_or(workers);
    let least = if options.max.is_some() { options.min } else { workers };
    if least > workers {
        return Err(CommandError::settings(
            LogMessage::error(
                Code::BadSetting,
                format!("--min {least} is more than --max {workers}"),
            )
            .hint("--min is the number of workers that stay when there is no work"),
        ));
    }
    // Whoever gave us the socket manages processes already, unless more is wished for. Not all of
    // them start another worker when one ends, so that a lone one does not end for a change; who
    // wants that gets a supervisor.
    let reload = settings.fastcgi.reload;
    let watched = settings.fastcgi.reload_on.clone();
    let is_alone =
        managed && workers == 1 && options.max.is_none() && !reload && watched.is_empty();
    let has_socket_file = addresses.iter().any(|address| matches!(address, Address::Unix(_)));
    if let Some(message) = args.first_without_effect(!is_alone, has_socket_file) {
        return Err(CommandError::usage(
            LogMessage::error(Code::BadSetting, message)
                .hint("remove the option, or see `wsgate fastcgi --help`"),
        ));
    }
    if !is_alone {
        logs.ring().map_err(cannot_begin)?;
    }
    let slots = if is_alone { 1 } else { u64::from(workers) * u64::from(SLOTS) };
    let lines = usize::try_from(slots * u64::from(options.threads)).unwrap_or(1);
    let (scoreboard, scoreboard_fd) = Scoreboard::create(lines).map_err(cannot_begin)?;
    logs.begin().map_err(cannot_begin)?;
    warn_of_left(&settings, inherited);
    if let Some(entry) = crate::pool::allowed_addresses::check(&settings, &listeners)
        .map_err(CommandError::settings)?
    {
        Request::synthetic("pool", &settings.app.to_string(), Vec::new()).log(&entry);
    }
    if account.is_none() && is_real_root() {
        let hint = "name a user that it serves as, such as `--user www-data`, or `--user root` if \
            root is meant";
        warn_of_root(&settings, hint);
    }
    let mut service = Service {
        workers,
        threads: options.threads,
        preload: options.preload.into(),
        reload,
        drain_seconds: options.drain,
        ..service(&settings, &listeners, &scoreboard_fd)
    };
    let slow = settings.fastcgi.slow;
    if is_alone {
        service.logs = logs.terms(&scoreboard);
        service.slow_seconds = slow.unwrap_or(0);
        return Err(become_worker(&settings, service, &listeners, &scoreboard_fd, &logs));
    }
    origin.hold_engine(&mut settings);
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| cannot_begin(error.into()))?;
    let handover = ConnectionQueue::create().map_err(cannot_begin)?;
    let terms = Terms {
        service: Service {
            bell_fd: Some(bell.as_raw_fd()),
            connection_queue: Some(handover.fds()),
            ..service
        },
        logs,
        least,
        idle: Duration::from_secs(options.idle),
        name: options.name.clone().unwrap_or_else(|| default_pool_name(&settings.app)),
        drain: Duration::from_secs(options.drain),
        linger: Duration::from_secs(options.drain).max(LEAST_LINGER),
        watched,
        origin,
        slow: slow.filter(|&seconds| seconds > 0).map(Duration::from_secs),
        slots: SLOTS,
        on_demand: None,
    };
    Supervisor::new(
        &settings,
        terms,
        listeners,
        Shared { scoreboard, scoreboard_fd, bell, handover: Some(handover) },
    )
    .map_err(cannot_begin)?
    .run()
}

/// Serves the socket on standard input with `script`, as mod_fcgid, lighttpd and spawn-fcgi expect
/// it.
///
/// # Errors
/// If it cannot; this process is another when it can.
pub(crate) fn serve_standard_input(app: App, options: &ScriptOptions, base: &Path) -> CommandError {
    let settings = match Settings::resolve(options, app, base) {
        Ok(settings) => settings,
        Err(entry) => return CommandError::settings(entry),
    };
    if is_real_root() {
        warn_of_root(
            &settings,
            "have the process manager start it as another user (`spawn-fcgi -u www-data`)",
        );
    }
    let access = Access { mode: 0o600, owner: (None, None) };
    let listener = Inherited::take(&[Address::STANDARD_INPUT]).and_then(|mut inherited| {
        Listener::open(&Address::STANDARD_INPUT, &access, Maker::new(None), &mut inherited)
    });
    match listener {
        Ok(listener) => {
            let listeners = [listener];
            // There is one socket, which serves or is of no use.
            if let Err(entry) = crate::pool::allowed_addresses::check(&settings, &listeners) {
                return CommandError::settings(entry);
            }
            match Scoreboard::create(1) {
                Ok((_, scoreboard)) => {
                    let reload_on = settings.fastcgi.reload_on.iter();
                    let reload_on = reload_on.map(|path| path.as_os_str().as_bytes().to_vec());
                    let service = Service {
                        reload: settings.fastcgi.reload || is_reload_wanted(),
                        reload_on: reload_on.collect(),
                        slow_seconds: settings.fastcgi.slow.unwrap_or(0),
                        ..service(&settings, &listeners, &scoreboard)
                    };
                    become_worker(&settings, service, &listeners, &scoreboard, &Logs::none())
                }
                Err(error) => cannot_begin(error),
            }
        }
        Err(error) => CommandError::settings(
            LogMessage::error(Code::BadListener, format!("{error:#}"))
                .hint("start it by the web server's process manager"),
        ),
    }
}

/// Does the configuration of the process manager say that it starts another worker in place of one
/// that exits?
fn is_reload_wanted() -> bool {
    std::env::var_os("WSGATE_RELOAD").is_some_and(|value| value == "1")
}

/// Closes sockets that were passed and that nobody asked for, and says so: connections to them
/// would wait for ever.
fn warn_of_left(settings: &Settings, inherited: Inherited) {
    for number in inherited.left() {
        Request::synthetic("pool", &settings.app.to_string(), Vec::new()).log(
            &LogMessage::warning(
                Code::SocketLeft,
                format!(
                    "descriptor `{number}` was passed by a service manager, and no --listen names \
                     it"
                ),
            )
            .hint(
                "leave --listen away to serve all that are passed, or name it with `--listen fd:N`",
            ),
        );
    }
}

/// Whoever breaks into the application has the machine then.
fn warn_of_root(settings: &Settings, hint: &str) {
    Request::synthetic("pool", &settings.app.to_string(), Vec::new()).log(
        &LogMessage::warning(
            Code::ServesAsRoot,
            "the pool serves as root: the application may do everything here",
        )
        .hint(hint),
    );
}

/// What one worker does that has one thread.
fn service(settings: &Settings, listeners: &[Listener], scoreboard: &OwnedFd) -> Service {
    let service = Service {
        listeners: listeners.iter().map(|listener| listener.socket.as_raw_fd()).collect(),
        threads: 1,
        workers: 1,
        max_requests: 0,
        max_age: 0,
        max_rss: 0,
        header_timeout_seconds: 0,
        socket_timeout_seconds: 0,
        connections: 0,
        slow_seconds: 0,
        drain_seconds: DEFAULT_DRAIN_SECS,
        scoreboard_fd: scoreboard.as_raw_fd(),
        // A worker that nothing is forked from loads for itself.
        preload: Preload::No,
        reload: false,
        reload_on: Vec::new(),
        logs: wire::pool_logs::PoolLogs::default(),
        bell_fd: None,
        connection_queue: None,
        warm: false,
        resident: false,
    };
    settings.fastcgi.applied_to(settings.limits.applied_to(service))
}

/// Makes this process the worker. Returns only if that fails.
fn become_worker(
    settings: &Settings,
    service: Service,
    listeners: &[Listener],
    scoreboard: &OwnedFd,
    logs: &Logs,
) -> CommandError {
    let sockets = listeners.iter().map(|listener| listener.socket.as_fd());
    let inherited: Vec<_> = sockets.chain([scoreboard.as_fd()]).chain(logs.inherited()).collect();
    let request = Request::synthetic("pool", &settings.app.to_string(), Vec::new());
    // No process would be left to say why the worker has crashed.
    if let Some(entry) = engine::damaged(&settings.engine, &settings.interpreter.program) {
        return CommandError::settings(entry);
    }
    let error = match Start::new(settings, Work::Worker(service), &request, &inherited) {
        // The process group is the process manager's to choose.
        Ok(mut start) => start.command.exec(),
        Err(error) => error,
    };
    CommandError::failed(start_error::message(settings, &error))
}

fn cannot_begin(error: std::io::Error) -> CommandError {
    CommandError::failed(
        LogMessage::error(Code::NoProcess, format!("the pool cannot begin: {error}")).hint(
            start_error::file_size_hint(&error)
                .unwrap_or("see whether this user can run python from a shell"),
        ),
    )
}

fn processors() -> u32 {
    thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .unwrap_or(1)
}
