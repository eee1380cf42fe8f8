//! The words of `wsgate call`.

use clap::Args;

use crate::options::Options;

/// One request, described on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The application
    #[arg(value_name = "APP")]
    pub(crate) app: String,

    /// What is requested: /path?query, or a whole URL
    #[arg(value_name = "TARGET", default_value = "/")]
    pub(crate) target: String,

    /// Request method; without it GET, or POST with --data
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<String>,

    /// Request header, as `Name: value` (repeatable)
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,

    /// Request body: text, @FILE, or @- for standard input (repeatable: texts are joined by `&`)
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    pub(crate) data: Vec<String>,

    /// Print the head of the reply, too
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

    /// URL path that the application is mounted at
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) script_name: String,

    /// Credentials for the Authorization header (Basic)
    #[arg(long, value_name = "USER:PASSWORD")]
    pub(crate) auth: Option<String>,

    /// User that the web server has authenticated
    #[arg(long, value_name = "USER")]
    pub(crate) remote_user: Option<String>,
}
