//! The arguments of the commands that run pools and talk to them.

use std::{collections::BTreeSet, path::PathBuf};

use clap::{Args, ValueEnum};
use control::pool_name::check_name;

use crate::{
    config::options::{
        AppOptions, Context, DebugOption, FastcgiOptions, ForkOptions, LoggingOptions, OptionGroup,
        PathTimeoutOption, RequestOptions, ScriptOptions, SendfileOption, TrustOptions,
        WorkerLimits, account,
        contexts::{ActsIn, for_supervisors_only},
        count, seconds,
    },
    pool::{
        address::Address,
        log_options::LogOptions,
        process_options::ProcessOptions,
        queue_options::QueueOptions,
        socket_access::{FileMode, SocketOwner},
        status_options::StatusOptions,
    },
};

/// Permissions of Unix sockets.
const DEFAULT_SOCKET_MODE: FileMode = FileMode(0o660);

/// Seconds that workers have to finish their requests on a graceful stop.
pub(super) const DEFAULT_DRAIN_SECS: u64 = 30;

/// Maximum number of workers of a pool.
const MAX_WORKERS: u32 = 1024;

/// Maximum number of threads of a worker.
const MAX_THREADS: u32 = 256;

/// The arguments of `wsgate fastcgi`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FastcgiArgs {
    /// Application to serve: FILE, MODULE, or one of them with :CALLABLE
    #[arg(value_name = "APP", required = false, required_unless_present = "config")]
    pub(crate) app: String,

    #[command(flatten)]
    pub(crate) pool: PoolOptions,

    #[command(flatten)]
    pub(crate) queue: QueueOptions,

    #[command(flatten)]
    pub(crate) status: StatusOptions,

    #[command(flatten)]
    pub(crate) process: ProcessOptions,

    #[command(flatten)]
    pub(crate) logs: LogOptions,

    #[command(flatten)]
    pub(crate) logging: LoggingOptions,

    #[command(flatten)]
    pub(crate) fastcgi: FastcgiOptions,

    #[command(flatten)]
    pub(crate) limits: WorkerLimits,

    #[command(flatten)]
    pub(crate) forks: ForkOptions,

    #[command(flatten)]
    pub(crate) request: RequestOptions,

    #[command(flatten)]
    pub(crate) path_timeouts: PathTimeoutOption,

    #[command(flatten)]
    pub(crate) trust: TrustOptions,

    #[command(flatten)]
    pub(crate) sendfile: SendfileOption,

    #[command(flatten)]
    pub(crate) error_pages: DebugOption,

    #[command(flatten)]
    pub(crate) app_options: AppOptions,
}

impl FastcgiArgs {
    /// The message about options that contradict each other, and a hint.
    pub(super) fn contradiction(&self) -> Option<(String, &'static str)> {
        let of_pool = self.pool.contradiction();
        of_pool.or_else(|| self.status.contradiction(&self.pool.listen))
    }

    /// The options that a `#!` line may have, too.
    pub(crate) fn script_options(&self) -> ScriptOptions {
        ScriptOptions {
            app: self.app_options.clone(),
            request: self.request.clone(),
            path_timeouts: self.path_timeouts.clone(),
            trust: self.trust.clone(),
            sendfile: self.sendfile.clone(),
            error_pages: self.error_pages,
            logging: self.logging.clone(),
            forks: self.forks.clone(),
            limits: self.limits,
            fastcgi: self.fastcgi.clone(),
            ..ScriptOptions::default()
        }
    }

