//! The words of `wsgate fastcgi`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{
    config::options::{Changes, LONGEST, Options},
    pool::{control::check_name, listeners::Address},
};

/// `--socket-mode` where it is not given.
pub(super) const SOCKET_MODE: u32 = 0o660;

/// A pool, described on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fastcgi {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The application
    #[arg(value_name = "APP")]
    pub(crate) app: String,

    /// Where to listen: unix:PATH, HOST:PORT, or fd:N for descriptor N, an inherited listening
    /// socket (repeatable)
    ///
    /// Without it: all sockets that systemd passes (LISTEN_FDS), or else fd:0, standard input, as
    /// FastCGI's process managers leave it. Files of inherited sockets are never taken away.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<Address>,

    /// Name of the pool, for `wsgate status`; without it that of the file or module
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) name: Option<String>,

    /// Permissions of Unix sockets, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = mode)]
    pub(crate) socket_mode: u32,

    /// Owner of Unix sockets, as USER or USER:GROUP, names or numbers; without it --user
    #[arg(long, value_name = "OWNER")]
    pub(crate) socket_owner: Option<String>,

    /// User that the pool serves as, if root starts it: a name or number
    ///
    /// Root opens the listening sockets and logs, and becomes this user before python is started.
    /// The supervisor becomes it, too, so that logs are opened again, and sockets removed, with its
    /// rights.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Group that it serves as, in place of the user's primary group: a name or number
    #[arg(long, value_name = "GROUP", requires = "user")]
    pub(crate) group: Option<String>,

    /// Worker processes; without it one for each processor, or one alone for standard input
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "max")]
    pub(crate) workers: Option<u32>,

    /// Worker processes at most: more are started when all are busy and connections wait, and idle
    /// ones go again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max: Option<u32>,

    /// Worker processes at least, with --max; with 0 no process of Python stays while there is no
    /// work
    #[arg(long, value_name = "N", default_value_t = 0, requires = "max")]
    pub(crate) min: u32,

    /// Seconds without work after which a worker that is not needed goes, with --max
    #[arg(long, value_name = "S", default_value_t = 60, requires = "max", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    pub(crate) idle: u64,

    /// Requests that a worker serves at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,

    /// Which process loads the application: the one that workers are forked from, or each worker
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Preload::Auto)]
    pub(crate) preload: Preload,

    #[command(flatten)]
    pub(crate) changes: Changes,

    /// Seconds after which a request that is still being served is logged, with the stacks of its
    /// worker
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) slow: Option<u64>,

    /// Seconds that workers have to finish their requests when they are to end
    #[arg(long, value_name = "S", default_value_t = crate::pool::DRAIN, value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) drain: u64,

    #[command(flatten)]
    pub(crate) logs: LogWords,
}

/// What a pool logs where.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogWords {
    /// File that gets a line for each request, or - for standard error; USR1 opens it again
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// Form of these lines: Apache's combined form with duration, request id and end behind it, or
    /// JSON
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = AccessFormat::Combined, requires = "access_log")]
    pub(crate) access_format: AccessFormat,

    /// File in place of standard error, for all processes of the pool; USR1 opens it again
    #[arg(long, value_name = "FILE")]
    pub(crate) error_log: Option<PathBuf>,

    /// Send what a request says in the error log to the web server, too, for the log that it keeps
    #[arg(long)]
    pub(crate) errors_to_server: bool,
}

/// The form of the lines of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessFormat {
    Combined,
    Json,
}

/// Which process loads the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preload {
    /// As `yes`, unless that leaves open or running what processes must not share; then as `no`
    Auto,
    /// Once, before workers are forked: they share its memory
    Yes,
    /// Each worker by itself, after the fork
    No,
}

impl From<Preload> for wire::launch::Preload {
    fn from(word: Preload) -> Self {
        match word {
            Preload::Auto => Self::Auto,
            Preload::Yes => Self::Yes,
            Preload::No => Self::No,
        }
    }
}

fn name(word: &str) -> Result<String, String> {
    check_name(word).map(|()| word.to_owned())
}

fn mode(word: &str) -> Result<u32, String> {
    u32::from_str_radix(word, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("`{word}` is no octal number up to 777"))
}
