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
    /// Without it: the variable VIRTUAL_ENV, then a directory `.venv` or `venv` beside the script
    /// or above it.
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
    ///
    /// `wsgate check`, loading in `wsgate call`, and a silent server of `--via` have 30 seconds
    /// without it.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) timeout: Option<u64>,

    /// How a CGI request is served: `cold` starts a new interpreter for each, `warm` forks one that
    /// has the application loaded, `resident` has processes that stay
    #[arg(long, value_enum, default_value_t = Mode::Cold)]
    pub(crate) mode: Mode,

    #[command(flatten)]
    pub(crate) warm: Warm,

    #[command(flatten)]
    pub(crate) limits: Limits,

    #[command(flatten)]
    pub(crate) connections: Connections,

    /// URL path of the application (SCRIPT_NAME), if the web server does not set that
    ///
    /// A request below this path has the rest of its path as PATH_INFO. The requests of
    /// `--warm-up`, `wsgate check` and `wsgate call` have this SCRIPT_NAME. Without the option, the
    /// warm-up request of `--mode warm` and `resident` has the SCRIPT_NAME of the request that
    /// starts the pool.
    #[arg(long, value_name = "PATH", value_parser = script_name)]
    pub(crate) script_name: Option<String>,

    /// Path that the application is asked for when it was loaded, before processes are forked from
    /// that; or a whole address, http://HOST/PATH
    ///
    /// What it loads when it is first needed is then there for all processes of `--mode warm`,
    /// `--mode resident` or a FastCGI pool.
    #[arg(long, value_name = "PATH", value_parser = warm_up)]
    pub(crate) warm_up: Option<String>,

    /// Those of the script's `#!` line.
    #[arg(skip)]
    pub(crate) changes: Changes,

    /// That of the script's `#!` line.
    #[arg(skip)]
    pub(crate) slow: Option<u64>,
}

/// How the pool behind `--mode warm` or `resident` is kept, and what a request does that finds no
/// process in it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Warm {
    /// Seconds without requests after which the processes of `--mode warm` or `resident` end
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    pub(crate) warm_idle: u64,

    /// Seconds after which they end though there are requests, so that the next one has others
    /// started; 0 is never
    #[arg(long, value_name = "S", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) warm_age: u64,

    /// Processes that serve or wait for requests at most, with `--mode warm` or `resident`; a
    /// supervisor and a template are not counted
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max_processes: u32,

    /// Seconds that a request waits for one of them while all are busy
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    pub(crate) queue: u64,

    /// What becomes of it then: `cold` serves it by a new interpreter, `503` refuses it
    #[arg(long, value_enum, value_name = "HOW", default_value_t = WhenFull::Cold)]
    pub(crate) when_full: WhenFull,
}

/// Which changes of files make processes load the code again.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Changes {
    /// File or directory whose change makes the pool reload, as that of the script does
    /// (repeatable)
    ///
    /// It need not be there yet. Of a directory, entries that come and go count, not what is in
    /// them. A worker on standard input without `--workers` has a supervisor only with this option
    /// or `--reload`, and does not notice that its script has changed without one. On a `#!` line
    /// this option and `--reload` make such a worker exit after a change; the process manager of
    /// the web server then starts another.
    #[arg(long, value_name = "PATH")]
    pub(crate) reload_on: Vec<PathBuf>,

    /// Reload when the file of any module that is loaded changes; for development
    #[arg(long)]
    pub(crate) reload: bool,
}

/// How long a worker lives that serves one request after the other.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests after which a worker is replaced, or up to a tenth fewer, so that not all are at
    /// once; without it or with 0 never
    ///
    /// Workers are the processes of a FastCGI pool and those of `--mode resident`, here and below.
    #[arg(long, value_name = "N")]
    pub(crate) max_requests: Option<u64>,

    /// Seconds after which a worker is replaced, or up to a tenth fewer; without it or with 0 never
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) max_age: Option<u64>,

    /// Resident memory above which a worker is replaced after a request, such as 200M (units K, M,
    /// G); without it or with 0 never
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_rss: Option<u64>,
}

