//! `--mode warm` and `--mode resident`: a worker of a warm pool serves the request.
//!
//! Until a worker has taken the request, every failure falls back to cold CGI. From then on, the
//! guard watches the worker like a cold interpreter.

mod handoff;
mod identity;
mod leftovers;
mod pool;

use std::{path::Path, time::Duration};

use diagnostics::{
    error_page::Status,
    message::{Code, LogMessage},
};
use rustix::io::Errno;
use wire::report::StopReason;

use crate::{
    cgi::warm::{
        handoff::{HandoffResult, TakenRequest},
        pool::{StartLock, WarmPool},
    },
    config::{
        missing_path::MissingPath,
        options::{ScriptOptions, WarmOptions, WhenFull},
        settings::Settings,
    },
    exit::Exit,
    guard::{
        Audit, Channels, {self},
    },
    request::Request,
};

/// The result of an attempt to serve a request by a warm pool.
pub(super) enum WarmAttempt {
    /// The request was served.
    Served(Exit),
    /// A new interpreter is to serve the request.
    Cold(Channels),
}

/// Serves `request` by a worker of a warm pool. If no pool is running, the request starts one for
/// the requests that follow.
pub(super) fn serve(
    settings: &Settings,
    options: &ScriptOptions,
    base: &Path,
    request: &Request,
    channels: Channels,
) -> WarmAttempt {
    let options = identity::with_request(options, request);
    let pool = match WarmPool::of(settings, &options) {
        Ok(pool) => pool,
        Err(message) => {
            request.log(&message);
            return WarmAttempt::Cold(channels);
        }
    };
    let connection = match handoff::connect_to(&pool.socket) {
        Ok(connection) => connection,
        Err(Errno::NOENT | Errno::CONNREFUSED) => {
            return match pool.lock_for_start() {
                Ok(Some(lock)) => {
                    let started = (&options, base);
                    let exit = serve_first(&pool, lock, settings, started, request, channels);
                    WarmAttempt::Served(exit)
                }
                Ok(None) => WarmAttempt::Cold(channels),
                Err(message) => {
                    pool.log(request, &message);
                    WarmAttempt::Cold(channels)
                }
            };
        }
        // The accept queue is full.
        Err(Errno::AGAIN) => return pool_full(&pool, &options.warm, request, channels),
        Err(error) => {
            let path = pool.socket.display();
            pool.log(request, &fallback(&format!("its socket `{path}` cannot be used: {error}")));
            return WarmAttempt::Cold(channels);
        }
    };
    let timeout = Duration::from_secs(options.warm.queue);
    match handoff::hand_over(settings, request, &channels, connection, timeout) {
        Ok(HandoffResult::Taken(taken)) => {
            // The worker has a file descriptor of the body.
            drop(channels.body);
            let TakenRequest { process, connection, stop_signals, gateway_pipe } = taken;
            let response = channels.response;
            let exit =
                guard::take_over(settings, request, process, connection, stop_signals, response);
            drop(gateway_pipe);
            WarmAttempt::Served(exit)
        }
        Ok(HandoffResult::Stopped(stop)) => {
            WarmAttempt::Served(refuse_stopped(stop, request, channels))
        }
        Ok(HandoffResult::PoolStops) => WarmAttempt::Cold(channels),
        Ok(HandoffResult::NotTaken) => pool_full(&pool, &options.warm, request, channels),
        Err(reason) => {
            pool.log(request, &fallback(&reason));
            WarmAttempt::Cold(channels)
        }
    }
}

/// Serves a request cold, and starts the pool once the application is loaded. A pool that started
/// earlier would load the application at the same time, which not every application allows.
fn serve_first(
    pool: &WarmPool,
    lock: StartLock,
    settings: &Settings,
    (options, base): (&ScriptOptions, &Path),
    request: &Request,
    channels: Channels,
) -> Exit {
    let missing = [MissingPath::of_loading(settings), MissingPath::of_watching(settings)];
    missing.iter().flatten().for_each(|missing| request.log(&missing.message()));
    let start = |lock| {
        if let Err(message) = pool.start(lock, settings, (options, base), request) {
            pool.log(request, &message);
        }
    };
    guard::run_audited(settings, request, channels, |audit| match audit {
        Audit::ManyProcesses | Audit::Unknown => start(lock),
        Audit::OneProcess(findings) => pool.forbid(lock, settings, request, findings),
    })
}

/// Responds to a request that a signal stopped before a worker took the request.
fn refuse_stopped(stop: StopReason, request: &Request, channels: Channels) -> Exit {
    if guard::is_client_disconnected(&channels.response) {
        return Exit::Failure;
    }
    let sentence = format!("{} while it waited for a worker", stop.sentence());
    let message = LogMessage::new(Code::Terminated, sentence).hint(stop.hint());
    request.refuse(Status::ServiceUnavailable, &message, channels.response)
}

/// Applies `--when-full` to a request that no worker has taken in time.
fn pool_full(
    pool: &WarmPool,
    options: &WarmOptions,
    request: &Request,
    channels: Channels,
) -> WarmAttempt {
    let busy = format!("no worker was idle within --queue ({} s)", options.queue);
    match options.when_full {
        WhenFull::Cold => {
            pool.log(request, &fallback(&busy));
            WarmAttempt::Cold(channels)
        }
        WhenFull::Refuse => {
            let sentence = format!("the warm pool does not take this request: {busy}");
            let message = LogMessage::new(Code::PoolFull, sentence).hint(
                "raise --max-processes or --queue, or let a new interpreter serve such requests: \
                 --when-full cold",
            );
            let exit = request.refuse(Status::ServiceUnavailable, &message, channels.response);
            WarmAttempt::Served(exit)
        }
    }
}

/// The log message for a request that falls back to cold CGI for `reason`.
fn fallback(reason: &str) -> LogMessage {
    LogMessage::new(
        Code::ServedCold,
        format!("the warm pool does not serve this request: {reason}"),
    )
    .hint(
        "the request falls back to cold CGI; if this goes on, look at the pool with `wsgate \
         status`, and stop it with `wsgate stop POOL`: the next request starts another",
    )
}
