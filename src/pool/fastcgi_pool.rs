//! `wsgate fastcgi`: opens sockets and logs, and starts the supervisor of a FastCGI pool.

use std::{os::fd::AsRawFd as _, rc::Rc};

use diagnostics::message::{Code, LogMessage};
use rustix::event::{EventfdFlags, eventfd};
use wire::{
    connection_queue::ConnectionQueue, launch::Service, scoreboard::Scoreboard, stacks_file,
};

use crate::{
    config::settings::{Settings, default_pool_name},
    exit::{CommandError, Exit},
    pool::{
        address::Address,
        allowed_addresses,
        args::{FastcgiArgs, PoolOptions},
        code_source::CodeSource,
        config_reader::{
            ConfigReader, ParseAgain, WorkerCounts, {self},
        },
        file_creator::FileCreator,
        handover::{Handover, READY},
        inherited_sockets::InheritedSockets,
        listeners::Listener,
        logs::Logs,
        lone_worker::become_worker,
        service::{cannot_start, service},
        socket_access::SocketAccess,
        startup_warnings::{close_unused, log, warn_of_missing_paths, warn_of_root},
        supervisor::{
            PoolConfig, PoolResources, RequestQueue, Sockets, StatusServer, Supervisor, trial,
        },
        worker_count,
    },
    request::Request,
    system::{account::Account, runtime_directory, trusted_path::is_real_root},
};

/// Scoreboard blocks per worker: its own, and that of its replacement.
const BLOCKS_PER_WORKER: u32 = 2;

/// Lines of the scoreboard that there is room for, so that a reload can raise the number of
/// workers. Lines that are not in use take no memory.
const SCOREBOARD_ROOM: usize = 2048;

/// Runs a pool until it is asked to stop. `parse` parses the arguments of this process again, for a
/// reload.
///
/// # Errors
/// If the pool cannot start.
pub(crate) fn run(args: &FastcgiArgs, parse: ParseAgain) -> Result<Exit, CommandError> {
    let mut handover = Handover::from_environment()?;
    let mut served = serve(args, parse, handover.as_mut());
    // The arguments come from the file, and are settings then.
    if let (Some(_), Err(error)) = (&args.pool.config, &mut served)
        && error.exit == Exit::Usage
    {
        error.exit = Exit::Settings;
    }
    if let (Some(handover), Err(error)) = (&handover, &served) {
        handover.report(&error.message.summary());
    }
    served
}

