//! Reads the arguments and the configuration file of a running pool again, for a reload.

use std::time::Duration;

use diagnostics::message::{Code, LogMessage};
use wire::launch::Service;

use crate::{
    config::settings::Settings,
    pool::{
        args::{FastcgiArgs, PoolOptions},
        code_source::CodeSource,
        logs::Logs,
        service::with_settings,
        supervisor::ReloadableConfig,
    },
};

/// Minimum timeout for the exit of a worker after its last request.
const MIN_LINGER: Duration = Duration::from_secs(1);

/// Number of workers of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerCounts {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl WorkerCounts {
    /// The numbers that the options set; `None` if the number is to be a default.
    pub(super) fn of(options: &PoolOptions) -> Option<Self> {
        match (options.workers, options.max) {
            (Some(workers), _) => Some(Self { min: workers, max: workers }),
            (None, Some(max)) => Some(Self { min: options.min, max }),
            (None, None) => None,
        }
    }
}

/// The configuration that `args` and the resolved `settings` describe. Descriptors are those of
/// `base`.
pub(super) fn config(
    args: &FastcgiArgs,
    code: CodeSource,
    settings: Settings,
    counts: WorkerCounts,
    base: &Service,
) -> ReloadableConfig {
    let options = &args.pool;
    let drain = Duration::from_secs(options.drain);
    let service = Service {
        workers: counts.max,
        preload: options.preload.into(),
        reload: settings.fastcgi.reload,
        drain_seconds: options.drain,
        ..with_settings(base.clone(), &settings)
    };
    ReloadableConfig {
        service,
        min_workers: counts.min,
        idle: Duration::from_secs(options.idle),
        drain,
        linger: drain.max(MIN_LINGER),
        reload_on: settings.fastcgi.reload_on.clone(),
        slow: settings.fastcgi.slow.filter(|&seconds| seconds > 0).map(Duration::from_secs),
        code,
        settings,
    }
}

/// Parses the arguments of this process again, with the file that they name.
pub(crate) type ParseAgain = fn() -> Result<FastcgiArgs, LogMessage>;

/// Reads the arguments of a pool again.
pub(super) struct ConfigReader {
    parse: ParseAgain,
    /// The arguments at the start of the pool.
    first: FastcgiArgs,
    /// The arguments that the pool serves with.
    serving: FastcgiArgs,
    /// The source at the start of the pool.
    code: CodeSource,
    /// Most workers that the scoreboard has room for.
    max_workers: u32,
}

/// The configuration that was read for a reload.
pub(super) struct NextConfig {
    pub(super) config: ReloadableConfig,
    /// The logs, if they change.
    pub(super) logs: Option<Logs>,
    /// The log message about options that keep their old values.
    pub(super) unchanged: Option<LogMessage>,
    args: FastcgiArgs,
}

impl ConfigReader {
    /// Reads what `parse` finds, for a pool that was started with `args` and `code`.
    pub(super) fn new(
        parse: ParseAgain,
        args: FastcgiArgs,
        code: CodeSource,
        max_workers: u32,
    ) -> Self {
        Self { parse, serving: args.clone(), first: args, code, max_workers }
    }

    /// Reads the configuration for a pool whose workers do `service`, and which has `logs`.
    ///
    /// # Errors
    /// The log message about the arguments, the file, or a setting.
    pub(super) fn read(
        &self,
        service: &Service,
        min_workers: usize,
        logs: &Logs,
    ) -> Result<NextConfig, LogMessage> {
        let args = (self.parse)()?;
        if let Some((sentence, hint)) = args.contradiction() {
            return Err(LogMessage::new(Code::BadSetting, sentence).hint(hint));
        }
        let source = CodeSource::new(&args.app, &args.script_options())
            .map_err(|error| error.message)?
            .with_process_of(&self.code)
            .with_cleared_environment(args.process.clear_env);
        let settings = source.resolve()?;
        if let Some(message) = args.logs.without_effect(settings.fastcgi.slow) {
            return Err(message);
        }
        let mut unchanged = need_restart(&args, &self.first);
        let started = WorkerCounts {
            min: u32::try_from(min_workers).unwrap_or(u32::MAX),
            max: service.workers,
        };
        let mut counts = WorkerCounts::of(&args.pool).unwrap_or(started);
        if counts.max > self.max_workers {
            unchanged.push(if args.pool.workers.is_some() { "workers" } else { "max" });
            counts = started;
        }
        let logs = (args.logs != self.serving.logs).then(|| logs.with(&args.logs)).transpose()?;
        Ok(NextConfig {
            config: config(&args, source, settings, counts, service),
            logs,
            unchanged: (!unchanged.is_empty()).then(|| kept_values(&unchanged)),
            args,
        })
    }

    /// Does the pool leave out most environment variables?
    pub(super) fn clears_environment(&self) -> bool {
        self.serving.process.clear_env
    }

    /// Records that the pool serves with `next`.
    pub(super) fn adopt(&mut self, next: &NextConfig) {
        self.serving = next.args.clone();
    }
}

/// The options of `args` with other values than in `first`, the arguments at the start of the pool,
/// which a reload cannot change: sockets are open, and the process has its user and limits.
fn need_restart(args: &FastcgiArgs, first: &FastcgiArgs) -> Vec<&'static str> {
    let (now, then) = (&args.pool, &first.pool);
    let mut changed = vec![
        ("listen", now.listen != then.listen),
        ("socket-mode", now.socket_mode != then.socket_mode),
        ("socket-owner", now.socket_owner != then.socket_owner),
        ("threads", now.threads != then.threads),
        ("name", now.name != then.name),
        ("user", now.user != then.user),
        ("group", now.group != then.group),
        ("error-log", args.logging.error_log != first.logging.error_log),
        ("log-format", args.logging.log_format != first.logging.log_format),
    ];
    changed.extend(args.process.changes(&first.process));
    changed.extend(args.queue.changes(first.queue));
    changed.extend(args.status.changes(&first.status));
    changed.into_iter().filter(|(_, has_changed)| *has_changed).map(|(name, _)| name).collect()
}

fn kept_values(options: &[&str]) -> LogMessage {
    let names = options.iter().map(|name| format!("--{name}")).collect::<Vec<_>>().join(", ");
    LogMessage::new(
        Code::NeedsRestart,
        format!("the pool keeps the old value of {names}, which a reload cannot change"),
    )
    .hint("restart the pool to apply the new value")
}
