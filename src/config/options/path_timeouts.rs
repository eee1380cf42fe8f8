//! Timeouts of requests that depend on the URL path.

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};
use wire::{
    mount::MountVariables,
    path_timeouts::{PathTimeout, timeout_of},
};

use crate::{
    config::options::{
        ScriptOptions,
        contexts::{
            ActsIn,
            Context::{self, Call, Cold, LoneWorker, Pool, Resident, Warm},
        },
        values::seconds,
    },
    request::Request,
};

/// The timeouts of requests for some URL paths.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct PathTimeoutOption {
    // The gateway of each CGI request alone uses this: it does not change a warm pool.
    /// Stop a request for the URL path PATH, or a path below, after SECONDS; 0 sets no limit
    /// (repeatable)
    ///
    /// PATH is compared with SCRIPT_NAME and PATH_INFO, by whole segments: `/upload=600` is for
    /// /upload and /upload/file, not for /uploads. The longest PATH counts. For its requests the
    /// value replaces --timeout.
    #[arg(
        long,
        value_name = "PATH=SECONDS",
        value_parser = path_timeout,
        action = ArgAction::Append
    )]
    #[serde(skip)]
    pub(crate) timeout_for: Vec<PathTimeout>,
}

impl ActsIn for PathTimeoutOption {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Pool, LoneWorker, Call];
}

impl PathTimeoutOption {
    /// This option, completed by that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self { timeout_for: line.timeout_for.into_iter().chain(self.timeout_for).collect() }
    }
}

impl ScriptOptions {
    /// These options with the timeout of `request`, which is a CGI request.
    pub(crate) fn for_request(&self, request: &Request) -> Self {
        let mut options = self.clone();
        if self.path_timeouts.timeout_for.is_empty() {
            return options;
        }
        let bytes = |name| request.variable(name).map(std::os::unix::ffi::OsStringExt::into_vec);
        let [script_name, path_info, request_uri, redirect_status] =
            ["SCRIPT_NAME", "PATH_INFO", "REQUEST_URI", "REDIRECT_STATUS"].map(bytes);
        let path = MountVariables {
            script_name: script_name.as_deref(),
            path_info: path_info.as_deref(),
            request_uri: request_uri.as_deref(),
            redirect_status: redirect_status.as_deref(),
        }
        .path();
        if let Some(seconds) = timeout_of(&path, &self.path_timeouts.timeout_for) {
            options.request.timeout = Some(seconds);
        }
        options
    }
}

fn path_timeout(value: &str) -> Result<PathTimeout, String> {
    let example = "such as `/upload=600`";
    let Some((path, limit)) = value.rsplit_once('=').filter(|(path, _)| path.starts_with('/'))
    else {
        return Err(format!("give PATH=SECONDS with a PATH that begins with `/`, {example}"));
    };
    if path.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err(format!("give a PATH without `?` and `#`, {example}"));
    }
    let seconds = seconds(0)(limit)?;
    Ok(PathTimeout { path: path.trim_end_matches('/').to_owned(), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_timeout_has_a_path_and_seconds() {
        for (value, path, seconds) in
            [("/upload=600", "/upload", 600), ("/a=b/=0", "/a=b", 0), ("/=5", "", 5)]
        {
            let expected = PathTimeout { path: path.to_owned(), seconds };
            assert_eq!(path_timeout(value), Ok(expected));
        }
        for wrong in ["", "/a", "a=5", "=5", "/a=", "/a=-1", "/a=x", "/a?b=5", "/a\n=5"] {
            assert!(path_timeout(wrong).is_err(), "{wrong:?}");
        }
    }
}
