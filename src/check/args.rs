//! The arguments of `wsgate check`.

use clap::Args;

use crate::config::options::{
    AppOptions, Context, ModeOption, OptionGroup, RequestOptions, ScriptOptions, WarmUpOption,
    account, contexts::ActsIn, warm_up_target,
};

/// The arguments of `wsgate check`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArgs {
    /// Application to check: FILE[:CALLABLE] or MODULE[:CALLABLE]
    #[arg(value_name = "APP")]
    pub(crate) app: String,

    /// Path and query of the first request, or a full URL [default: /]
    #[arg(value_name = "TARGET", value_parser = warm_up_target)]
    pub(crate) target: Option<String>,

    #[command(flatten)]
    pub(crate) check: CheckOptions,

    #[command(flatten)]
    pub(crate) mode: ModeOption,

    #[command(flatten)]
    pub(crate) warm_up: WarmUpOption,

    #[command(flatten)]
    pub(crate) request: RequestOptions,

    #[command(flatten)]
    pub(crate) app_options: AppOptions,
}

impl CheckArgs {
    /// The options that a `#!` line may have, too.
    pub(crate) fn script_options(&self) -> ScriptOptions {
        ScriptOptions {
            app: self.app_options.clone(),
            request: self.request.clone(),
            mode: self.mode,
            warm_up: self.warm_up.clone(),
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
