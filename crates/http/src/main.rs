//! wsgate-http: the part of wsgate that speaks HTTP. The gateway executes it for `wsgate monitor`,
//! which shows the pools of this machine to people and to Prometheus, and for `wsgate serve`, which
//! serves an application to its developer.
//!
//! No byte of HTTP reaches a supervisor. The monitor asks the pools over their control sockets, and
//! answers from what they said last. It reads only: no request changes a pool.

#![forbid(unsafe_code)]

mod access;
mod connections;
mod cpu_time;
mod exposition;
mod history;
mod launch;
mod metrics;
mod page;
mod pool_query;
mod pools;
mod response;
mod routes;
mod serve;
mod server;

use std::{io, os::fd::OwnedFd, process::ExitCode};

use diagnostics::{
    error_log,
    log_style::{self, LogFormat, LogStyle, Prefix},
    message::{Code, LogMessage, Subject},
};
use tokio::task::LocalSet;
use wire::{launch::LogSettings, monitor::MonitorLaunch};

use crate::{launch::Received, server::Server};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// EX_CONFIG of sysexits.h.
const EXIT_SETTINGS: u8 = 78;

fn main() -> ExitCode {
    let received = match Received::from_gateway() {
        Ok(received) => received,
        Err(error) => return failed(&error),
    };
    log_style::set(style(received.log()));
    let served = match received {
        Received::Monitor(launch, sockets) => run(monitor(launch, sockets)),
        Received::Serve(launch, socket) => run(serve::run(launch, socket)),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Runs `served` until its end in an event loop of one thread.
///
/// # Errors
/// If the kernel refuses an event loop, and those of `served`.
fn run(served: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Searches for pools run there, one at a time.
        .max_blocking_threads(2)
        .build()?;
    let result = LocalSet::new().block_on(&runtime, served);
    // A search may hang in a directory of another user.
    runtime.shutdown_background();
    result
}

/// Answers for the pools of this machine until SIGTERM or SIGINT.
async fn monitor(launch: MonitorLaunch, sockets: Vec<OwnedFd>) -> io::Result<()> {
    let server = Server::new(launch, sockets)?;
    log(&server.ready_message());
    server.run().await
}

/// Logs why this program cannot run.
fn failed(error: &io::Error) -> ExitCode {
    let hint = "start it by wsgate of the same build; install wsgate again if that fails";
    let sentence = format!("wsgate-http cannot start: {error}");
    log(&LogMessage::new(Code::NoHttpProgram, sentence).hint(hint));
    ExitCode::from(EXIT_SETTINGS)
}

fn style(settings: &LogSettings) -> LogStyle {
    LogStyle {
        format: if settings.is_json { LogFormat::Json } else { LogFormat::Text },
        pool: settings.pool.clone(),
        prefix: if settings.has_priority { Prefix::Priority } else { Prefix::Time },
    }
}

/// Logs `message`.
pub(crate) fn log(message: &LogMessage) {
    let about = Subject::no_request(log_style::pool());
    let about = Subject::new(&about);
    error_log::write(message.for_log(about).as_bytes(), about);
}