    /// The message about an option that has no effect, where only the sockets and the number of
    /// workers show that.
    pub(crate) fn first_without_effect(
        &self,
        has_supervisor: bool,
        has_socket_file: bool,
    ) -> Option<String> {
        let [time, length] = self.queue.given();
        let of_supervisor = [
            ("name", self.pool.name.is_some()),
            ("preload", self.pool.preload != Preload::Auto),
            ("warm-up", self.forks.warm_up.is_some()),
            ("after-fork", self.forks.after_fork.is_some()),
            time,
            length,
            self.status.given(),
            ("slow-log", self.logs.slow_log.is_some()),
        ];
        let of_file = [
            ("socket-owner", self.pool.socket_owner.is_some()),
            ("socket-mode", self.pool.socket_mode != DEFAULT_SOCKET_MODE),
        ];
        let set = |options: &[(&'static str, bool)]| {
            options.iter().find(|(_, is_set)| *is_set).map(|(option, _)| *option)
        };
        let idle = set(&of_supervisor).filter(|_| !has_supervisor).map(for_supervisors_only);
        idle.or_else(|| {
            let option = set(&of_file).filter(|_| !has_socket_file)?;
            Some(format!("--{option} has no effect without `--listen unix:PATH`"))
        })
    }
}

/// The options of a pool that no `#!` line can have.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
pub(crate) struct PoolOptions {
    /// Read the application and options from FILE, in TOML
    ///
    /// The keys are the options without dashes, and `app`. Relative paths in FILE start at its
    /// directory. An option on the command line replaces the one in FILE.
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    pub(crate) config: Option<PathBuf>,

    /// Listen on ADDRESS: unix:PATH, HOST:PORT, or fd:N for an inherited listening socket
    /// (repeatable)
    ///
    /// By default wsgate listens on all sockets that systemd passes (LISTEN_FDS), or else on
    /// standard input (fd:0), as process managers of FastCGI pass it. wsgate never removes the file
    /// of an inherited socket.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<Address>,

    /// Set the permissions of Unix sockets, in octal
    #[arg(
        long,
        value_name = "MODE",
        default_value_t = DEFAULT_SOCKET_MODE
    )]
    pub(crate) socket_mode: FileMode,

    /// Set the owner of Unix sockets: USER, USER:GROUP or :GROUP, names or numbers [default: the
    /// user of the pool]
    #[arg(long, value_name = "OWNER")]
    pub(crate) socket_owner: Option<SocketOwner>,

    /// Run COUNT worker processes [default: one for each processor, or 1 for standard input]
    ///
    /// Without this option the pool uses at most half of the processes and memory that the limits
    /// leave (RLIMIT_NPROC, and `pids.max` and `memory.max` of the control group).
    #[arg(
        long,
        value_name = "COUNT",
        help_heading = "Workers",
        value_parser = count(1, MAX_WORKERS),
        conflicts_with = "max"
    )]
    pub(crate) workers: Option<u32>,

    /// Run up to COUNT worker processes, as many as the load needs
    ///
    /// The pool starts a worker when all are busy and connections wait, and stops idle workers.
    #[arg(
        long,
        value_name = "COUNT",
        help_heading = "Workers",
        value_parser = count(1, MAX_WORKERS)
    )]
    pub(crate) max: Option<u32>,

    /// Keep at least COUNT worker processes; used with --max
    ///
    /// With 0, no Python process runs while there are no requests.
    #[arg(
        long,
        value_name = "COUNT",
        help_heading = "Workers",
        default_value_t = 0,
        requires = "max",
        value_parser = count(0, MAX_WORKERS)
    )]
    pub(crate) min: u32,

    /// Stop a worker above --min after SECONDS without a request; used with --max
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "Workers",
        default_value_t = 60,
        requires = "max",
        value_parser = seconds(1)
    )]
    pub(crate) idle: u64,

    /// Serve up to COUNT requests at the same time in each worker
    #[arg(
        long,
        value_name = "COUNT",
        help_heading = "Workers",
        default_value_t = 1,
        value_parser = count(1, MAX_THREADS)
    )]
    pub(crate) threads: u32,

    /// Load the application before workers are forked (`yes`) or in each worker (`no`)
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        help_heading = "Workers",
        default_value_t = Preload::Auto
    )]
    pub(crate) preload: Preload,

    /// Name the pool for `wsgate status` [default: that of the configuration file,
    /// or of the file or module of the application]
    #[arg(long, value_name = "NAME", help_heading = "Process", value_parser = name)]
    pub(crate) name: Option<String>,

    /// Run the pool as USER, a name or number, if root starts it
    ///
    /// Root opens the listening sockets and logs, and becomes USER before python is started. The
    /// supervisor becomes USER, too, so it reopens logs and removes sockets with the rights of
    /// USER.
    #[arg(
        long,
        value_name = "USER",
        help_heading = "Process",
        value_parser = account("www-data")
    )]
    pub(crate) user: Option<String>,

    /// Run the pool in GROUP, a name or number [default: the primary group of the user]
    #[arg(
        long,
        value_name = "GROUP",
        help_heading = "Process",
        requires = "user",
        value_parser = account("www-data")
    )]
    pub(crate) group: Option<String>,

    /// Wait up to SECONDS for requests to finish on a graceful stop
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "Process",
        default_value_t = DEFAULT_DRAIN_SECS,
        value_parser = seconds(0)
    )]
    pub(crate) drain: u64,
}