/// What a FastCGI worker grants its connections.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Connections {
    /// Seconds in which the start of a FastCGI request has to come, from its first byte to the end
    /// of its parameters; 0 is without limit [default: 10]
    ///
    /// A connection that takes longer is closed (W0403).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) header_timeout: Option<u64>,

    /// Seconds that a FastCGI worker waits for the next piece of a request body, or until more of a
    /// response is read; 0 is without limit [default: 60]
    ///
    /// The limit holds for each piece, and `--timeout` for the whole request.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) socket_timeout: Option<u64>,

    /// Connections that a FastCGI worker holds, idle ones included, but at most half of the file
    /// descriptors that it may open [default: 1000]
    ///
    /// For each one above the limit the worker closes another: the one that has waited longest
    /// without a request, then the oldest whose request has not come whole, then the oldest idle
    /// keep-alive connection (W0404).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) worker_connections: Option<u32>,
}

impl Connections {
    /// These, with those of `others` where they say nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            header_timeout: self.header_timeout.or(others.header_timeout),
            socket_timeout: self.socket_timeout.or(others.socket_timeout),
            worker_connections: self.worker_connections.or(others.worker_connections),
        }
    }
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

/// What becomes of a request that no process of a warm pool has taken for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenFull {
    /// A new interpreter serves it
    Cold,
    /// It is refused with status 503
    #[value(name = "503")]
    Refuse,
}

impl Limits {
    /// These, with those of `others` where they say nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            max_requests: self.max_requests.or(others.max_requests),
            max_age: self.max_age.or(others.max_age),
            max_rss: self.max_rss.or(others.max_rss),
        }
    }
}

impl Options {
    /// Words that mean the same to the processes which run the application: without the mode, and
    /// without what gateways alone go by.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut pair = |name: &str, value: OsString| words.extend([OsString::from(name), value]);
        for (name, value) in
            [("--venv", &self.venv), ("--python", &self.python), ("--chdir", &self.chdir)]
        {
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
        let numbers = [
            ("--timeout", self.timeout),
            ("--warm-idle", Some(self.warm.warm_idle)),
            ("--warm-age", Some(self.warm.warm_age)),
            ("--max-processes", Some(self.warm.max_processes.into())),
            ("--max-requests", self.limits.max_requests),
            ("--max-age", self.limits.max_age),
            ("--max-rss", self.limits.max_rss),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                pair(name, value.to_string().into());
            }
        }
        if let Some(script_name) = &self.script_name {
            pair("--script-name", script_name.into());
        }
        if let Some(target) = &self.warm_up {
            pair("--warm-up", target.into());
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

    #[command(flatten)]
    pub(crate) changes: Changes,

    /// That of `wsgate fastcgi`.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) slow: Option<u64>,
}

fn assignment(word: &str) -> Result<(OsString, OsString), String> {
    match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("`{word}` is not NAME=VALUE")),
    }
}

/// The path of an application in URLs, without a slash at its end.
fn script_name(word: &str) -> Result<String, String> {
    let is_path = word.is_empty() || word.starts_with('/') && !word.ends_with('/');
    if !is_path || word.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err(format!("`{}` does not begin with `/`, or ends with one", word.escape_debug()));
    }
    Ok(word.to_owned())
}

/// `/path?query`, or that behind scheme and host.
fn warm_up(word: &str) -> Result<String, String> {
    let has_host = ["http://", "https://"].iter().any(|scheme| {
        word.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?']))
    });
    if !(word.starts_with('/') || has_host)
        || word.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(format!("`{}` is neither /PATH nor http://HOST/PATH", word.escape_debug()));
    }
    Ok(word.to_owned())
}

/// Bytes: a number, and perhaps a unit.
fn size(word: &str) -> Result<u64, String> {
    let digits = word.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor = match word[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(format!("`{word}` has another unit than K, M and G")),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("`{word}` is no number with a unit, such as 200M"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{word}` is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_request_has_a_path_or_a_host() {
        for right in ["/", "/a?b=c", "http://x.example", "https://x.example:8443/a"] {
            assert_eq!(warm_up(right).as_deref(), Ok(right));
        }
        for wrong in ["", "a", "http://", "https:///a", "/a b", "/a\r\nX: y", "ftp://x/"] {
            assert!(warm_up(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (word, bytes) in
            [("0", 0), ("512", 512), ("1k", 1024), ("200M", 200 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(size(word), Ok(bytes), "{word}");
        }
        for wrong in ["", "M", "-1", "1.5G", "200MB", "20T", "1 M", "99999999999G", "é"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }
}
