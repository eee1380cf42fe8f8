//! The words of `wsgate call`.

use std::path::PathBuf;

use clap::Args;

use crate::{call::server::Server, config::options::Options};

/// One request, described on the command line.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "wsgate call [OPTIONS] <APP> [TARGET]\n       wsgate call [OPTIONS] --via \
        <ADDRESS> [TARGET]"
)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The application; not with --via, where one runs already
    #[arg(value_name = "APP", required_unless_present = "via")]
    pub(crate) app: Option<String>,

    /// What is requested: /path?query, or a whole URL; without it /
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,

    /// Ask the FastCGI server at unix:PATH or HOST:PORT, as a web server does
    ///
    /// Any will do: a pool of `wsgate fastcgi`, php-fpm, flup. What concerns the process of an
    /// application is its own affair then, and those options are refused.
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = ["venv", "python", "chdir", "path", "env", "debug", "mode"]
    )]
    pub(crate) via: Option<Server>,

    /// Request method; without it GET, or POST with --data
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<String>,

    /// Request header, as `Name: value` (repeatable)
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,

    /// Request body: text, @FILE, or @- for standard input (repeatable: texts are joined by `&`)
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    pub(crate) data: Vec<String>,

    /// Print the head of the response, too
    #[arg(short = 'i', long)]
    pub(crate) include: bool,

    /// Show the environ that is sent, on standard error
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,

    /// Make it a request over TLS
    #[arg(long)]
    pub(crate) https: bool,

    /// Host that is asked for, as NAME or NAME:PORT
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) host: String,

    /// File that the server of --via is to run, which php-fpm needs to know
    #[arg(long, value_name = "PATH", requires = "via")]
    pub(crate) script_filename: Option<PathBuf>,

    /// Credentials for the Authorization header (Basic)
    #[arg(long, value_name = "USER:PASSWORD")]
    pub(crate) auth: Option<String>,

    /// User that the web server has authenticated
    #[arg(long, value_name = "USER")]
    pub(crate) remote_user: Option<String>,
}
