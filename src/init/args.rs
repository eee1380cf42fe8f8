//! The arguments of `wsgate init`.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};

use crate::config::options::Mode;

/// The arguments of `wsgate init`.
#[derive(Args, Clone, Debug)]
pub(crate) struct InitArgs {
    /// Directory of the web server, such as ~/public_html or ~/public_html/cgi-bin, or a script
    /// there that needs a `.htaccess` file
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Serve APP: a file, a directory, FILE:NAME, MODULE:NAME, or FILE.ini
    ///
    /// Without this option, wsgate looks for Flask, Django, `wsgi.py`, `passenger_wsgi.py` and
    /// PasteDeploy files in the working directory and in DIR. If there is none, wsgate writes a
    /// sample to ~/wsgate-apps.
    #[arg(long, value_name = "APP", value_parser = plain_text(), help_heading = "Files")]
    pub(crate) app: Option<String>,

    /// Set the mode on the `#!` line: a warm pool (`warm`, `resident`) or a new interpreter for
    /// each request (`cold`)
    #[arg(long, value_enum, value_name = "MODE", default_value = "warm", help_heading = "Files")]
    pub(crate) mode: Mode,

    /// Show the files with their content, and write nothing
    #[arg(long, help_heading = "Files")]
    pub(crate) dry_run: bool,
}

/// A parser that names a value that is not UTF-8: neither a `#!` line nor Python code can hold it.
fn plain_text() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().try_map(|value| {
        value
            .into_string()
            .map_err(|value| format!("`{}` is not UTF-8: rename the file", value.display()))
    })
}
