//! Options that every way of running an application shares.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, ValueEnum};
use link::{
    app::{App, Source},
    entry::Entry,
};

use crate::{cgi::script_line, settings};

/// Options about the application and its interpreter.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Virtualenv of the application
    ///
    /// Without it: the variable VIRTUAL_ENV, then a directory `.venv` or `venv` beside the script or above it.
    #[arg(long, value_name = "DIR", overrides_with = "python")]
    pub(crate) venv: Option<PathBuf>,

    /// Python interpreter, 3.9 or later
    ///
    /// Without it and without a virtualenv: `python3` on the PATH.
    #[arg(long, value_name = "EXE")]
    pub(crate) python: Option<PathBuf>,

    /// Working directory of the application
    ///
    /// Without it: the directory of the script.
    #[arg(long, value_name = "DIR")]
    pub(crate) chdir: Option<PathBuf>,

    /// Directory to add to sys.path, behind the script's own (repeatable)
    #[arg(long, value_name = "DIR")]
    pub(crate) path: Vec<PathBuf>,

    /// Environment variable for the application (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Show tracebacks to the client, not only in the log
    #[arg(long)]
    pub(crate) debug: bool,

    /// Seconds that a request may take; without it or with 0 it has no end
    #[arg(long, value_name = "S")]
    pub(crate) timeout: Option<u64>,

    /// How a CGI request is served: `cold` starts a new interpreter for each
    #[arg(long, value_enum, default_value_t = Mode::Cold)]
    pub(crate) mode: Mode,
}

impl Options {
    /// These options, with those of the application's own `#!` line where these say nothing.
    ///
    /// # Errors
    /// The log entry, if that line has words that are no options.
    pub(crate) fn with_script_line(self, app: &App, base: &Path) -> Result<Self, Entry> {
        let Source::File(path) = &app.source else {
            return Ok(self);
        };
        let script = base.join(OsStr::from_bytes(path));
        if !script.is_file() {
            return Ok(self);
        }
        let line = script_line::options_of(&script)?;
        let home = script.parent().unwrap_or(base);
        let of_line = |named: Option<PathBuf>| named.map(|named| home.join(named));
        let (venv, python) = if self.venv.is_some() || self.python.is_some() {
            (self.venv, self.python)
        } else {
            (of_line(line.venv), line.python.map(|named| settings::at(home, &named)))
        };
        Ok(Self {
            venv,
            python,
            chdir: self.chdir.or_else(|| of_line(line.chdir)),
            path: line.path.iter().map(|named| home.join(named)).chain(self.path).collect(),
            env: line.env.into_iter().chain(self.env).collect(),
            debug: self.debug || line.debug,
            timeout: self.timeout.or(line.timeout),
            mode: self.mode,
        })
    }
}

/// How a CGI request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A new interpreter for each request, as PEP 3333 shows it
    Cold,
}

/// What may stand behind our name on a `#!` line.
#[derive(Debug, Parser)]
#[command(name = "wsgate", no_binary_name = false, disable_help_flag = true)]
pub(crate) struct ScriptLine {
    #[command(flatten)]
    pub(crate) options: Options,
}

fn assignment(word: &str) -> Result<(OsString, OsString), String> {
    match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("`{word}` is not NAME=VALUE")),
    }
}
