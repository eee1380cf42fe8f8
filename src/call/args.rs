//! The arguments of `wsgate call`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::{
    call::server::Server,
    config::options::{
        AppOptions, Context, DebugOption, OptionGroup, PathTimeoutOption, RequestOptions,
        ScriptOptions, TrustOptions, contexts::ActsIn,
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

/// One request and the output of its response, described as for curl.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Request")]
pub(crate) struct CallOptions {
    /// Send a request with METHOD [default: GET, or POST with --data]
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<String>,

    /// Add a request header, `Name: value` (repeatable)
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,

    /// Send DATA as the request body: text, @FILE, or @- for standard input (repeatable)
    ///
    /// `&` joins the values of several options.
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    pub(crate) data: Vec<String>,

    /// Set HTTPS to `on`, as for a request over TLS
    #[arg(long)]
    pub(crate) https: bool,

    /// Send the request to HOST, as NAME or NAME:PORT
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) host: String,

    /// Send USER and PASSWORD in an Authorization header (Basic)
    #[arg(long, value_name = "USER:PASSWORD")]
    pub(crate) auth: Option<String>,

    /// Set REMOTE_USER, as if the web server had authenticated USER
    #[arg(long, value_name = "USER")]
    pub(crate) remote_user: Option<String>,

    /// Print the response headers, too
    #[arg(short = 'i', long, help_heading = "Output")]
    pub(crate) include: bool,

    /// Print the environ of the request to standard error
    #[arg(short = 'v', long, help_heading = "Output")]
    pub(crate) verbose: bool,
}

impl ActsIn for CallOptions {
    const CONTEXTS: &'static [Context] = &[Context::Call, Context::Via];
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
pub(crate) fn groups() -> [OptionGroup; 2] {
    [OptionGroup::of::<CallOptions>(), OptionGroup::of::<ViaOptions>()]
}
