//! wsgate-http: the part of wsgate that speaks HTTP. The gateway executes it for `wsgate monitor`,
//! which shows the pools of this machine to people and to Prometheus.
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
mod server;

use std::process::ExitCode;

use diagnostics::{
    error_log,
    log_style::{self, LogFormat, LogStyle, Prefix},
    message::{Code, LogMessage, Subject},
};
use tokio::task::LocalSet;
use wire::launch::LogSettings;

use crate::{launch::Received, server::Server};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// EX_CONFIG of sysexits.h.
const EXIT_SETTINGS: u8 = 78;

fn main() -> ExitCode {
    let received = Received::from_gateway().map_err(|error| not_started(&error));
    if let Ok(Received { launch, .. }) = &received {
        log_style::set(style(&launch.log));
    }
    match received.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            log(&message);
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

/// Answers until SIGTERM or SIGINT.
///
/// # Errors
/// The log message, if the kernel refuses an event loop or a signal handler.
fn run(received: Received) -> Result<(), LogMessage> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Searches for pools run there, one at a time.
        .max_blocking_threads(2)
        .build()
        .map_err(|error| not_started(&error))?;
    let served = LocalSet::new().block_on(&runtime, async {
        let server = Server::new(received).map_err(|error| not_started(&error))?;
        log(&server.ready_message());
        server.run().await.map_err(|error| not_started(&error))
    });
    // A search may hang in a directory of another user.
    runtime.shutdown_background();
    served
}

fn not_started(error: &std::io::Error) -> LogMessage {
    LogMessage::new(Code::NoHttpProgram, format!("the monitor cannot start: {error}"))
        .hint("start it by `wsgate monitor` of the same build; install wsgate again if that fails")
}

fn style(settings: &LogSettings) -> LogStyle {
    LogStyle {
        format: if settings.is_json { LogFormat::Json } else { LogFormat::Text },
        pool: settings.pool.clone(),
        prefix: if settings.has_priority { Prefix::Priority } else { Prefix::Time },
    }
}

fn log(message: &LogMessage) {
    let about = Subject::no_request("monitor");
    let about = Subject::new(&about);
    error_log::write(message.for_log(about).as_bytes(), about);
}
