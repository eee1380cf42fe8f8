//! The arguments of `wsgate serve`.

use std::ffi::OsString;

use clap::Args;

use crate::config::options::{
    AppOptions, Context, OptionGroup, RequestOptions, contexts::ActsIn, count,
};

/// Maximum number of requests at the same time.
const MAX_THREADS: u32 = 256;

/// The arguments of `wsgate serve`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArgs {
    /// Application to serve: FILE, MODULE, or one of them with :CALLABLE
    #[arg(value_name = "APP")]
    pub(super) app: OsString,

    #[command(flatten)]
    pub(super) serve: ServeOptions,

    #[command(flatten)]
    pub(super) request: RequestOptions,

    #[command(flatten)]
    pub(super) app_options: AppOptions,
}

/// The options of the development server itself.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Serving")]
pub(crate) struct ServeOptions {
    /// Listen on HOST, an address or a name of this machine
    ///
    /// Other machines can connect to an address that is not loopback, such as 0.0.0.0. Error pages
    /// then show them the source code of the application.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,

    /// Listen on PORT; 0 lets the kernel choose one [default: 8000, or the next free port]
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub(super) port: Option<u16>,

    /// Serve up to COUNT requests at the same time, each in a thread of one process
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = count(1, MAX_THREADS))]
    pub(super) threads: u32,

    /// Change no page: browsers do not reload pages when a file of the application changes
    ///
    /// Without this option, an HTML page that a browser requests ends with a small script, which
    /// waits for changes.
    #[arg(long)]
    pub(super) no_live: bool,
}

impl ActsIn for ServeOptions {
    const CONTEXTS: &'static [Context] = &[Context::Serve];
}

/// The groups of options that `wsgate serve` alone has.
pub(crate) fn groups() -> [OptionGroup; 1] {
    [OptionGroup::of::<ServeOptions>()]
}

/// A TCP port.
fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| "give a port from 0 to 65535, such as `8000`".to_owned())
}
