//! Starts python with everything it inherits.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    process::{Command, Stdio},
    time::Instant,
};

use link::launch::{Launch, Work};
use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::{Channels, Guard, Seen, Signals};
use crate::{request::Request, settings::Settings};

/// The lines of Python that load the engine.
const BOOTSTRAP: &str = include_str!("bootstrap.py");

impl<'a> Guard<'a> {
    /// Starts python for `work`.
    pub(super) fn start(
        settings: &'a Settings,
        work: Work,
        request: &'a Request,
        channels: Channels,
    ) -> io::Result<Self> {
        let signals = Signals::register()?;
        let (reports, engines_end) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let launch = Launch {
            work,
            app: settings.app.clone(),
            sys_path: settings.sys_path.iter().map(|directory| directory.as_os_str().as_bytes().to_vec()).collect(),
            pycache_prefix: settings.pycache_prefix.as_ref().map(|directory| directory.as_os_str().as_bytes().to_vec()),
            venv: settings.interpreter.venv.clone(),
            debug: settings.debug,
            request_id: request.id.clone(),
            request: request.line(),
            form: request.form,
            timeout_seconds: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
            gateway_pid: rustix::process::getpid().as_raw_nonzero().get(),
            body_fd: channels.body.as_raw_fd(),
            reply_fd: channels.reply.as_raw_fd(),
            report_fd: engines_end.as_raw_fd(),
        };
        let frame = launch_frame(&launch)?;
        for inherited in [channels.body.as_fd(), channels.reply.as_fd(), engines_end.as_fd(), frame.as_fd()] {
            fcntl_setfd(inherited, FdFlags::empty())?;
        }
        let environment: Vec<_> = std::env::vars_os().collect();
        let mut command = Command::new(&settings.interpreter.program);
        command
            .args(["-c", BOOTSTRAP])
            .arg(&settings.engine)
            .arg(frame.as_raw_fd().to_string())
            .arg(engines_end.as_raw_fd().to_string())
            .current_dir(&settings.working_directory)
            // A variable that comes twice has its first value for everybody (RFC 3875 4.1: names are unique).
            .env_clear()
            .envs(environment.into_iter().rev())
            .envs(settings.variables.iter().map(|(name, value)| (name, value)))
            .envs(request.variables.iter().map(|(name, value)| (name, value)))
            // A header that HTTP clients take for a setting (CVE-2016-1000110).
            .env_remove("HTTP_PROXY")
            // Body and reply are the engine's; what the application prints goes to the log.
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            // A group of its own, so that what it has started can be ended with it.
            .process_group(0);
        let child = command.spawn()?;
        Ok(Self {
            request,
            settings,
            child,
            reports,
            signals,
            started: Instant::now(),
            seen: Seen::default(),
            stopping: None,
        })
    }
}

fn launch_frame(launch: &Launch) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("wsgate-launch", MemfdFlags::CLOEXEC)?);
    file.write_all(&launch.encode().map_err(io::Error::other)?)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}