impl PoolOptions {
    /// The message about options that contradict each other on every machine, and a hint.
    fn contradiction(&self) -> Option<(String, &'static str)> {
        if let Some(max) = self.max.filter(|&max| self.min > max) {
            return Some((
                format!("--min {} is more than --max {max}", self.min),
                "--min is the number of workers that stay when the pool is idle",
            ));
        }
        let mut named = BTreeSet::new();
        let mut fixed = self.listen.iter().filter(|address| address.is_fixed());
        let twice = fixed.find(|address| !named.insert(address.to_string()))?;
        Some((format!("--listen names `{twice}` twice"), "name each address once"))
    }
}

impl ActsIn for PoolOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool, Context::LoneWorker];
}

/// The groups of options that `wsgate fastcgi` alone has.
pub(crate) fn groups() -> [OptionGroup; 5] {
    [
        OptionGroup::of::<PoolOptions>(),
        OptionGroup::of::<QueueOptions>(),
        OptionGroup::of::<StatusOptions>(),
        OptionGroup::of::<ProcessOptions>(),
        OptionGroup::of::<LogOptions>(),
    ]
}

/// Which process loads the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preload {
    /// As `yes`, or as `no` if the import leaves open or running what processes must not share
    Auto,
    /// Load it once, before workers are forked: they share its memory
    Yes,
    /// Load it in each worker, after the fork
    No,
}

impl From<Preload> for wire::launch::Preload {
    fn from(preload: Preload) -> Self {
        match preload {
            Preload::Auto => Self::Auto,
            Preload::Yes => Self::Yes,
            Preload::No => Self::No,
        }
    }
}

/// The arguments of `wsgate status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Name of the pool to show, or USER/NAME [default: all pools; those of all users for root]
    #[arg(value_name = "POOL", value_parser = name_with_user)]
    pub(crate) pool: Option<String>,

    /// Print one line of JSON for each pool, with the fields that docs/operate.md lists
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// The arguments of `wsgate reload`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) pool: PoolName,

    /// Change to the installed build of wsgate, too, such as one that a package has upgraded
    #[arg(long, help_heading = "Upgrade")]
    pub(crate) binary: bool,
}

/// The name of a pool, for the commands that need one.
#[derive(Args, Clone, Debug)]
pub(crate) struct PoolName {
    /// Name of the pool, or USER/NAME, as `wsgate status` shows them
    #[arg(value_name = "POOL", value_parser = name_with_user)]
    pub(crate) name: String,
}

/// Parses the name of a pool, which may have a user before it.
pub(super) fn name_with_user(value: &str) -> Result<String, String> {
    let (user, name) =
        value.split_once('/').map_or((None, value), |(user, name)| (Some(user), name));
    if user.is_some_and(|user| user.is_empty() || user.starts_with('.')) {
        return Err("before the `/` stands a user's name or number, such as `site/shop`".to_owned());
    }
    check_name(name).map(|()| value.to_owned())
}

/// Parses the name of a pool.
pub(super) fn name(value: &str) -> Result<String, String> {
    check_name(value).map(|()| value.to_owned())
}
