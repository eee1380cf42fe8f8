//! `--mode warm`: hands a request to a process that has the application loaded already.
//!
//! Until the request has been handed over and taken, anything that goes wrong means that it is
//! served cold. From then on the guard watches over it, as over any other.

mod identity;
mod leftovers;
mod pool;

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::Path,
    time::Duration,
};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
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
    launch::BadLaunch,
    report::{Report, StopReason},
    running_clock,
    warm_request::{
        Greeting, Handoff, {self},
    },
};

use crate::{
    cgi::warm::pool::{Claim, Pool},
    config::{
        options::{Options, Warm, WhenFull},
        settings::Settings,
    },
    exit::Exit,
    guard::{
        Audit, Channels, Subject, {self},
    },
    python::start,
    request::Request,
    system::signals::Bell,
};

/// How long a process may take to begin with a request that it has offered to take.
const BEGINNING: Duration = Duration::from_secs(5);

/// What came of the attempt.
pub(super) enum Attempt {
    /// The request was served.
    Served(Exit),
    /// It is to be served cold.
    Cold(Channels),
}

/// Serves `request` by a process of a warm pool, if there is one. If there is none, one is started
/// for the requests that follow.
pub(super) fn serve(
    settings: &Settings,
    options: &Options,
    base: &Path,
    request: &Request,
    channels: Channels,
) -> Attempt {
    let options = crate::cgi::warm::identity::with_request(options, request);
    let pool = match Pool::of(settings, &options) {
        Ok(pool) => pool,
        Err(entry) => {
            request.log(&entry);
            return Attempt::Cold(channels);
        }
    };
    let connection = match dial(&pool.socket) {
        Ok(connection) => connection,
        Err(Errno::NOENT | Errno::CONNREFUSED) => {
            return match pool.claim() {
                Ok(Some(claim)) => Attempt::Served(serve_first(
                    &pool,
                    claim,
                    settings,
                    (&options, base),
                    request,
                    channels,
                )),
                Ok(None) => Attempt::Cold(channels),
                Err(entry) => {
                    pool.tell(request, &entry);
                    Attempt::Cold(channels)
                }
            };
        }
        // As many wait already as the kernel lets wait.
        Err(Errno::AGAIN) => return not_taken(&pool, &options.warm, request, channels),
        Err(error) => {
            pool.tell(
                request,
                &cold(format!("its socket `{}` cannot be used: {error}", pool.socket.display())),
            );
            return Attempt::Cold(channels);
        }
    };
    match hand_over(
        settings,
        request,
        &channels,
        connection,
        Duration::from_secs(options.warm.queue),
    ) {
        Ok(Handed::Taken(taken)) => {
            // The process has its own.
            drop(channels.body);
            let Taken { subject, connection, end_bell, lifeline } = taken;
            let exit = guard::take_over(
                settings,
                request,
                subject,
                connection,
                end_bell,
                channels.response,
            );
            drop(lifeline);
            Attempt::Served(exit)
        }
        Ok(Handed::Ended(stop)) => Attempt::Served(if guard::is_abandoned(&channels.response) {
            Exit::Failed
        } else {
            let sentence = format!("{} while it waited for a process", stop.sentence());
            let entry = LogMessage::error(Code::Terminated, sentence).hint(stop.hint());
            request.refuse(Status::ServiceUnavailable, &entry, channels.response)
        }),
        Ok(Handed::Gone) => Attempt::Cold(channels),
        Ok(Handed::NotTaken) => not_taken(&pool, &options.warm, request, channels),
        Err(reason) => {
            pool.tell(request, &cold(reason));
            Attempt::Cold(channels)
        }
    }
}

/// Serves a request cold, and starts the pool when the application is loaded; not before, since a
/// second process might not be able to load it meanwhile.
fn serve_first(
    pool: &Pool,
    claim: Claim,
    settings: &Settings,
    (options, base): (&Options, &Path),
    request: &Request,
    channels: Channels,
) -> Exit {
    let start = |claim| {
        if let Err(entry) = pool.start(claim, settings, (options, base), request) {
            pool.tell(request, &entry);
        }
    };
    guard::run_audited(settings, request, channels, |audit| match audit {
        Audit::Free | Audit::Unknown => start(claim),
        Audit::OneProcess(listing) => pool.forbid(claim, settings, request, listing),
    })
}

/// What becomes of a request that no process has taken in time.
fn not_taken(pool: &Pool, words: &Warm, request: &Request, channels: Channels) -> Attempt {
    let busy = format!("none of its processes was free within {} s", words.queue);
    match words.when_full {
        WhenFull::Cold => {
            pool.tell(request, &cold(busy));
            Attempt::Cold(channels)
        }
        WhenFull::Refuse => Attempt::Served(
            request.refuse(
                Status::ServiceUnavailable,
                &LogMessage::error(
                    Code::PoolFull,
                    format!("the warm pool does not take this request: {busy}"),
                )
                .hint(
                    "it may have `--max-processes` of them; `--queue` is how long requests wait, \
                     and `--when-full cold` serves them all the same",
                ),
                channels.response,
            ),
        ),
    }
}

/// What came of a hand-over.
enum Handed {
    Taken(Taken),
    /// The pool ends, or its code is not that of the files any more.
    Gone,
    /// No process was free in time.
    NotTaken,
    /// A signal has ended the request.
    Ended(StopReason),
}

