//! The words of `wsgate check`.

use clap::Args;

use super::{app_and_base, complain, options::Options};
use crate::{check, exit::Exit};

/// What is to be checked, and for whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    options: Options,

    /// The application
    #[arg(value_name = "APP")]
    app: String,

    /// User that the web server runs programs as; without it the first of www-data, apache, nginx, http that there is
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Check {
    pub(super) fn run(&self) -> Exit {
        match app_and_base(&self.app) {
            Ok((app, base)) => check::run(&self.options, app, &base, self.user.as_deref()),
            Err(entry) => {
                complain(&entry);
                Exit::Usage
            }
        }
    }
}