fn serve(
    args: &FastcgiArgs,
    parse: ParseAgain,
    mut handover: Option<&mut Handover>,
) -> Result<Exit, CommandError> {
    let options = &args.pool;
    if let Some((sentence, hint)) = args.contradiction() {
        return Err(CommandError::usage(LogMessage::new(Code::BadSetting, sentence).hint(hint)));
    }
    let code = CodeSource::new(&args.app, &args.script_options())?
        .with_cleared_environment(args.process.clear_env);
    let account = options.user.as_deref().map(|user| {
        Account::find(user, options.group.as_deref(), &args.process.supplementary_group)
    });
    let account = account.transpose().map_err(CommandError::settings)?;
    let creator = FileCreator::new(account.as_ref());
    let (addresses, listeners, inherited) = match &mut handover {
        Some(handover) => {
            let addresses = handover.addresses.clone();
            (addresses, handover.listeners()?, InheritedSockets::default())
        }
        None => {
            let mut inherited = InheritedSockets::take_over(&options.listen)?;
            let addresses = inherited.addresses(&options.listen);
            let listeners = open_listeners(options, &addresses, creator, &mut inherited)?;
            (addresses, listeners, inherited)
        }
    };
    let status_listener = match &mut handover {
        Some(handover) => handover.status_listener(args.status.listen())?,
        None => {
            let addresses: Vec<Address> = args.status.listen().cloned().into_iter().collect();
            open_listeners(options, &addresses, creator, &mut InheritedSockets::default())?.pop()
        }
    };
    let mut open_logs = handover.as_deref_mut().map(Handover::logs).unwrap_or_default();
    let mut logs = Logs::open(args, creator, &mut open_logs).map_err(CommandError::settings)?;
    // The previous program of an upgrade has done so.
    if handover.is_none() {
        args.process.apply().map_err(CommandError::settings)?;
    }
    // Root's permissions are no longer needed, and no file of the application was read yet.
    let mut code = match &account {
        Some(account) => assume(account, code)?,
        None => code,
    };
    args.process.tie_to_parent().map_err(CommandError::settings)?;
    let mut settings = code.resolve().map_err(CommandError::settings)?;
    if args.logging.error_log.is_none()
        && let Some(path) = &settings.error_log
    {
        logs.open_error_log(path, &mut open_logs).map_err(CommandError::settings)?;
    }
    if let Some(message) = args.logs.without_effect(settings.fastcgi.slow) {
        return Err(CommandError::usage(message));
    }
    let plan = Plan::new(options, &settings, &addresses);
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| default_pool_name(options.config.as_deref(), &settings.app));
    if let Some(handover) = &handover {
        handover.check(&options.listen, &name, plan.is_lone_worker)?;
    }
    let has_socket_file = addresses.iter().any(|address| matches!(address, Address::Unix(_)));
    if let Some(message) = args.first_without_effect(!plan.is_lone_worker, has_socket_file) {
        return Err(CommandError::usage(
            LogMessage::new(Code::BadSetting, message)
                .hint("remove the option, or see `wsgate fastcgi --help`"),
        ));
    }
    if !plan.is_lone_worker {
        logs.create_bell().map_err(cannot_start)?;
    }
    let (scoreboard, scoreboard_fd) =
        Scoreboard::create_with_room(plan.scoreboard_lines(options.threads), plan.room())
            .map_err(cannot_start)?;
    logs.redirect_stderr().map_err(cannot_start)?;
    settings.logging.apply_to_pool(name.clone());
    close_unused(&settings, inherited);
    // A trial repeats what the pool has said.
    let warns = !handover.as_ref().is_some_and(|handover| handover.is_trial());
    if warns {
        warn_of_missing_paths(&settings);
    }
    if let Some(message) =
        allowed_addresses::check(&settings, &listeners).map_err(CommandError::settings)?
    {
        log(&settings, &message);
    }
    let addresses_of = listeners.iter().map(|listener| &listener.address);
    if let Some(message) = allowed_addresses::open_to_all(&settings, addresses_of).filter(|_| warns)
    {
        log(&settings, &message);
    }
    if account.is_none() && is_real_root() && warns {
        let hint = "add --user with the pool's user, such as `--user www-data`, or `--user root` \
            if root is intended";
        warn_of_root(&settings, hint);
    }
    if let Some(message) = plan.limits_message.as_ref().filter(|_| warns) {
        log(&settings, message);
    }
    let mut service = Service {
        workers: plan.counts.max,
        threads: options.threads,
        preload: options.preload.into(),
        reload: plan.reload,
        drain_seconds: options.drain,
        ..service(&settings, &listeners, &scoreboard_fd)
    };
    let slow = settings.fastcgi.slow;
    if plan.is_lone_worker {
        service.logs = logs.for_launch(&scoreboard);
        service.slow_seconds = slow.unwrap_or(0);
        return Err(become_worker(&settings, service, &listeners, &scoreboard_fd, &logs));
    }
    code.hold_engine(&mut settings);
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| cannot_start(error.into()))?;
    let stacks_file = stacks_file::create().map_err(cannot_start)?;
    let scoreboard = Rc::new(scoreboard);
    let limits = args.queue.limits();
    let (queue, relay) = match (&mut handover, limits) {
        (Some(handover), limits) => handover.queue(limits.is_some())?,
        (None, None) => (ConnectionQueue::create().map_err(cannot_start)?, None),
        (None, Some(_)) => {
            let (queue, relay) = ConnectionQueue::create_relayed().map_err(cannot_start)?;
            (queue, Some(relay))
        }
    };
    let request_queue = limits
        .zip(relay)
        .map(|(limits, relay)| RequestQueue::new(limits, relay, scoreboard.clone(), &settings));
    let status_server =
        status_listener.map(|listener| StatusServer::new(listener, args.status.paths(), &settings));
    service.bell_fd = Some(bell.as_raw_fd());
    service.stacks_fd = Some(stacks_file.as_raw_fd());
    service.connection_queue = Some(queue.fds());
    service.limits_waiting = request_queue.is_some();
    let most = scoreboard.room() / lines_per_worker(options.threads);
    let config = PoolConfig {
        name,
        reader: Some(ConfigReader::new(
            parse,
            args.clone(),
            code.clone(),
            u32::try_from(most).unwrap_or(u32::MAX),
        )),
        reloadable: config_reader::config(args, code, settings, plan.counts, &service),
        blocks_per_worker: BLOCKS_PER_WORKER,
        grows_within_limits: false,
        listen: [options.listen.clone(), addresses],
        on_demand: None,
    };
    let resources = PoolResources {
        scoreboard,
        scoreboard_fd,
        bell,
        stacks_file: Rc::new(stacks_file),
        sockets: Sockets::new(listeners, Some(queue)),
        request_queue,
        status_server,
        logs,
        request: Request::of_pool(&config.reloadable.settings.app),
    };
    if let Some(handover) = handover.as_deref().filter(|handover| handover.is_trial()) {
        let result = trial::try_out(&config.reloadable, &resources).map_err(cannot_start)?;
        handover.report(&result.err().unwrap_or_else(|| READY.to_owned()));
        return Ok(Exit::Success);
    }
    let mut supervisor = Supervisor::new(config, resources).map_err(cannot_start)?;
    if let Some(handover) = handover {
        supervisor.take_over(handover)?;
    }
    supervisor.run()
}

