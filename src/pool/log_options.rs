//! The options about the logs of a pool.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use diagnostics::message::{Code, LogMessage};

use crate::config::options::{Context, contexts::ActsIn};

/// What a pool logs, and where.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogOptions {
    /// Write a line for each request to FILE, or to standard error for `-`
    ///
    /// The pool reopens FILE on SIGUSR1.
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// Write the lines of --access-log in FORMAT [default: combined, or json with --log-format
    /// json]
    #[arg(long, value_name = "FORMAT", value_enum, requires = "access_log")]
    pub(crate) access_format: Option<AccessFormat>,

    /// Write slow requests (--slow) and their stacks to FILE instead of the error log
    ///
    /// The pool reopens FILE on SIGUSR1.
    #[arg(long, value_name = "FILE", value_parser = slow_log)]
    pub(crate) slow_log: Option<PathBuf>,

    /// Send the log messages of a request to the web server, too, which writes them to its own log
    #[arg(long)]
    pub(crate) errors_to_server: bool,
}

impl ActsIn for LogOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool, Context::LoneWorker];
}

impl LogOptions {
    /// The log message about `--slow-log` for a pool whose `--slow` is `slow`, if it has no effect.
    pub(super) fn without_effect(&self, slow: Option<u64>) -> Option<LogMessage> {
        let is_idle = self.slow_log.is_some() && slow.unwrap_or(0) == 0;
        is_idle.then(|| {
            LogMessage::new(Code::BadSetting, "--slow-log has no effect without --slow")
                .hint("add the time after which a request is slow, such as `--slow 5`")
        })
    }
}

/// Parses the path of the log of slow requests.
fn slow_log(value: &str) -> Result<PathBuf, &'static str> {
    match value {
        "-" => Err("slow requests are in the error log without this option"),
        path => Ok(path.into()),
    }
}

/// The format of the lines of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessFormat {
    /// Apache's combined format, followed by duration, request id, result and waiting time
    Combined,
    /// One JSON object a line
    Json,
}
