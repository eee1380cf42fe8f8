//! Starts python with the engine and the inherited file descriptors.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{
        Seek as _, Write as _, {self},
    },
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    process::{Command, Stdio},
};

use diagnostics::{
    log_style::{self, LogFormat, LogStyle, Prefix},
    request_id,
};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};
use wire::{
    launch::{Launch, LogSettings, Work},
    message,
    request::{ProcessState, RequestMessage},
};

use crate::{config::settings::Settings, request::Request};

/// The Python code that loads the engine.
const BOOTSTRAP: &str = include_str!("../python/bootstrap.py");

/// The file descriptor `number` with the Python code that loads the engine, as an argument of
/// python. A program that is not Python may write its arguments to the log: they are short.
fn bootstrap_argument(number: RawFd) -> String {
    format!("import posix; bootstrap = {number}; exec(posix.read(bootstrap, 65536))")
}

/// A file in memory with [`BOOTSTRAP`].
fn bootstrap_file() -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("wsgate-bootstrap", MemfdFlags::CLOEXEC)?);
    file.write_all(BOOTSTRAP.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// Variables that are set for this process alone: by a service manager (sd_listen_fds(3),
/// sd_notify(3), sd_watchdog_enabled(3)), or by wsgate itself in an upgrade. With these variables,
/// an application would use file descriptors of wsgate, or notify the service manager itself.
pub(crate) const OWN_VARIABLES: [&str; 8] = [
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WSGATE_UPGRADE",
];

/// Variables that `--clear-env` keeps, besides `LC_*`. Its help and docs/fastcgi.md list them; the
/// last one is an option of the pool.
const KEPT_VARIABLES: [&str; 11] = [
    "PATH",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "MAIL",
    "FCGI_WEB_SERVER_ADDRS",
];

/// Variables of the session that a supervisor reads, besides [`OWN_VARIABLES`] and `WSGATE_*`.
const SESSION_VARIABLES: [&str; 2] = ["JOURNAL_STREAM", "XDG_RUNTIME_DIR"];

/// A python that can be started.
pub(crate) struct Start {
    /// The command, which may be changed before it is run.
    pub(crate) command: Command,
    /// The gateway's end of the socket to the engine.
    pub(crate) channel: OwnedFd,
    /// The gateway's end of a pipe: the kernel kills python when it is closed, at the latest when
    /// this process exits. The signal for the death of a parent (prctl(2)) is lost when an
    /// application changes its user.
    pub(crate) gateway_pipe: OwnedFd,
    /// Descriptors that python inherits by number, and that stay open until it is started.
    _inherited: [OwnedFd; 4],
}

impl Start {
    /// A python for `work`, with the file descriptors `inherited` that `work` names. `request`
    /// identifies the work in the log.
    ///
    /// # Errors
    /// If file descriptors or memory are short.
    pub(crate) fn new(
        settings: &Settings,
        work: Work,
        request: &Request,
        inherited: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let (channel, engines_end) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (pythons_end, gateway_pipe) = pipe_with(PipeFlags::CLOEXEC)?;
        // A process that becomes the worker itself has no gateway.
        let has_gateway = !matches!(work, Work::Worker(_));
        let gateway_pipe_fd = has_gateway.then(|| pythons_end.as_raw_fd());
        let launch = Launch {
            work,
            app: settings.app.clone(),
            sys_path: settings
                .sys_path
                .iter()
                .map(|directory| directory.as_os_str().as_bytes().to_vec())
                .collect(),
            pycache_prefix: settings
                .pycache_prefix
                .as_ref()
                .map(|directory| directory.as_os_str().as_bytes().to_vec()),
            venv: settings.interpreter.venv.clone(),
            skipped_venv: settings.interpreter.skipped.clone(),
            debug: settings.debug,
            log: log_settings(),
            request: request_message(settings, request, None),
            warm_up: settings.warm_up.clone(),
            after_fork: settings.after_fork.clone(),
            script_name: settings.script_name.clone(),
            proxies: settings.proxies.clone(),
            offload: settings.offload.clone(),
            gateway_pid: rustix::process::getpid().as_raw_nonzero().get(),
            report_fd: engines_end.as_raw_fd(),
            gateway_pipe_fd,
        };
        let launch = message::to_file(&launch, "wsgate-launch")?;
        let bootstrap = bootstrap_file()?;
        let held = settings.engine.held();
        let gateway_end = has_gateway.then(|| pythons_end.as_fd());
        for descriptor in [engines_end.as_fd(), launch.as_fd(), bootstrap.as_fd()]
            .iter()
            .chain(&gateway_end)
            .chain(inherited)
            .chain(&held)
        {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let mut command = Command::new(&settings.interpreter.program);
        command
            .args(["-c", &bootstrap_argument(bootstrap.as_raw_fd())])
            .arg(settings.engine.path())
            .arg(launch.as_raw_fd().to_string())
            .arg(engines_end.as_raw_fd().to_string())
            .args(held.map(|held| held.as_raw_fd().to_string()))
            .current_dir(&settings.working_directory)
            .env_clear()
            .envs(environment(settings, request))
            // The engine has the body and the response; the output of the application goes to the
            // log.
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?);
        let inherited = [engines_end, launch, pythons_end, bootstrap];
        Ok(Self { command, channel, gateway_pipe, _inherited: inherited })
    }
}

/// The environment of an application, without repeated names.
pub(crate) fn environment(settings: &Settings, request: &Request) -> BTreeMap<OsString, OsString> {
    // The first value of a repeated variable counts (RFC 3875 4.1: names are unique).
    let inherited: Vec<_> = std::env::vars_os().collect();
    let mut environment: BTreeMap<_, _> = inherited
        .into_iter()
        .rev()
        .filter(|(name, _)| !OWN_VARIABLES.iter().any(|known| name == known))
        .filter(|(name, _)| !settings.clears_environment || is_always_kept(name))
        .chain(settings.variables.iter().cloned())
        .chain(request.variables.iter().cloned())
        .collect();
    // HTTP clients would use this request header as their proxy setting (CVE-2016-1000110).
    environment.remove(OsStr::new("HTTP_PROXY"));
    environment
}

/// Does `--clear-env` keep the variable `name`?
fn is_always_kept(name: &OsStr) -> bool {
    KEPT_VARIABLES.iter().any(|kept| name == *kept) || name.as_bytes().starts_with(b"LC_")
}

/// The environment of the next program of a pool with `--clear-env`. What the option drops is not
/// passed on: unlike the environment of a process that root has started, that of an executed
/// program can be read by the user that it runs as.
pub(crate) fn cleared_environment() -> impl Iterator<Item = (OsString, OsString)> {
    let is_own = |name: &OsStr| {
        OWN_VARIABLES.iter().chain(&SESSION_VARIABLES).any(|known| name == *known)
            || name.as_bytes().starts_with(b"WSGATE_")
    };
    std::env::vars_os().filter(move |(name, _)| is_always_kept(name) || is_own(name))
}

/// The style of this process, for the process that it starts.
pub(crate) fn log_settings() -> LogSettings {
    let LogStyle { format, pool, prefix } = log_style::get();
    LogSettings {
        is_json: format == LogFormat::Json,
        pool,
        has_time: prefix == Prefix::Time,
        has_priority: prefix == Prefix::Priority,
        sends_request_id: request_id::is_sent(),
    }
}

/// The message that describes `request` to the process that serves the request. `process` has the
/// settings that this process does not inherit.
pub(crate) fn request_message(
    settings: &Settings,
    request: &Request,
    process: Option<ProcessState>,
) -> RequestMessage {
    RequestMessage {
        id: request.id.clone(),
        line: request.line(),
        response_format: request.form,
        timeout_seconds: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
        response_timeout_seconds: settings.response_timeout.map_or(0, |timeout| timeout.as_secs()),
        process,
    }
}