fn open_listeners(
    options: &PoolOptions,
    addresses: &[Address],
    creator: FileCreator<'_>,
    inherited: &mut InheritedSockets,
) -> Result<Vec<Listener>, CommandError> {
    let access = SocketAccess::new(options.socket_mode, options.socket_owner.as_ref())
        .map_err(CommandError::settings)?;
    let listeners =
        addresses.iter().map(|address| Listener::open(address, &access, creator, inherited));
    listeners.collect()
}

/// Makes this process run as `account`.
fn assume(account: &Account, code: CodeSource) -> Result<CodeSource, CommandError> {
    if is_real_root() && account.uid != 0 {
        runtime_directory::create_for(account.uid, account.gid);
    }
    account.assume().map_err(CommandError::settings)?;
    Ok(code.with_variables(account.variables()))
}

/// Number of workers, and whether they need a supervisor.
struct Plan {
    counts: WorkerCounts,
    is_lone_worker: bool,
    reload: bool,
    /// The limits hold fewer workers than wanted.
    limits_message: Option<LogMessage>,
}

impl Plan {
    fn new(options: &PoolOptions, settings: &Settings, addresses: &[Address]) -> Self {
        // A FastCGI process manager puts its socket on standard input, and starts more processes
        // itself. A service manager passes sockets in other ways.
        let is_managed = addresses.iter().all(|address| *address == Address::STANDARD_INPUT);
        let (counts, limits_message) = match WorkerCounts::of(options) {
            Some(counts) => {
                let option = if options.max.is_some() { "max" } else { "workers" };
                (counts, worker_count::check_limits(option, counts.max, options.threads))
            }
            None if is_managed => (WorkerCounts { min: 1, max: 1 }, None),
            None => {
                let (workers, message) = worker_count::default_workers(options.threads);
                (WorkerCounts { min: workers, max: workers }, message)
            }
        };
        let reload = settings.fastcgi.reload;
        // Some process managers do not replace a worker that exits, so a lone worker must not exit
        // for a reload. A pool with reloads gets a supervisor.
        let is_lone_worker = is_managed
            && counts.max == 1
            && options.max.is_none()
            && !reload
            && settings.fastcgi.reload_on.is_empty();
        Self { counts, is_lone_worker, reload, limits_message }
    }

    fn scoreboard_lines(&self, threads: u32) -> usize {
        if self.is_lone_worker {
            return usize::try_from(threads).unwrap_or(1);
        }
        usize::try_from(self.counts.max).unwrap_or(1) * lines_per_worker(threads)
    }

    fn room(&self) -> usize {
        if self.is_lone_worker { 0 } else { SCOREBOARD_ROOM }
    }
}

/// Lines of the scoreboard for a worker and its replacement.
fn lines_per_worker(threads: u32) -> usize {
    usize::try_from(BLOCKS_PER_WORKER * threads).unwrap_or(usize::MAX)
}
