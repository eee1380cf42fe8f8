//! The options about the access log of a pool.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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

    /// Send the log messages of a request to the web server, too, which writes them to its own log
    #[arg(long)]
    pub(crate) errors_to_server: bool,
}

impl ActsIn for LogOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool, Context::LoneWorker];
}

/// The format of the lines of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessFormat {
    /// Apache's combined format, followed by duration, request id, result and waiting time
    Combined,
    /// One JSON object a line
    Json,
}
