//! Options that every way of running an application shares.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, ValueEnum};

/// Longest time that is counted, in seconds: clocks end somewhere.
pub(crate) const LONGEST: u64 = u32::MAX as u64;

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
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) timeout: Option<u64>,

    /// How a CGI request is served: `cold` starts a new interpreter for each, `warm` forks one that has the application loaded,
    /// `resident` has processes that stay
    #[arg(long, value_enum, default_value_t = Mode::Cold)]
    pub(crate) mode: Mode,

    /// Seconds without requests after which the processes of `--mode warm` or `resident` end
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    pub(crate) warm_idle: u64,
}

/// How a CGI request is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// A new interpreter for each request, as PEP 3333 shows it
    Cold,
    /// A process for each request, forked from one that has loaded the application
    Warm,
    /// Processes that stay, and serve one request after the other
    Resident,
}

impl Options {
    /// Words that mean the same, but for the mode.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut pair = |name: &str, value: OsString| words.extend([OsString::from(name), value]);
        for (name, value) in [("--venv", &self.venv), ("--python", &self.python), ("--chdir", &self.chdir)] {
            if let Some(value) = value {
                pair(name, value.into());
            }
        }
        self.path.iter().for_each(|path| pair("--path", path.into()));
        for (name, value) in &self.env {
            let mut assignment = name.clone();
            assignment.push("=");
            assignment.push(value);
            pair("--env", assignment);
        }
        if let Some(seconds) = self.timeout {
            pair("--timeout", seconds.to_string().into());
        }
        if self.debug {
            words.push("--debug".into());
        }
        words
    }
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
