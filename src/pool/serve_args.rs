//! The arguments of `wsgate serve`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::config::options::{
    AppOptions, Context, OptionGroup, RequestOptions, contexts::ActsIn, count,
};

/// Maximum number of requests at the same time.
const MAX_THREADS: u32 = 256;

/// The arguments of `wsgate serve`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "wsgate serve [OPTIONS] <APP>\n       wsgate serve [OPTIONS] --cgi <DIR>"
)]
pub(crate) struct ServeArgs {
    /// Application to serve, FILE, MODULE, or one of them with :CALLABLE; none with --cgi
    #[arg(value_name = "APP", required_unless_present = "cgi")]
    pub(super) app: Option<OsString>,

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

    /// Send the files in DIR at the URL path PATH, such as /static=assets (repeatable)
    ///
    /// The application does not see these requests. In production, let the web server send the
    /// files.
    #[arg(long = "static", value_name = "PATH=DIR", value_parser = static_directory)]
    pub(super) static_files: Vec<StaticDirectory>,

    /// Serve the CGI programs in DIR, in any language, in place of an application
    ///
    /// A request for /NAME/more starts the program NAME, with /more as PATH_INFO. Options about an
    /// application are refused.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = [
            "app", "threads", "no_live", "timeout", "script_name", "venv", "python", "chdir",
            "path", "env", "env_file"
        ]
    )]
    pub(super) cgi: Option<PathBuf>,

    /// Start the browser of this desktop with the address, by xdg-open
    #[arg(long)]
    pub(super) open: bool,

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

/// A value of `--static`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StaticDirectory {
    /// The URL path, without a slash at its end.
    pub(super) url: String,
    pub(super) path: PathBuf,
}

fn static_directory(value: &str) -> Result<StaticDirectory, String> {
    let parts =
        value.split_once('=').filter(|(url, path)| url.starts_with('/') && !path.is_empty());
    let (url, path) = parts.ok_or_else(|| {
        "give a URL path that begins with `/`, and a directory, such as `/static=assets`".to_owned()
    })?;
    Ok(StaticDirectory { url: url.trim_end_matches('/').to_owned(), path: path.into() })
}

/// A TCP port.
fn port(value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| "give a port from 0 to 65535, such as `8000`".to_owned())
}
