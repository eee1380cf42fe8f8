//! Starts python with the engine, and with everything it inherits.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{
        Write as _, {self},
    },
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    process::{Command, Stdio},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::{PipeFlags, pipe_with},
};
use wire::launch::{Launch, Work};

use crate::{config::settings::Settings, request::Request};

/// The lines of Python that load the engine.
const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// Variables that a service manager sets for this process alone (sd_listen_fds(3), sd_notify(3),
/// sd_watchdog_enabled(3)): an application that finds them would take descriptors of ours for its
/// own, or speak in our place.
pub(crate) const OF_THE_MANAGER: [&str; 7] = [
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A python that can be started.
pub(crate) struct Start {
    /// The command; whoever runs it may change what is around it.
    pub(crate) command: Command,
    /// Our end of the socket to the engine.
    pub(crate) channel: OwnedFd,
    /// While this is open, python lives: the kernel kills it when this process has ended. The
    /// signal for the death of a parent is lost when an application changes its user.
    pub(crate) lifeline: OwnedFd,
    /// What python inherits by number and must stay open until it is started.
    _inherited: [OwnedFd; 3],
}

impl Start {
    /// A python for `work`, which inherits the descriptors `inherited` that it names. `request`
    /// names in the log what it is for.
    ///
    /// # Errors
    /// If descriptors or memory are short.
    pub(crate) fn new(
        settings: &Settings,
        work: Work,
        request: &Request,
        inherited: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let (channel, engines_end) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let (pythons_lifeline, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;
        // A worker that this process becomes is watched by nobody.
        let lifeline_fd = (!matches!(work, Work::Worker(_))).then(|| pythons_lifeline.as_raw_fd());
        let frame = frame(&Launch {
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
            debug: settings.debug,
            request_id: request.id.clone(),
            request: request.line(),
            form: request.form,
            timeout_seconds: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
            warm_up: settings.warm_up.clone(),
            script_name: settings.script_name.clone(),
            gateway_pid: rustix::process::getpid().as_raw_nonzero().get(),
            report_fd: engines_end.as_raw_fd(),
            gateway_pipe_fd: lifeline_fd,
        })?;
        let held = settings.engine.held();
        let inherits_lifeline = lifeline_fd.map(|_| pythons_lifeline.as_fd());
        for descriptor in [engines_end.as_fd(), frame.as_fd()]
            .iter()
            .chain(&inherits_lifeline)
            .chain(inherited)
            .chain(&held)
        {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let mut command = Command::new(&settings.interpreter.program);
        command
            .args(["-c", BOOTSTRAP])
            .arg(settings.engine.path())
            .arg(frame.as_raw_fd().to_string())
            .arg(engines_end.as_raw_fd().to_string())
            .args(held.map(|held| held.as_raw_fd().to_string()))
            .current_dir(&settings.working_directory)
            .env_clear()
            .envs(environment(settings, request))
            // Body and response are the engine's; what the application prints goes to the log.
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?);
        Ok(Self { command, channel, lifeline, _inherited: [engines_end, frame, pythons_lifeline] })
    }
}

/// The variables that an application finds, each name once.
pub(crate) fn environment(settings: &Settings, request: &Request) -> BTreeMap<OsString, OsString> {
    // A variable that comes twice has its first value for everybody (RFC 3875 4.1: names are
    // unique).
    let inherited: Vec<_> = std::env::vars_os().collect();
    let mut environment: BTreeMap<_, _> = inherited
        .into_iter()
        .rev()
        .filter(|(name, _)| !OF_THE_MANAGER.iter().any(|known| name == known))
        .chain(settings.variables.iter().cloned())
        .chain(request.variables.iter().cloned())
        .collect();
    // A header that HTTP clients take for a setting (CVE-2016-1000110).
    environment.remove(OsStr::new("HTTP_PROXY"));
    environment
}

fn frame(launch: &Launch) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("wsgate-launch", MemfdFlags::CLOEXEC)?);
    file.write_all(&launch.encode().map_err(io::Error::other)?)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
