//! Options about the application, its interpreter and its requests.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueHint};
use serde::{Deserialize, Serialize};

use crate::config::options::{
    contexts::{
        ActsIn,
        Context::{self, Call, Check, Cold, LoneWorker, Pool, Resident, Serve, Via, Warm},
    },
    os_paths,
    values::{assignment, callable, function, script_name, seconds, warm_up_target},
};

/// Seconds until the response of a CGI request begins, if the request has no timeout. An
/// application that starts a server of its own when it is loaded never responds.
const DEFAULT_RESPONSE_TIMEOUT_SECS: u64 = 300;

/// Which application runs, and in which interpreter.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Application")]
pub(crate) struct AppOptions {
    /// Name the WSGI callable, or a factory with its arguments as `create_app()` [default:
    /// application, then app]
    ///
    /// A callable in APP comes first.
    #[arg(long, value_name = "CALLABLE", value_parser = callable)]
    pub(crate) callable: Option<String>,

    /// Use the virtualenv in DIR
    ///
    /// By default wsgate uses the virtualenv that it is installed in, then the one that the
    /// variable VIRTUAL_ENV names, then a directory `.venv` or `venv` beside the script or above
    /// it.
    #[arg(long, value_name = "DIR", conflicts_with = "python")]
    #[serde(with = "os_paths")]
    pub(crate) venv: Option<PathBuf>,

    /// Run the Python interpreter EXE, CPython 3.9 or later [default: python3]
    ///
    /// The default holds where no virtualenv is found.
    #[arg(long, value_name = "EXE", value_hint = ValueHint::ExecutablePath)]
    #[serde(with = "os_paths")]
    pub(crate) python: Option<PathBuf>,

    /// Change to DIR before loading the application [default: the directory of the script]
    #[arg(long, value_name = "DIR")]
    #[serde(with = "os_paths")]
    pub(crate) chdir: Option<PathBuf>,

    /// Add DIR to sys.path, after the directory of the script (repeatable)
    ///
    /// Python skips a directory that does not exist, and wsgate logs warning W0108.
    #[arg(long, value_name = "DIR")]
    #[serde(with = "os_paths")]
    pub(crate) path: Vec<PathBuf>,

    /// Set an environment variable for the application (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) env: Vec<(OsString, OsString)>,

    /// Set the environment variables in FILE for the application (repeatable)
    ///
    /// FILE has one NAME=VALUE a line, as for EnvironmentFile= of systemd. Variables of --env
    /// replace those of FILE. The user of the application reads FILE.
    #[arg(long, value_name = "FILE")]
    #[serde(with = "os_paths")]
    pub(crate) env_file: Vec<PathBuf>,
}

impl ActsIn for AppOptions {
    const CONTEXTS: &'static [Context] =
        &[Cold, Warm, Resident, Pool, LoneWorker, Serve, Call, Check];
}

impl AppOptions {
    /// These options, completed by those of the `#!` line of a script in the directory `home`.
    pub(super) fn completed_by(self, line: Self, home: &Path) -> Self {
        let in_home = |named: Option<PathBuf>| named.map(|named| home.join(named));
        let (venv, python) = if self.venv.is_some() || self.python.is_some() {
            (self.venv, self.python)
        } else {
            (in_home(line.venv), line.python.map(|program| program_at(home, &program)))
        };
        Self {
            callable: self.callable.or(line.callable),
            venv,
            python,
            chdir: self.chdir.or_else(|| in_home(line.chdir)),
            path: line.path.iter().map(|named| home.join(named)).chain(self.path).collect(),
            env: line.env.into_iter().chain(self.env).collect(),
            env_file: line
                .env_file
                .iter()
                .map(|named| home.join(named))
                .chain(self.env_file)
                .collect(),
        }
    }
}

impl AppOptions {
    /// These options as arguments of another command.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { callable, venv, python, chdir, path, env, env_file } = self;
        let paths = [("--venv=", venv), ("--python=", python), ("--chdir=", chdir)];
        let mut arguments: Vec<OsString> = paths
            .into_iter()
            .filter_map(|(option, value)| Some(joined(option, value.as_ref()?)))
            .collect();
        arguments.extend(callable.iter().map(|callable| joined("--callable=", callable)));
        arguments.extend(path.iter().map(|path| joined("--path=", path)));
        arguments.extend(env_file.iter().map(|path| joined("--env-file=", path)));
        arguments.extend(env.iter().map(|(name, value)| {
            let mut argument = joined("--env=", name);
            argument.push("=");
            argument.push(value);
            argument
        }));
        arguments
    }
}

/// `option` and its value as one argument.
fn joined(option: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(value);
    argument
}

/// The path of `program` relative to `base`. A bare name stays one, since the program is then
/// looked up on `PATH`.
pub(crate) fn program_at(base: &Path, program: &Path) -> PathBuf {
    if program.components().count() == 1 { program.to_owned() } else { base.join(program) }
}

