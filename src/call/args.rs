//! The arguments of `wsgate call`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Command};

use crate::{
    call::{
        body_options::BodyOptions,
        curl_options::IgnoredOptions,
        request_options::{CallOptions, OutputOptions},
        server::Server,
    },
    config::options::{
        AppOptions, Context, DebugOption, OptionGroup, PathTimeoutOption, RequestOptions,
        ScriptOptions, TrustOptions, contexts::ActsIn, seconds,
    },
};

/// The arguments of `wsgate call`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "wsgate call [OPTIONS] <APP> [TARGET]\n       wsgate call [OPTIONS] --via \
        <ADDRESS> [TARGET]"
)]
pub(crate) struct CallArgs {
    /// Application that answers, FILE, MODULE, or one of them with :CALLABLE; none with --via
    #[arg(value_name = "APP", required_unless_present = "via")]
    pub(crate) app: Option<OsString>,

    /// Path and query of the request, or a full URL [default: /]
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,

    #[command(flatten)]
    pub(crate) call: CallOptions,

    #[command(flatten)]
    pub(crate) body: BodyOptions,

    #[command(flatten)]
    pub(crate) output: OutputOptions,

    #[command(flatten)]
    pub(crate) ignored: IgnoredOptions,

    #[command(flatten)]
    pub(crate) via: ViaOptions,

    #[command(flatten)]
    pub(crate) request: RequestOptions,

    #[command(flatten)]
    pub(crate) path_timeouts: PathTimeoutOption,

    #[command(flatten)]
    pub(crate) trust: TrustOptions,

    #[command(flatten)]
    pub(crate) error_pages: DebugOption,

    #[command(flatten)]
    pub(crate) app_options: AppOptions,
}

impl CallArgs {
    /// The options that a `#!` line may have, too.
    pub(crate) fn script_options(&self) -> ScriptOptions {
        ScriptOptions {
            app: self.app_options.clone(),
            request: self.request.clone(),
            path_timeouts: self.path_timeouts.clone(),
            trust: self.trust.clone(),
            error_pages: self.error_pages,
            ..ScriptOptions::default()
        }
    }
}

/// A request to a FastCGI server that is already running.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "FastCGI server")]
pub(crate) struct ViaOptions {
    /// Send the request to the FastCGI server at ADDRESS: unix:PATH or HOST:PORT
    ///
    /// The server may be a pool of `wsgate fastcgi`, php-fpm, flup or any other. Options about the
    /// process of the application are refused.
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = ["venv", "python", "chdir", "path", "env", "debug"]
    )]
    pub(crate) via: Option<Server>,

    /// Set SCRIPT_FILENAME, the file that php-fpm runs, with --via
    #[arg(long, value_name = "PATH", requires = "via")]
    pub(crate) script_filename: Option<PathBuf>,
}

impl ActsIn for ViaOptions {
    const CONTEXTS: &'static [Context] = &[Context::Via];
}

/// The groups of options that `wsgate call` alone has.
pub(crate) fn groups() -> [OptionGroup; 5] {
    [
        OptionGroup::of::<CallOptions>(),
        OptionGroup::of::<BodyOptions>(),
        OptionGroup::of::<OutputOptions>(),
        OptionGroup::of::<IgnoredOptions>(),
        OptionGroup::of::<ViaOptions>(),
    ]
}

/// The command `wsgate call` with curl's names of options that all commands have.
pub(crate) fn with_names_of_curl(command: Command) -> Command {
    command.mut_arg("timeout", |timeout| {
        timeout.short('m').alias("max-time").value_parser(seconds_rounded_up)
    })
}

/// A number of seconds; a fraction, which curl allows, counts as a whole second.
fn seconds_rounded_up(value: &str) -> Result<u64, String> {
    let whole = match value.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit.is_ascii_digit()) => {
            let more = u64::from(fraction.bytes().any(|digit| digit != b'0'));
            let whole: u64 = if whole.is_empty() { 0 } else { seconds(0)(whole)? };
            (whole + more).to_string()
        }
        _ => value.to_owned(),
    };
    seconds(0)(&whole)
}
