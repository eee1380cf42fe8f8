//! Where log messages and the output of an application go, and in which form.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use diagnostics::{log_style::LogFormat, request_id};
use serde::{Deserialize, Serialize};

use crate::{
    config::options::{
        contexts::{
            ActsIn,
            Context::{self, Cold, LoneWorker, Pool, Resident, Warm},
        },
        os_paths,
    },
    system::log_style,
};

/// Where log messages and the output of an application go, and in which form.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LoggingOptions {
    /// Write log messages and the output of the application to FILE instead of standard error
    ///
    /// If a CGI request cannot open FILE, the request is served all the same, and its messages go
    /// to standard error. A pool of `wsgate fastcgi` reopens FILE on SIGUSR1.
    #[arg(long, value_name = "FILE")]
    #[serde(with = "os_paths")]
    pub(crate) error_log: Option<PathBuf>,

    /// Write log messages, output of the application and access log lines in FORMAT [default:
    /// text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) log_format: Option<LogForm>,

    /// Send the request id, which log messages and access log lines have, to the client in the
    /// response header X-Request-Id
    ///
    /// The id is the web server's UNIQUE_ID, or a random one. A header X-Request-Id of the
    /// application stays as it is.
    #[arg(long)]
    pub(crate) send_request_id: bool,
}

/// The form of the lines of logs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people; the access log has Apache's combined format
    #[default]
    Text,
    /// One JSON object a line, with the same keys in each log
    Json,
}

impl From<LogForm> for LogFormat {
    fn from(form: LogForm) -> Self {
        match form {
            LogForm::Text => Self::Text,
            LogForm::Json => Self::Json,
        }
    }
}

impl ActsIn for LoggingOptions {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Pool, LoneWorker];
}

impl LoggingOptions {
    /// This option, or that of the `#!` line of a script in the directory `home`.
    pub(super) fn completed_by(self, line: Self, home: &Path) -> Self {
        Self {
            error_log: self.error_log.or_else(|| line.in_directory(home)),
            log_format: self.log_format.or(line.log_format),
            send_request_id: self.send_request_id || line.send_request_id,
        }
    }

    /// Applies the options to this process, which handles a CGI request of the application `name`.
    pub(crate) fn apply_to_request(&self, name: String) {
        log_style::set_for_request(self.format(), name);
        request_id::set_sent(self.send_request_id);
    }

    /// Applies the options to this process of the pool `name`.
    pub(crate) fn apply_to_pool(&self, name: String) {
        log_style::set_for_pool(self.format(), name);
        request_id::set_sent(self.send_request_id);
    }

    fn format(&self) -> LogFormat {
        self.log_format.unwrap_or_default().into()
    }

    /// The path of the file, relative to `base`. `-` is standard error itself.
    pub(crate) fn in_directory(&self, base: &Path) -> Option<PathBuf> {
        let path = self.error_log.as_deref().filter(|path| path.as_os_str() != "-")?;
        Some(base.join(path))
    }
}
