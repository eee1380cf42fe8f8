//! How a CGI request is served, and the warm pool of `--mode warm` and `--mode resident`.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::options::{
    contexts::{
        ActsIn,
        Context::{self, Check, Cold, Init, Resident, Warm},
    },
    values::{count, seconds},
};

/// How a CGI request is served.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Warm CGI")]
pub(crate) struct ModeOption {
    /// Serve CGI requests by a new interpreter (`cold`) or by a warm pool (`warm`, `resident`)
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub(crate) mode: Mode,
}

impl ActsIn for ModeOption {
    // `wsgate check` reports whether the application is fit for the mode, and `wsgate init` writes
    // the mode into the script.
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Check, Init];
}

impl ModeOption {
    /// This mode, or that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        if self.mode == Mode::Cold { line } else { self }
    }
}

/// How a CGI request is served.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
pub(crate) enum Mode {
    /// Start a new interpreter for each request, as in PEP 3333
    #[default]
    Cold,
    /// Fork a process for each request from one that has loaded the application
    Warm,
    /// Keep worker processes that serve one request after the other
    Resident,
}

impl Mode {
    /// The context of a CGI request in this mode.
    pub(crate) fn context(self) -> Context {
        match self {
            Self::Cold => Cold,
            Self::Warm => Warm,
            Self::Resident => Resident,
        }
    }
}

/// The size and lifetime of a warm pool, and what happens to a request that finds no idle worker.
#[derive(Args, Clone, Debug, Deserialize, Serialize)]
#[command(next_help_heading = "Warm CGI")]
#[serde(default)]
pub(crate) struct WarmOptions {
    /// Stop the warm pool after SECONDS without a request
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = WarmOptions::default().warm_idle,
        value_parser = seconds(1)
    )]
    pub(crate) warm_idle: u64,

    /// Stop the warm pool after SECONDS, even a busy one; 0 sets no limit
    ///
    /// The next request starts a new warm pool.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = WarmOptions::default().warm_age,
        value_parser = seconds(0)
    )]
    pub(crate) warm_age: u64,

    /// Limit the warm pool to COUNT worker processes [default: 64, or fewer where limits are low]
    ///
    /// The supervisor and the template process of the pool are not counted. Without this option
    /// the pool and the gateways of its requests use up to half of the processes and memory that
    /// the limits leave (RLIMIT_NPROC, and `pids.max` and `memory.max` of the control group).
    #[arg(long, value_name = "COUNT", value_parser = count(1, 1024))]
    pub(crate) max_processes: Option<u32>,

    // The gateway of each request alone uses this and the next option: they do not change the pool.
    /// Wait up to SECONDS for an idle worker when all workers of the warm pool are busy
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = WarmOptions::default().queue,
        value_parser = seconds(1)
    )]
    #[serde(skip)]
    pub(crate) queue: u64,

    /// Start a new interpreter (`cold`) or return 503 Service Unavailable (`503`) when --queue
    /// expires
    #[arg(
        long,
        value_enum,
        value_name = "ACTION",
        default_value_t = WarmOptions::default().when_full
    )]
    #[serde(skip)]
    pub(crate) when_full: WhenFull,
}

impl ActsIn for WarmOptions {
    const CONTEXTS: &'static [Context] = &[Warm, Resident];
}

impl Default for WarmOptions {
    fn default() -> Self {
        Self {
            warm_idle: 300,
            warm_age: 86_400,
            max_processes: None,
            queue: 1,
            when_full: WhenFull::default(),
        }
    }
}

/// What happens to a request for which no worker of the warm pool was idle in time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum WhenFull {
    /// Start a new interpreter
    #[default]
    Cold,
    /// Return 503 Service Unavailable
    #[value(name = "503")]
    Refuse,
}
