//! A process of a warm pool: forked ahead of the one CGI request that it serves, with the application loaded.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use link::{
    handoff::{self, DESCRIPTORS, Greeting, Handoff},
    launch::{Launch, Service},
    report::Report,
};
use pyo3::{
    prelude::*,
    types::{PyBytes, PyDict},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, Mode, OFlags, openat},
    io::{Errno, ioctl_fionbio},
    net::{SocketFlags, accept_with, sockopt},
    process::{
        Pid, PidfdFlags, Signal, chdir, geteuid, getpid, pidfd_open, set_parent_process_death_signal, setpgid, umask,
    },
    stdio::{dup2_stderr, dup2_stdin, dup2_stdout},
};
use signal_hook::{SigId, consts::SIGTERM, low_level};

use super::{
    cold::{self, Asked},
    fork,
    fresh::Fresh,
    interpreter::{self, Heeds},
    lifeline, serving,
    watched::{Board, Watched},
};
use crate::{log::Log, reporter::Reporter, wsgi::Setting};

/// How long a gateway may take to send its request after it was greeted. It has it ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves one request, or none if it is told to end before that. Returns the exit status of this process.
pub(super) fn run(
    py: Python<'_>,
    application: &Bound<'_, PyAny>,
    launch: &Launch,
    service: &Service,
    listeners: Vec<OwnedFd>,
    (board, slot): (Board, u32),
    fresh: Fresh,
) -> PyResult<i32> {
    let watched = Watched::new(board, slot, 1, 0)?;
    let spare = Spare { listeners, stop: Stop::listen()?, fresh, supervisor: Pid::from_raw(launch.gateway_pid) };
    fork::unblock_signals();
    let Some(taken) = py.detach(|| spare.request())? else {
        return Ok(0);
    };
    // What follows is the request's alone.
    drop(spare);
    let Taken { connection, handoff, descriptors: [body, reply, errors, lifeline] } = taken;
    chdir(handoff.working_directory.as_slice()).map_err(io::Error::from)?;
    umask(Mode::from_raw_mode(handoff.umask));
    take_environment(py, &handoff.environment)?;
    let reporter = Reporter::new(connection);
    let interruptible = interpreter::end_by_exception(py, &reporter, Heeds::Gateway)?;
    let signal = py.import("_signal")?;
    for ours in [Signal::CHILD, Signal::USR1] {
        signal.call_method1("signal", (ours.as_raw(), 0))?;
    }
    // A group of its own, as with any CGI request, so that what it has started can be ended with it.
    setpgid(None, None).map_err(io::Error::from)?;
    lifeline::hold_to(&lifeline)?;
    // From here on the request's life is the gateway's to watch, and no other process's.
    set_parent_process_death_signal(None).map_err(io::Error::from)?;
    dup2_stdin(openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?)
        .map_err(io::Error::from)?;
    dup2_stdout(&errors).map_err(io::Error::from)?;
    dup2_stderr(errors).map_err(io::Error::from)?;
    let log = Log::new(&handoff.request_id, &handoff.request);
    watched.begin(py, 0, log.line(), interruptible.clone());
    reporter.send(&Report::Ready);
    let asked = Asked { log, variables: handoff.environment, body, reply, reporter, interruptible, form: handoff.form };
    let setting = Setting { timeout_seconds: handoff.timeout_seconds, ..serving::setting(launch, service) };
    let served = cold::serve(py, asked, setting, |_| Ok(application.clone()));
    watched.end(0);
    watched.leave(0);
    // Held until here; the kernel closes it with the process.
    std::mem::forget(lifeline);
    served.map(|()| 0)
}

/// A process that waits for its request.
struct Spare {
    listeners: Vec<OwnedFd>,
    stop: Stop,
    fresh: Fresh,
    supervisor: Option<Pid>,
}

/// A request that nobody else will serve.
struct Taken {
    connection: OwnedFd,
    handoff: Handoff,
    descriptors: [OwnedFd; DESCRIPTORS - 1],
}

impl Spare {
    /// Waits for a request; none if this process is to end.
    fn request(&self) -> io::Result<Option<Taken>> {
        let ourselves = pidfd_open(getpid(), PidfdFlags::empty())?;
        for listener in &self.listeners {
            // Another process may have taken the connection that woke us.
            ioctl_fionbio(listener, true)?;
        }
        loop {
            let listeners = self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN));
            let mut watched: Vec<_> =
                [PollFd::new(&self.stop.ours, PollFlags::IN)].into_iter().chain(listeners).collect();
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !watched[0].revents().is_empty() {
                return Ok(None);
            }
            for listener in &self.listeners {
                if let Ok(connection) = accept_with(listener, SocketFlags::CLOEXEC)
                    && let Some(taken) = self.greet(connection, &ourselves)
                {
                    return Ok(Some(taken));
                }
            }
        }
    }

    /// Offers to serve whoever has connected. Nothing comes of it if that one is another user, has gone, or finds the code stale.
    fn greet(&self, connection: OwnedFd, ourselves: &OwnedFd) -> Option<Taken> {
        if sockopt::socket_peercred(&connection).ok()?.uid != geteuid() {
            return None;
        }
        let stale = self.fresh.is_stale();
        let greeting = Greeting { pid: getpid().as_raw_nonzero().get(), stale }.encode().ok()?;
        handoff::send(connection.as_fd(), &greeting, &[ourselves.as_fd()]).ok()?;
        if stale {
            self.fresh.tell(self.supervisor);
            return None;
        }
        let mut watched = [PollFd::new(&connection, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).ok()?;
        while let Err(Errno::INTR) = poll(&mut watched, Some(&patience)) {}
        let (_, descriptors) = handoff::receive(connection.as_fd()).ok()?;
        let [body, reply, errors, frame, lifeline] = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors).ok()?;
        let handoff = Handoff::from_file(frame).ok()?;
        Some(Taken { connection, handoff, descriptors: [body, reply, errors, lifeline] })
    }
}

/// Readable when the supervisor has told this process to end.
struct Stop {
    ours: UnixStream,
    registered: SigId,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        let (ours, handlers) = UnixStream::pair()?;
        Ok(Self { ours, registered: low_level::pipe::register(SIGTERM, handlers)? })
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        low_level::unregister(self.registered);
    }
}

/// Makes `variables` the environment of this process, for Python and for libraries in C.
fn take_environment(py: Python<'_>, variables: &[(Vec<u8>, Vec<u8>)]) -> PyResult<()> {
    let environment = py.import("os")?.getattr("environb")?;
    let fresh = PyDict::new(py);
    // Python itself sets it at its start where no locale is set (PEP 538), and programs that it starts are to have it.
    let coerced = PyBytes::new(py, b"LC_CTYPE");
    if let Ok(locale) = environment.get_item(&coerced) {
        fresh.set_item(coerced, locale)?;
    }
    environment.call_method0("clear")?;
    for (name, value) in variables {
        fresh.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
    }
    environment.call_method1("update", (fresh,))?;
    Ok(())
}