/// A request that a process has taken.
struct Taken {
    subject: Subject,
    connection: OwnedFd,
    end_bell: Bell,
    /// Closed when this process ends, whatever ends it.
    lifeline: OwnedFd,
}

fn dial(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Offers the request to whoever of the pool answers before `patience` is over. More processes are
/// forked meanwhile, if there may be more.
///
/// # Errors
/// Why it is to be served cold, in words.
fn hand_over(
    settings: &Settings,
    request: &Request,
    channels: &Channels,
    connection: OwnedFd,
    patience: Duration,
) -> Result<Handed, String> {
    let words =
        |error: &dyn std::fmt::Display| format!("the request cannot be handed over: {error}");
    // Whoever listens there would get the request, with its passwords.
    if sockopt::socket_peercred(&connection).map_err(|error| words(&error))?.uid != geteuid() {
        return Err("its socket is another user's".to_owned());
    }
    let end_bell = guard::end_bell().map_err(|error| words(&error))?;
    let frame = frame(settings, request)
        .and_then(|handoff| handoff.to_file())
        .map_err(|error| words(&error))?;
    let (theirs, lifeline) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| words(&error))?;
    match await_packet(&connection, &end_bell, patience) {
        Awaited::Packet => {}
        Awaited::End => return Ok(Handed::Ended(guard::reason(&end_bell))),
        Awaited::Nothing => return Ok(Handed::NotTaken),
    }
    let (packet, descriptors) =
        warm_request::receive(connection.as_fd()).map_err(|error| words(&error))?;
    if packet.is_empty() {
        return Ok(Handed::Gone);
    }
    let greeting = Greeting::decode(&packet).map_err(|error| match error {
        BadLaunch::OtherBuild(other) => {
            format!(
                "its process is of build `{other}`, and this gateway of build `{}`",
                wire::build()
            )
        }
        other => words(&other),
    })?;
    let (Some(process), Some(pid)) = (descriptors.into_iter().next(), Pid::from_raw(greeting.pid))
    else {
        return Err("its process came without a descriptor".to_owned());
    };
    if greeting.stale {
        return Ok(Handed::Gone);
    }
    let stderr = io::stderr();
    let descriptors = [
        channels.body.as_fd(),
        channels.response.as_fd(),
        stderr.as_fd(),
        frame.as_fd(),
        theirs.as_fd(),
    ];
    if warm_request::send(connection.as_fd(), b"request", &descriptors).is_err() {
        return Ok(Handed::Gone);
    }
    drop(theirs);
    // From here on it may begin at any moment. It says so before it does.
    let awaited = await_packet(&connection, &end_bell, BEGINNING);
    if !matches!(awaited, Awaited::Packet) {
        // Either it has begun by now, or it never will.
        guard::signal_process(pid, &process, Signal::KILL);
        let limit = Timespec::try_from(BEGINNING).ok();
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], limit.as_ref());
    }
    let (packet, _) = warm_request::receive(connection.as_fd()).unwrap_or_default();
    match Report::decode(&packet) {
        Some(Report::Ready) => Ok(Handed::Taken(Taken {
            subject: Subject::Another { pid, process },
            connection,
            end_bell,
            lifeline,
        })),
        _ => match awaited {
            Awaited::Packet => Err("its process ended before it began with the request".to_owned()),
            Awaited::End => Ok(Handed::Ended(guard::reason(&end_bell))),
            Awaited::Nothing => Err("its process did not begin with the request".to_owned()),
        },
    }
}

/// What came first.
enum Awaited {
    Packet,
    End,
    Nothing,
}

fn await_packet(connection: &OwnedFd, end: &Bell, patience: Duration) -> Awaited {
    let deadline = running_clock::instant() + patience;
    loop {
        let left = deadline.saturating_duration_since(running_clock::instant());
        let mut watched = [PollFd::new(connection, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        let polled = running_clock::wait(Some(left), |patience| {
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            poll(&mut watched, patience.as_ref())
        });
        match polled {
            Ok(0) if left.is_zero() => return Awaited::Nothing,
            Ok(0) => {}
            Ok(_) if !watched[0].revents().is_empty() => return Awaited::Packet,
            Ok(_) => return Awaited::End,
            Err(Errno::INTR) => {}
            Err(_) => return Awaited::Nothing,
        }
    }
}

fn frame(settings: &Settings, request: &Request) -> io::Result<Handoff> {
    // It can only be read by changing it. This process has one thread and makes no file between the
    // two.
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    Ok(Handoff {
        environment: start::environment(settings, request)
            .into_iter()
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect(),
        working_directory: settings.working_directory.as_os_str().as_bytes().to_vec(),
        umask: mask.as_raw_mode(),
        request_id: request.id.clone(),
        request: request.line(),
        form: request.form,
        timeout_seconds: settings.timeout.map_or(0, |timeout| timeout.as_secs()),
    })
}

/// The entry for a request that is served cold for this reason.
fn cold(reason: String) -> LogMessage {
    LogMessage::warning(
        Code::ServedCold,
        format!("the warm pool does not serve this request: {reason}"),
    )
    .hint(
        "it is served cold; if this goes on, `wsgate status` shows the pool, and `wsgate stop \
             POOL` has it started again",
    )
}
