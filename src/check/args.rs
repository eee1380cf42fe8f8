//! The words of `wsgate check`.

use clap::Args;

use crate::config::options::Options;

/// What is to be checked, and for whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The application
    #[arg(value_name = "APP")]
    pub(crate) app: String,

    /// User that the web server runs programs as; without it the first of www-data, apache, nginx,
    /// http that there is
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
}
