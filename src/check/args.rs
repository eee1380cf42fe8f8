//! The arguments of `wsgate check`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Args;
use diagnostics::message::LogMessage;

use crate::config::options::{
    AppOptions, Context, ForkOptions, ModeOption, OptionGroup, RequestOptions, ScriptOptions,
    account, contexts::ActsIn, warm_up_target,
};

/// The arguments of `wsgate check`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Application to check: FILE, MODULE, or one of them with :CALLABLE
    #[arg(value_name = "APP", required_unless_present = "config")]
    pub(crate) app: Option<OsString>,

    /// Path and query of the first request, or a full URL [default: /]
    #[arg(value_name = "TARGET", value_parser = warm_up_target)]
    pub(crate) target: Option<String>,

    /// Check the pool that FILE describes, a configuration file of `wsgate fastcgi`
    #[arg(long, value_name = "FILE", help_heading = "Check", conflicts_with = "app")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) check: CheckOptions,

    #[command(flatten)]
    pub(crate) mode: ModeOption,

    #[command(flatten)]
    pub(crate) forks: ForkOptions,

    #[command(flatten)]
    pub(crate) request: RequestOptions,

    #[command(flatten)]
    pub(crate) app_options: AppOptions,
}

/// What `wsgate check` checks.
pub(crate) struct CheckedApp {
    /// The argument APP.
    pub(super) app: OsString,
    pub(super) options: ScriptOptions,
    /// The user who must be able to read the files.
    pub(super) user: Option<String>,
    /// The time limit on the command line, in seconds.
    pub(super) timeout: Option<u64>,
    pub(super) target: Option<String>,
    /// Does the application get only the most necessary environment variables?
    pub(crate) clears_environment: bool,
    /// Is this the application of a configuration file?
    pub(super) is_pool: bool,
    /// What is wrong with the configuration file.
    pub(super) problems: Vec<LogMessage>,
}

impl CheckArgs {
    /// The application on the command line.
    pub(crate) fn checked_app(&self) -> CheckedApp {
        CheckedApp {
            app: self.app.clone().unwrap_or_default(),
            options: self.script_options(),
            user: self.check.user.clone(),
            timeout: self.request.timeout,
            target: self.target.clone(),
            clears_environment: false,
            is_pool: false,
            problems: Vec::new(),
        }
    }

    /// The application `app` of a configuration file, with its `options`, whose paths are absolute,
    /// and what is wrong with them. The pool runs as `user`.
    pub(crate) fn checked_app_of_pool(
        &self,
        app: String,
        user: Option<String>,
        options: ScriptOptions,
        problems: Vec<LogMessage>,
    ) -> CheckedApp {
        let checked = self.checked_app();
        CheckedApp {
            app: app.into(),
            options: checked.options.completed_by(options, Path::new("/")),
            user: checked.user.or(user),
            is_pool: true,
            problems,
            ..checked
        }
    }

    /// The options that a `#!` line may have, too.
    fn script_options(&self) -> ScriptOptions {
        ScriptOptions {
            app: self.app_options.clone(),
            request: self.request.clone(),
            mode: self.mode,
            forks: self.forks.clone(),
            ..ScriptOptions::default()
        }
    }
}

/// For whom an application is checked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Check")]
pub(crate) struct CheckOptions {
    /// Check that USER, the user of the web server, can read the files of the application
    ///
    /// The default is the owner of the document root that the script stands in, if that owner is a
    /// person: suexec runs scripts as the owner. Otherwise it is the first of www-data, apache,
    /// nginx and http that exists.
    #[arg(long, value_name = "USER", value_parser = account("www-data"))]
    pub(crate) user: Option<String>,
}

impl ActsIn for CheckOptions {
    const CONTEXTS: &'static [Context] = &[Context::Check];
}

/// The group of options that `wsgate check` alone has.
pub(crate) fn groups() -> [OptionGroup; 1] {
    [OptionGroup::of::<CheckOptions>()]
}