/// What holds for each request of an application.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct RequestOptions {
    /// Stop a request after SECONDS; 0 sets no limit [default: no limit]
    ///
    /// The client gets 504 Gateway Timeout, or a cut response if the response has begun. The time
    /// includes loading the application where the request loads it, and `close()` of the response.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    pub(crate) timeout: Option<u64>,

    /// Serve the application below the URL path PATH, such as /app [default: the SCRIPT_NAME that
    /// the web server sets]
    ///
    /// PATH becomes SCRIPT_NAME, and the rest of the URL path becomes PATH_INFO: with /app, a
    /// request for /app/page has the PATH_INFO /page. Use the option if the web server passes the
    /// whole URL path as PATH_INFO. A request of `--warm-up` has this SCRIPT_NAME, too.
    #[arg(long, value_name = "PATH", value_parser = script_name)]
    pub(crate) script_name: Option<String>,
}

impl ActsIn for RequestOptions {
    const CONTEXTS: &'static [Context] =
        &[Cold, Warm, Resident, Pool, LoneWorker, Serve, Call, Via, Check];
}

impl RequestOptions {
    /// These options, completed by those of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self {
            timeout: self.timeout.or(line.timeout),
            script_name: self.script_name.or(line.script_name),
        }
    }

    /// These options as arguments of another command.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let Self { timeout, script_name } = self;
        let timeout = timeout.map(|seconds| joined("--timeout=", seconds.to_string()));
        timeout
            .into_iter()
            .chain(script_name.as_ref().map(|path| joined("--script-name=", path)))
            .collect()
    }
}

/// How long a response may take to begin.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct ResponseTimeoutOption {
    // The gateway of each request alone uses this: it does not change a warm pool.
    /// Stop a CGI request whose response has not begun after SECONDS; 0 sets no limit [default:
    /// 300, or none with --timeout]
    ///
    /// Loading the application and reading the request body count. A response that has begun is
    /// limited by `--timeout` alone.
    #[arg(long, value_name = "SECONDS", value_parser = seconds(0))]
    #[serde(skip)]
    pub(crate) response_timeout: Option<u64>,
}

impl ActsIn for ResponseTimeoutOption {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident];
}

impl ResponseTimeoutOption {
    /// This option, or that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self { response_timeout: self.response_timeout.or(line.response_timeout) }
    }

    /// The limit for a CGI request with the options `request`.
    pub(crate) fn limit(self, request: &RequestOptions) -> Option<Duration> {
        let default = match request.timeout {
            Some(_) => 0,
            None => DEFAULT_RESPONSE_TIMEOUT_SECS,
        };
        let seconds = self.response_timeout.unwrap_or(default);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }
}

/// What an error page shows.
#[derive(Args, Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct DebugOption {
    /// Show tracebacks to the client, not only in the log
    #[arg(long)]
    pub(crate) debug: bool,
}

impl ActsIn for DebugOption {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Pool, LoneWorker, Call];
}

impl DebugOption {
    /// This option, or that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self { debug: self.debug || line.debug }
    }
}

/// What an application does around the fork of workers.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Process")]
pub(crate) struct ForkOptions {
    /// Send one GET request to PATH (or a full URL) after loading the application, before forking
    /// workers
    ///
    /// All workers of `--mode warm`, `--mode resident` or a FastCGI pool share what the application
    /// loads for its first request.
    #[arg(long, value_name = "PATH", value_parser = warm_up_target)]
    pub(crate) warm_up: Option<String>,

    /// Run FUNCTION of MODULE in each process that is forked with the application loaded, before
    /// the process serves
    ///
    /// The function starts the application's threads again, which do not live in a forked process.
    /// So threads do not keep the application from being loaded once for all processes. If the
    /// function raises an exception, the process exits.
    #[arg(long, value_name = "MODULE:FUNCTION", value_parser = function)]
    pub(crate) after_fork: Option<String>,
}

impl ActsIn for ForkOptions {
    const CONTEXTS: &'static [Context] = &[Warm, Resident, Pool, Check];
}

impl ForkOptions {
    /// This option, or that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self {
            warm_up: self.warm_up.or(line.warm_up),
            after_fork: self.after_fork.or(line.after_fork),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_the_response_timeout_stands_in_the_help_and_yields_to_the_timeout() {
        let command = ResponseTimeoutOption::augment_args(clap::Command::new("test"));
        let help = command.get_arguments().next().unwrap().get_help().unwrap().to_string();
        let default = format!("[default: {DEFAULT_RESPONSE_TIMEOUT_SECS}, or none with --timeout]");
        assert!(help.ends_with(&default), "{help}");
        let limit = |response_timeout, timeout| {
            let request = RequestOptions { timeout, script_name: None };
            let limit = ResponseTimeoutOption { response_timeout }.limit(&request);
            limit.map(|limit| limit.as_secs())
        };
        for (response_timeout, timeout, expected) in [
            (None, None, Some(DEFAULT_RESPONSE_TIMEOUT_SECS)),
            (None, Some(600), None),
            (None, Some(0), None),
            (Some(0), None, None),
            (Some(5), Some(600), Some(5)),
        ] {
            assert_eq!(
                limit(response_timeout, timeout),
                expected,
                "{response_timeout:?} {timeout:?}"
            );
        }
    }
}
