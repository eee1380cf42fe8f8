//! Options of workers: how long one lives, and what a FastCGI worker grants its connections.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use wire::launch::Service;

use crate::config::options::{
    contexts::{
        ActsIn,
        Context::{self, LoneWorker, Pool, Resident},
    },
    values::{connection_count, request_count, seconds, size},
};

/// Seconds in which the parameters of a FastCGI request must arrive.
const DEFAULT_HEADER_TIMEOUT_SECS: u64 = 10;

/// Seconds that a FastCGI worker waits for a web server within a request.
const DEFAULT_SOCKET_TIMEOUT_SECS: u64 = 60;

/// Connections of a FastCGI worker.
const DEFAULT_WORKER_CONNECTIONS: u32 = 1000;

/// Limits after which a worker is replaced that serves one request after the other.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Limits")]
pub(crate) struct WorkerLimits {
    /// Replace a worker after COUNT requests; 0 sets no limit [default: 0]
    ///
    /// The limit of each worker is up to a tenth lower (jitter), so that not all workers are
    /// replaced at the same time. Workers are the processes of a FastCGI pool and of
    /// `--mode resident`.
    #[arg(long, value_name = "COUNT", value_parser = request_count())]
    pub(crate) max_requests: Option<u64>,

    /// Replace a worker after SECONDS; 0 sets no limit [default: 0]
    ///
    /// The limit of each worker is up to a tenth lower (jitter).
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    pub(crate) max_age: Option<u64>,

    /// Replace a worker that uses more than SIZE of resident memory after a request; 0 sets no
    /// limit [default: 0]
    ///
    /// SIZE is a number of bytes, or a number with a unit, such as 200M (units K, M, G).
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_rss: Option<u64>,
}

impl ActsIn for WorkerLimits {
    const CONTEXTS: &'static [Context] = &[Resident, Pool, LoneWorker];
}

impl WorkerLimits {
    /// These limits, completed by those of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self {
            max_requests: self.max_requests.or(line.max_requests),
            max_age: self.max_age.or(line.max_age),
            max_rss: self.max_rss.or(line.max_rss),
        }
    }

    /// `service` with these limits.
    pub(crate) fn applied_to(self, service: Service) -> Service {
        Service {
            max_requests: self.max_requests.unwrap_or(0),
            max_age: self.max_age.unwrap_or(0),
            max_rss: self.max_rss.unwrap_or(0),
            ..service
        }
    }
}

/// Options of FastCGI workers that may stand on a `#!` line.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits")]
pub(crate) struct FastcgiOptions {
    /// Close a connection if the parameters of a request take longer than SECONDS; 0 sets no limit
    /// [default: 10]
    ///
    /// The time runs from the first byte of a FastCGI request to the end of its parameters. The log
    /// message is W0403.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    pub(crate) header_timeout: Option<u64>,

    /// Close a connection on which a request body or response makes no progress for SECONDS; 0 sets
    /// no limit [default: 60]
    ///
    /// The limit holds for each piece of a request body or response, and `--timeout` for the whole
    /// request.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    pub(crate) socket_timeout: Option<u64>,

    /// Limit each worker to COUNT connections, idle ones included [default: 1000]
    ///
    /// The limit is never above half of the file descriptors that a worker may open. For each
    /// connection above the limit the worker closes another (W0404): the one that has waited
    /// longest without a request, then the oldest with an incomplete request, then the oldest idle
    /// keep-alive connection.
    #[arg(long, value_name = "COUNT", value_parser = connection_count())]
    pub(crate) worker_connections: Option<u32>,

    /// Reload the pool when the file or directory PATH changes (repeatable)
    ///
    /// PATH need not exist yet; wsgate logs warning W0108 then. A directory changes when an entry
    /// is added or removed, not when the content of a file in it changes. A pool always reloads
    /// when its script changes.
    ///
    /// Where a process manager passes the socket on standard input, a single worker runs without a
    /// supervisor, and does not notice changes. With this option or --reload, `wsgate fastcgi`
    /// starts a supervisor. On a `#!` line, the two options make the worker exit after a change,
    /// and the process manager starts another.
    #[arg(long, value_name = "PATH", help_heading = "Process")]
    pub(crate) reload_on: Vec<PathBuf>,

    /// Reload the pool when the file of a loaded module changes; for development
    #[arg(long, help_heading = "Process")]
    pub(crate) reload: bool,

    /// Log a request that takes longer than SECONDS, with the stacks of its worker; 0 disables this
    /// [default: 0]
    #[arg(long, value_name = "SECONDS", help_heading = "Logging", value_parser = seconds(0))]
    pub(crate) slow: Option<u64>,
}

impl ActsIn for FastcgiOptions {
    const CONTEXTS: &'static [Context] = &[Pool, LoneWorker];
}

impl FastcgiOptions {
    /// These options, completed by those of the `#!` line of a script in the directory `home`.
    pub(super) fn completed_by(self, line: Self, home: &Path) -> Self {
        Self {
            header_timeout: self.header_timeout.or(line.header_timeout),
            socket_timeout: self.socket_timeout.or(line.socket_timeout),
            worker_connections: self.worker_connections.or(line.worker_connections),
            reload_on: [self.reload_on, line.in_directory(home).reload_on].concat(),
            reload: self.reload || line.reload,
            slow: self.slow.or(line.slow),
        }
    }

    /// These options, their paths relative to `base`.
    pub(crate) fn in_directory(&self, base: &Path) -> Self {
        let reload_on = self.reload_on.iter().map(|path| base.join(path)).collect();
        Self { reload_on, ..self.clone() }
    }

    /// `service` with the limits of connections.
    pub(crate) fn applied_to(&self, service: Service) -> Service {
        Service {
            header_timeout_seconds: self.header_timeout.unwrap_or(DEFAULT_HEADER_TIMEOUT_SECS),
            socket_timeout_seconds: self.socket_timeout.unwrap_or(DEFAULT_SOCKET_TIMEOUT_SECS),
            connections: self.worker_connections.unwrap_or(DEFAULT_WORKER_CONNECTIONS),
            ..service
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_defaults_that_are_applied() {
        let command = FastcgiOptions::augment_args(clap::Command::new("test"));
        for (option, default) in [
            ("header_timeout", DEFAULT_HEADER_TIMEOUT_SECS),
            ("socket_timeout", DEFAULT_SOCKET_TIMEOUT_SECS),
            ("worker_connections", DEFAULT_WORKER_CONNECTIONS.into()),
        ] {
            let known = command.get_arguments().find(|known| known.get_id() == option).unwrap();
            let help = known.get_help().unwrap().to_string();
            assert!(help.ends_with(&format!("[default: {default}]")), "{help}");
        }
    }
}
