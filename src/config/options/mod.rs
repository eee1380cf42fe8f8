//! Options that say how an application is run.
//!
//! Each struct is a group of options that act in the same contexts. Commands flatten the groups
//! that act in them, and help, man pages and completions are made from these structs alone.

pub(crate) mod app;
pub(crate) mod contexts;
pub(crate) mod fastcgi;
pub(crate) mod logging;
pub(crate) mod nearest;
pub(crate) mod os_paths;
pub(crate) mod path_timeouts;
pub(crate) mod sendfile;
pub(crate) mod trusted_proxies;
mod values;
pub(crate) mod warm;

use std::path::Path;

use clap::Parser;
use serde::{Deserialize, Serialize};

pub(crate) use crate::config::options::{
    app::{AppOptions, DebugOption, ForkOptions, RequestOptions, ResponseTimeoutOption},
    contexts::{Context, OptionGroup},
    fastcgi::{FastcgiOptions, WorkerLimits},
    logging::{LogForm, LoggingOptions},
    path_timeouts::PathTimeoutOption,
    sendfile::SendfileOption,
    trusted_proxies::TrustOptions,
    values::{account, count, seconds, size, warm_up_target},
    warm::{Mode, ModeOption, WarmOptions, WhenFull},
};

/// All options that may stand on the `#!` line of a script. The line serves CGI, FastCGI and the
/// shell, so each of its options acts in at least one of them.
#[derive(Clone, Debug, Default, Deserialize, Parser, Serialize)]
#[command(name = "wsgate", no_binary_name = false, disable_help_flag = true)]
pub(crate) struct ScriptOptions {
    #[command(flatten)]
    pub(crate) app: AppOptions,

    #[command(flatten)]
    pub(crate) request: RequestOptions,

    #[command(flatten)]
    pub(crate) path_timeouts: PathTimeoutOption,

    #[command(flatten)]
    pub(crate) trust: TrustOptions,

    #[command(flatten)]
    pub(crate) sendfile: SendfileOption,

    #[command(flatten)]
    pub(crate) response: ResponseTimeoutOption,

    #[command(flatten)]
    pub(crate) error_pages: DebugOption,

    #[command(flatten)]
    pub(crate) logging: LoggingOptions,

    #[command(flatten)]
    pub(crate) mode: ModeOption,

    #[command(flatten)]
    pub(crate) warm: WarmOptions,

    #[command(flatten)]
    pub(crate) forks: ForkOptions,

    #[command(flatten)]
    pub(crate) limits: WorkerLimits,

    // A warm pool has no FastCGI workers.
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) fastcgi: FastcgiOptions,
}

impl ScriptOptions {
    /// The groups of options of a `#!` line.
    pub(crate) fn groups() -> [OptionGroup; 13] {
        [
            OptionGroup::of::<AppOptions>(),
            OptionGroup::of::<RequestOptions>(),
            OptionGroup::of::<PathTimeoutOption>(),
            OptionGroup::of::<TrustOptions>(),
            OptionGroup::of::<SendfileOption>(),
            OptionGroup::of::<ResponseTimeoutOption>(),
            OptionGroup::of::<DebugOption>(),
            OptionGroup::of::<LoggingOptions>(),
            OptionGroup::of::<ModeOption>(),
            OptionGroup::of::<WarmOptions>(),
            OptionGroup::of::<ForkOptions>(),
            OptionGroup::of::<WorkerLimits>(),
            OptionGroup::of::<FastcgiOptions>(),
        ]
    }

    /// These options, completed by those of the `#!` line of a script in the directory `home`.
    pub(crate) fn completed_by(self, line: Self, home: &Path) -> Self {
        Self {
            app: self.app.completed_by(line.app, home),
            request: self.request.completed_by(line.request),
            path_timeouts: self.path_timeouts.completed_by(line.path_timeouts),
            trust: self.trust.completed_by(line.trust),
            sendfile: self.sendfile.completed_by(line.sendfile),
            response: self.response.completed_by(line.response),
            error_pages: self.error_pages.completed_by(line.error_pages),
            logging: self.logging.completed_by(line.logging, home),
            mode: self.mode.completed_by(line.mode),
            // No other command than `wsgate cgi`, which has no `#!` line, has these options.
            warm: line.warm,
            forks: self.forks.completed_by(line.forks),
            limits: self.limits.completed_by(line.limits),
            fastcgi: self.fastcgi.completed_by(line.fastcgi, home),
        }
    }
}
