//! The warm pool of a request: its name, and how it is started.

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
        options::{Mode, Options},
        settings::Settings,
    },
    pool,
    request::Request,
    system::runtime_directory,
};

/// How long a pool that could not begin is not tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// How long an application is served cold after its import left open what one process at a time may
/// have.
const ONE_PROCESS_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often the log is told of the same trouble.
const TELLING: Duration = Duration::from_secs(60);

/// Pools of one script: more mean that something differs from request to request which is not known
/// to do so.
const MOST: usize = 8;

/// The program that runs, even if another has taken its place in the file system.
const OURSELVES: &str = "/proc/self/exe";

/// A warm pool, whether it runs or not.
pub(super) struct Pool {
    directory: PathBuf,
    /// The same for all pools of the application.
    family: String,
    name: String,
    pub(super) socket: PathBuf,
}

/// The right to start a pool, which nobody else has as long as this exists.
pub(super) struct Claim(File);

impl Pool {
    /// The one for requests of this kind.
    ///
    /// # Errors
    /// If there is no directory that it could be found in.
    pub(super) fn of(settings: &Settings, options: &Options) -> Result<Self, LogMessage> {
        let directory =
            runtime_directory::open().map_err(|error| {
                LogMessage::warning(
                Code::ServedCold,
                format!("there is no place for a warm pool, and the request is served cold: \
                    {error}"),
            )
            .hint("set WSGATE_RUNTIME_DIR to a directory of mode 0700 that belongs to the user of \
                the request")
            })?;
        let stem: String = pool::name_of(&settings.app).chars().take(12).collect();
        let family = format!("warm-{stem}-{:06x}-", identity::place(settings) & 0xff_ffff);
        let name =
            format!("{family}{:012x}", identity::digest(settings, options) & 0xffff_ffff_ffff);
        let socket = directory.join(format!("{name}.sock"));
        Ok(Self { directory, family, name, socket })
    }

    /// Claims it for this process, which may start it then. Nothing if somebody else has just done
    /// that, or if its requests are to be served cold.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn claim(&self) -> Result<Option<Claim>, LogMessage> {
        let Some(mut lock) = self.lock().map_err(|error| self.trouble(&error))? else {
            return Ok(None);
        };
        let mut said = Vec::new();
        (&mut lock).take(64).read_to_end(&mut said).map_err(|error| self.trouble(&error))?;
        if said == pool::warm_pool::ONE_PROCESS && is_younger(&lock, ONE_PROCESS_PAUSE) {
            return Ok(None);
        }
        if said == pool::warm_pool::FAILED && is_younger(&lock, PAUSE) {
            return Err(LogMessage::warning(
                Code::NoWarmPool,
                "the warm pool of this application could not begin".to_owned(),
            )
            .hint(format!(
                "requests are served cold; wsgate tries again every {} s; this log or `{}` says \
                 why",
                PAUSE.as_secs(),
                self.path("log").display()
            )));
        }
        if self.count_family() >= MOST {
            return Err(LogMessage::warning(
                Code::NoWarmPool,
                format!(
                    "this application has {MOST} warm pools already, since variables that its web \
                     server sets differ"
                ),
            )
            .hint(
                "requests are served cold; set in the web server's configuration only what is the \
                 same for all requests",
            ));
        }
        leftovers::remove(&self.directory, &self.name);
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(|error| self.trouble(&error))?;
        Ok(Some(Claim(lock)))
    }

    /// Has its requests served cold, without another attempt until the code changes or a day has
    /// passed, and says why.
    pub(super) fn forbid(
        &self,
        claim: Claim,
        settings: &Settings,
        request: &Request,
        listing: String,
    ) {
        let Claim(mut lock) = claim;
        // Without the mark there are more attempts.
        let _ = lock.write_all(pool::warm_pool::ONE_PROCESS);
        request.log(
            &LogMessage::warning(
                Code::OneProcessOnly,
                format!(
                    "`{}` left open while it was loaded what one process at a time may have, so \
                     its requests are served cold",
                    settings.app
                ),
            )
            .detail(listing)
            .hint(
                "let a request open it and close it again; or run a FastCGI pool with --workers 1 \
                 --threads 8",
            ),
        );
    }

    fn trouble(&self, error: &dyn std::fmt::Display) -> LogMessage {
        LogMessage::warning(Code::NoWarmPool, format!("no warm pool can be started: {error}")).hint(
            format!(
                "requests are served cold; look at the directory `{}` and at its file system",
                self.directory.display()
            ),
        )
    }

    /// Starts it. It can be used some time later.
    ///
    /// # Errors
    /// Why it is not started.
    pub(super) fn start(
        &self,
        claim: Claim,
        settings: &Settings,
        (options, base): (&Options, &Path),
        request: &Request,
    ) -> Result<(), LogMessage> {
        let Claim(lock) = claim;
        let warm_up = identity::warm_up_url(options, request).or_else(|| options.warm_up.clone());
        let options = &Options { warm_up, ..options.clone() };
        let mut command = Command::new(OURSELVES);
        command
            .arg("warm-pool")
            .args(options.words())
            .arg("--base")
            .arg(base)
            .arg("--socket")
            .arg(&self.socket);
        command.args(["--name", &self.name]);
        if options.mode == Mode::Resident {
            command.arg("--resident");
        }
        for witness in identity::witnesses(settings) {
            command.arg("--ends-on").arg(witness);
        }
        let app = serde_json::to_string(&settings.app).map_err(|error| self.trouble(&error))?;
        command
            .arg("--")
            .arg(app)
            .env_clear()
            .envs(identity::lasting_environment())
            .current_dir("/")
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(self.log().map_err(|error| self.trouble(&error))?);
        // It is let go: whoever inherits it when this process has ended takes note of its end.
        command.spawn().map(drop).map_err(|error| self.trouble(&error))
    }

    /// Logs `entry` about `request`, if nothing of its kind was logged a moment ago.
    pub(super) fn tell(&self, request: &Request, entry: &LogMessage) {
        let mark = self.directory.join(format!("{}{:04}.told", self.family, entry.code() as u16));
        let was_told = fs::symlink_metadata(&mark)
            .is_ok_and(|found| is_recent(found.modified().ok(), TELLING));
        if !was_told {
            request.log(entry);
            // Without a mark it is told too often.
            let _ = fs::remove_file(&mark);
            let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mark);
        }
    }

    /// The lock that a pool of this name holds as long as it lives, or nothing if it is held.
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
        // A pool that ends takes its file away; then another is locked by somebody else.
        let is_there = fs::symlink_metadata(&path).is_ok_and(|found| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
        });
        Ok(is_there.then_some(file))
    }

    /// Pools of this application that seem to run. What those that were killed have left behind is
    /// taken away.
    fn count_family(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return 0;
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let family = names.filter(|name| name.starts_with(&self.family));
        let sockets = family.filter_map(|name| name.strip_suffix(".sock").map(str::to_owned));
        sockets
            .filter(|name| {
                let other = Self {
                    directory: self.directory.clone(),
                    family: self.family.clone(),
                    name: name.clone(),
                    socket: self.directory.join(format!("{name}.sock")),
                };
                let lives = *name != self.name && !matches!(other.lock(), Ok(Some(_)));
                if !lives && *name != self.name {
                    for left in ["sock", "pool", "lock", "log"] {
                        let _ = fs::remove_file(other.path(left));
                    }
                }
                lives
            })
            .count()
    }

    /// Where a pool logs: where this request does, unless somebody waits for the end of that.
    fn log(&self) -> io::Result<Stdio> {
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
