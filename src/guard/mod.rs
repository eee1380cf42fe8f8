//! The guard of a CGI request: starts python, or takes over a worker of a warm pool, passes on the
//! signals of the web server, and makes sure that a response is sent.
//!
//! The guard holds a file descriptor of the response. The engine reports when the response headers
//! have been sent. Before that, the guard can send an error page, whatever happens to python. After
//! that, the guard can only cut the response.

mod capture;
mod channels;
mod process_failure;
mod progress;
mod serving_process;
pub(crate) mod start;
pub(crate) mod start_error;
mod stop;
mod terminal;
mod watch;

use std::os::fd::OwnedFd;

use diagnostics::error_page::Status;
use rustix::io::Errno;
use wire::launch::{RequestFds, Work};

pub(crate) use crate::guard::{
    capture::run_with_pipe,
    channels::{Channels, is_client_disconnected},
    serving_process::{ServingProcess, signal_process},
    stop::{stop_reason, stop_signals},
};
use crate::{
    config::settings::Settings, exit::Exit, guard::watch::Guard, request::Request,
    system::signals::SignalPipe,
};

/// Does `work` in a new python. Whatever happens to python, a response is sent, and a failure is
/// logged.
pub(crate) fn run(
    settings: &Settings,
    work: impl FnOnce(RequestFds) -> Work,
    request: &Request,
    channels: Channels,
) -> Exit {
    start_and_watch(settings, work, request, channels, &mut |_| {})
}

/// The audit of a loaded application, as reported by python.
pub(crate) enum Audit {
    /// Other processes may load the application at the same time.
    ManyProcesses,
    /// Loading opens a resource that only one process may have; the text lists the findings.
    OneProcess(String),
    /// Python has not reported.
    Unknown,
}

/// Serves a CGI request as [`run`] does, and passes the audit of the application to `audited`, once
/// and as soon as possible.
pub(crate) fn run_audited(
    settings: &Settings,
    request: &Request,
    channels: Channels,
    audited: impl FnOnce(Audit),
) -> Exit {
    let mut audited = Some(audited);
    let mut pass_on = |audit| {
        if let Some(audited) = audited.take() {
            audited(audit);
        }
    };
    let exit = start_and_watch(settings, Work::FirstCgi, request, channels, &mut pass_on);
    pass_on(Audit::Unknown);
    exit
}

/// Watches `process`, a worker of a warm pool that has taken the request and reports on `reports`.
/// A response is sent as by [`run`].
pub(crate) fn take_over(
    settings: &Settings,
    request: &Request,
    process: ServingProcess,
    reports: OwnedFd,
    stop_signals: SignalPipe,
    response: OwnedFd,
) -> Exit {
    let guard = Guard::of_pool_worker(settings, request, process, reports, stop_signals);
    guard.watch(response, &mut |_| {})
}

fn start_and_watch(
    settings: &Settings,
    work: impl FnOnce(RequestFds) -> Work,
    request: &Request,
    channels: Channels,
    audited: &mut dyn FnMut(Audit),
) -> Exit {
    let response = match channels.response.try_clone() {
        Ok(response) => response,
        Err(error) => {
            return request.refuse(
                Status::ServiceUnavailable,
                &start_error::message(settings, &error),
                channels.response,
            );
        }
    };
    match Guard::start(settings, work, request, channels) {
        Ok(guard) => guard.watch(response, audited),
        Err(error) => {
            let status = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
                    Status::ServiceUnavailable
                }
                _ => Status::InternalServerError,
            };
            request.refuse(status, &start_error::message(settings, &error), response)
        }
    }
}
