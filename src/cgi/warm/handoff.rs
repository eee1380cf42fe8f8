//! The handoff of a CGI request to a worker of a warm pool.

use std::{
    fmt::Display,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::Mode,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, geteuid, umask},
};
use wire::{
    descriptors,
    message::{
        DecodeError, {self},
    },
    report::{Report, StopReason},
    request::{Greeting, MAX_GREETING_BYTES, ProcessState, RequestFollows, RequestMessage},
    running_clock,
};

use crate::{
    config::settings::Settings,
    guard::{
        Channels, ServingProcess, start, {self},
    },
    request::Request,
    system::signals::SignalPipe,
};

/// How long a worker may take to start a request that it has accepted.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of a handoff.
pub(super) enum HandoffResult {
    /// A worker has taken the request.
    Taken(TakenRequest),
    /// The pool is stopping, or its code is stale.
    PoolStops,
    /// No worker was idle in time.
    NotTaken,
    /// A signal stopped the request.
    Stopped(StopReason),
}

/// A request that a worker has taken.
pub(super) struct TakenRequest {
    pub(super) process: ServingProcess,
    pub(super) connection: OwnedFd,
    pub(super) stop_signals: SignalPipe,
    /// The kernel closes this end when the gateway exits, even if the gateway is killed.
    pub(super) gateway_pipe: OwnedFd,
}

/// Connects to the socket of a warm pool, without waiting.
pub(super) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Offers the request to the first worker that responds within `timeout`. Meanwhile the pool forks
/// more workers, up to its limit.
///
/// # Errors
/// The reason for the fallback to cold CGI.
pub(super) fn hand_over(
    settings: &Settings,
    request: &Request,
    channels: &Channels,
    connection: OwnedFd,
    timeout: Duration,
) -> Result<HandoffResult, String> {
    let failed = |error: &dyn Display| format!("the request cannot be handed over: {error}");
    // The request may contain passwords, so its receiver must be trusted.
    if sockopt::socket_peercred(&connection).map_err(|error| failed(&error))?.uid != geteuid() {
        return Err("its socket belongs to another user".to_owned());
    }
    let stop_signals = guard::stop_signals().map_err(|error| failed(&error))?;
    let file = message::to_file(&request_message(settings, request), "wsgate-request")
        .map_err(|error| failed(&error))?;
    let (workers_end, gateway_pipe) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(&error))?;
    match await_packet(&connection, &stop_signals, timeout) {
        FirstEvent::Packet => {}
        FirstEvent::Signal => {
            return Ok(HandoffResult::Stopped(guard::stop_reason(&stop_signals)));
        }
        FirstEvent::Timeout => return Ok(HandoffResult::NotTaken),
    }
    let mut packet = [0; MAX_GREETING_BYTES];
    let received =
        descriptors::receive(&connection, &mut packet).map_err(|error| failed(&error))?;
    if received.length == 0 {
        return Ok(HandoffResult::PoolStops);
    }
    let greeting = message::decode(&packet[..received.length]);
    let greeting: Greeting = greeting.map_err(|error| match error {
        DecodeError::OtherBuild(other) => {
            format!("its worker is of build `{other}`, this gateway of build `{}`", wire::build())
        }
        other => failed(&other),
    })?;
    let (Some(process), Some(pid)) =
        (received.descriptors.into_iter().next(), Pid::from_raw(greeting.pid))
    else {
        return Err("its worker sent no descriptor".to_owned());
    };
    if greeting.stale {
        return Ok(HandoffResult::PoolStops);
    }
    let stderr = io::stderr();
    let descriptors = [
        channels.body.as_fd(),
        channels.response.as_fd(),
        stderr.as_fd(),
        file.as_fd(),
        workers_end.as_fd(),
    ];
    let follows = message::encode(&RequestFollows).map_err(|error| failed(&error))?;
    if descriptors::send(&connection, &follows, &descriptors).is_err() {
        return Ok(HandoffResult::PoolStops);
    }
    drop(workers_end);
    // The worker reports before it starts.
    let first = await_packet(&connection, &stop_signals, START_TIMEOUT);
    if !matches!(first, FirstEvent::Packet) {
        // From here on, the worker has either started the request or never starts it.
        guard::signal_process(pid, &process, Signal::KILL);
        let limit = Timespec::try_from(START_TIMEOUT).ok();
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref());
    }
    let received = descriptors::receive(&connection, &mut packet).unwrap_or_default();
    match Report::decode(&packet[..received.length]) {
        Some(Report::Ready) => Ok(HandoffResult::Taken(TakenRequest {
            process: ServingProcess::PoolWorker { pid, process },
            connection,
            stop_signals,
            gateway_pipe,
        })),
        _ => match first {
            FirstEvent::Packet => Err("its worker exited before it started the request".to_owned()),
            FirstEvent::Signal => Ok(HandoffResult::Stopped(guard::stop_reason(&stop_signals))),
            FirstEvent::Timeout => Err(format!(
                "its worker did not start the request within {} s",
                START_TIMEOUT.as_secs()
            )),
        },
    }
}

/// The first event of a wait.
enum FirstEvent {
    Packet,
    Signal,
    Timeout,
}

fn await_packet(connection: &OwnedFd, stop_signals: &SignalPipe, timeout: Duration) -> FirstEvent {
    let deadline = running_clock::instant() + timeout;
    loop {
        let left = deadline.saturating_duration_since(running_clock::instant());
        let mut watched =
            [PollFd::new(connection, PollFlags::IN), PollFd::new(stop_signals, PollFlags::IN)];
        let polled = running_clock::wait(Some(left), |limit| {
            let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
            poll(&mut watched, limit.as_ref())
        });
        match polled {
            Ok(0) if left.is_zero() => return FirstEvent::Timeout,
            Ok(0) => {}
            Ok(_) if !watched[0].revents().is_empty() => return FirstEvent::Packet,
            Ok(_) => return FirstEvent::Signal,
            Err(Errno::INTR) => {}
            Err(_) => return FirstEvent::Timeout,
        }
    }
}

/// The request in the form that a worker of the pool receives.
fn request_message(settings: &Settings, request: &Request) -> RequestMessage {
    // The umask can only be read by setting it. This process has one thread, and creates no file
    // between the two calls.
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    let process = ProcessState {
        environment: start::environment(settings, request)
            .into_iter()
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect(),
        working_directory: settings.working_directory.as_os_str().as_bytes().to_vec(),
        umask: mask.as_raw_mode(),
    };
    start::request_message(settings, request, Some(process))
}
