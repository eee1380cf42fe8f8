//! The arguments of `wsgate init`.

use std::path::PathBuf;

use clap::Args;

use crate::config::options::Mode;

/// The arguments of `wsgate init`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Directory of the web server, such as ~/public_html or ~/public_html/cgi-bin
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Serve APP: a file, a directory, FILE:NAME, MODULE:NAME, or FILE.ini
    ///
    /// Without this option, wsgate looks for Flask, Django, `wsgi.py`, `passenger_wsgi.py` and
    /// PasteDeploy files in the working directory and in DIR. If there is none, wsgate writes a
    /// sample to ~/wsgate-apps.
    #[arg(long, value_name = "APP", help_heading = "Files")]
    pub(crate) app: Option<String>,

    /// Set the mode on the `#!` line: a warm pool (`warm`, `resident`) or a new interpreter for
    /// each request (`cold`)
    #[arg(long, value_enum, value_name = "MODE", default_value = "warm", help_heading = "Files")]
    pub(crate) mode: Mode,

    /// Show the files with their content, and write nothing
    #[arg(long, help_heading = "Files")]
    pub(crate) dry_run: bool,
}
