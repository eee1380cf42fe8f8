//! The warm pool of a request: its name, and its start.

use std::{
    fs::{
        File, OpenOptions, {self},
    },
    io::{
        Read as _, Seek as _, Write as _, {self},
    },
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

use crate::{
    cgi::warm::{identity, leftovers},
    config::{
        options::ScriptOptions,
        settings::{Settings, default_pool_name},
        warm_pool::{FAILED, ONE_PROCESS, WarmPoolSpec},
    },
    guard::start_error,
    request::Request,
    system::runtime_directory,
};

/// Time before a pool that failed to start is started again.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// How long requests fall back to cold CGI if the import opened a resource that only one process
/// may have.
const ONE_PROCESS_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time between two log messages about the same problem of a pool.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of pools of one application. More pools show that a variable that `identity` does
/// not know differs from request to request.
const MAX_POOLS: usize = 8;

/// The running program, even if another has replaced it in the file system.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The warm pool of a request, running or not.
pub(super) struct WarmPool {
    directory: PathBuf,
    /// Prefix of the names of all pools of the application.
    prefix: String,
    name: String,
    pub(super) socket: PathBuf,
}

/// The locked lock file of a pool: no other gateway can start the pool.
pub(super) struct StartLock(File);

impl WarmPool {
    /// The pool for requests with these settings.
    ///
    /// # Errors
    /// If there is no runtime directory for its socket.
    pub(super) fn of(settings: &Settings, options: &ScriptOptions) -> Result<Self, LogMessage> {
        let directory = runtime_directory::open().map_err(|error| {
            LogMessage::new(
                Code::ServedCold,
                format!(
                    "the request falls back to cold CGI: there is no runtime directory for a warm \
                     pool: {error}"
                ),
            )
            .hint(error.hint())
        })?;
        let digest = identity::digest(settings, options).map_err(|error| {
            LogMessage::new(
                Code::ServedCold,
                format!(
                    "the request falls back to cold CGI: its options cannot be encoded: {error}"
                ),
            )
        })?;
        let stem: String = default_pool_name(None, &settings.app).chars().take(12).collect();
        let prefix = format!("warm-{stem}-{:06x}-", identity::app_digest(settings) & 0xff_ffff);
        let name = format!("{prefix}{:012x}", digest & 0xffff_ffff_ffff);
        let socket = directory.join(format!("{name}.sock"));
        Ok(Self { directory, prefix, name, socket })
    }

    /// Locks the pool for its start by this process. `None` if another gateway has just locked the
    /// pool, or if requests fall back to cold CGI for a known reason.
    ///
    /// # Errors
    /// Why the pool cannot be started.
    pub(super) fn lock_for_start(&self) -> Result<Option<StartLock>, LogMessage> {
        let Some(mut lock) = self.lock().map_err(|error| self.failure(&error))? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        (&mut lock).take(64).read_to_end(&mut content).map_err(|error| self.failure(&error))?;
        if content == ONE_PROCESS && is_younger(&lock, ONE_PROCESS_INTERVAL) {
            return Ok(None);
        }
        if content == FAILED && is_younger(&lock, RETRY_INTERVAL) {
            return Err(LogMessage::new(
                Code::NoWarmPool,
                "the warm pool of this application could not start".to_owned(),
            )
            .hint(format!(
                "requests fall back to cold CGI; wsgate tries again every {} s; look for the \
                 reason in this log or in `{}`",
                RETRY_INTERVAL.as_secs(),
                self.path("log").display()
            )));
        }
        if self.count_running() >= MAX_POOLS {
            return Err(LogMessage::new(
                Code::NoWarmPool,
                format!(
                    "this application has {MAX_POOLS} warm pools already, because variables that \
                     the web server sets differ"
                ),
            )
            .hint(
                "requests fall back to cold CGI; set only variables in the configuration of the \
                 web server that are the same for all requests",
            ));
        }
        leftovers::remove(&self.directory, &self.name);
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(|error| self.failure(&error))?;
        Ok(Some(StartLock(lock)))
    }

    /// Makes requests fall back to cold CGI until the code changes or a day has passed, and logs
    /// the `findings` of the import audit.
    pub(super) fn forbid(
        &self,
        lock: StartLock,
        settings: &Settings,
        request: &Request,
        findings: String,
    ) {
        let StartLock(mut lock) = lock;
        // If the write fails, gateways try to start the pool again.
        let _ = lock.write_all(ONE_PROCESS);
        request.log(
            &LogMessage::new(
                Code::OneProcessOnly,
                format!(
                    "requests fall back to cold CGI: the import of `{}` left open what only one \
                     process at a time may have",
                    settings.app
                ),
            )
            .detail(findings)
            .hint(
                "open and close it in each request; or run a FastCGI pool with --workers 1 \
                 --threads 8",
            ),
        );
    }

    fn failure(&self, error: &dyn std::fmt::Display) -> LogMessage {
        LogMessage::new(Code::NoWarmPool, format!("the warm pool cannot be started: {error}")).hint(
            format!(
                "requests fall back to cold CGI; check the directory `{}` and its file system",
                self.directory.display()
            ),
        )
    }

    /// Starts the pool, and does not wait until it is ready.
    ///
    /// # Errors
    /// Why the pool cannot be started.
    pub(super) fn start(
        &self,
        lock: StartLock,
        settings: &Settings,
        (options, base): (&ScriptOptions, &Path),
        request: &Request,
    ) -> Result<(), LogMessage> {
        let StartLock(lock) = lock;
        let mut options = options.clone();
        if let Some(url) = identity::warm_up_url(&options, request) {
            options.forks.warm_up = Some(url);
        }
        let spec = WarmPoolSpec::new(
            settings.app.clone(),
            options,
            (base, &self.socket),
            identity::watched_files(settings),
        );
        let spec = serde_json::to_string(&spec).map_err(|error| self.failure(&error))?;
        let mut command = Command::new(THIS_PROGRAM);
        command
            .args(["warm-pool", &self.name, &spec])
            .env_clear()
            .envs(identity::lasting_environment())
            .current_dir("/")
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(self.log_output().map_err(|error| self.failure(&error))?);
        // The pool is not reaped here: init reaps it after this process has exited.
        command.spawn().map(drop).map_err(|error| match start_error::limit_hint(&error) {
            Some(hint) => {
                self.failure(&error).hint(format!("requests fall back to cold CGI; {hint}"))
            }
            None => self.failure(&error),
        })
    }

    /// Logs `message` about `request`, unless a message with its code was logged a moment ago.
    pub(super) fn log(&self, request: &Request, message: &LogMessage) {
        let mark =
            self.directory.join(format!("{}{:04}.logged", self.prefix, message.code() as u16));
        let was_logged = fs::symlink_metadata(&mark)
            .is_ok_and(|found| is_recent(found.modified().ok(), LOG_INTERVAL));
        if !was_logged {
            request.log(message);
            // If the write fails, the message is only logged more often.
            let _ = fs::remove_file(&mark);
            let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mark);
        }
    }

    /// The locked lock file of this pool; `None` if a running pool or another gateway holds the
    /// lock.
    fn lock(&self) -> io::Result<Option<File>> {
        let path = self.path("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // A pool that exits removes its lock file: another gateway may lock a new one.
        let is_there = fs::symlink_metadata(&path).is_ok_and(|found| {
            file.metadata()
                .is_ok_and(|locked| (locked.dev(), locked.ino()) == (found.dev(), found.ino()))
        });
        Ok(is_there.then_some(file))
    }

    /// Counts the running pools of this application, and removes the files of killed ones.
    fn count_running(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return 0;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pools = names.filter(|name| name.starts_with(&self.prefix));
        let sockets = pools.filter_map(|name| name.strip_suffix(".sock").map(str::to_owned));
        sockets
            .filter(|name| {
                let other = Self {
                    directory: self.directory.clone(),
                    prefix: self.prefix.clone(),
                    name: name.clone(),
                    socket: self.directory.join(format!("{name}.sock")),
                };
                let is_running = *name != self.name && !matches!(other.lock(), Ok(Some(_)));
                if !is_running && *name != self.name {
                    for suffix in ["sock", "pool", "lock", "log"] {
                        let _ = fs::remove_file(other.path(suffix));
                    }
                }
                is_running
            })
            .count()
    }

    /// The log of the pool: standard error of this request, unless that is a pipe whose reader
    /// waits for its end.
    fn log_output(&self) -> io::Result<Stdio> {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let kind = stderr.metadata()?.file_type();
        if kind.is_file() || kind.is_char_device() {
            return Ok(stderr.into());
        }
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        Ok(options.open(self.path("log"))?.into())
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.name))
    }
}

fn is_younger(file: &File, limit: Duration) -> bool {
    is_recent(file.metadata().and_then(|found| found.modified()).ok(), limit)
}

fn is_recent(time: Option<SystemTime>, limit: Duration) -> bool {
    time.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < limit)
}
