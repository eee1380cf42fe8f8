//! How the supervisor puts things.

use std::{fmt, process::ExitStatus};

use diagnostics::process_exit::ExitText;
use rustix::process::getpid;

use crate::{config::settings::Settings, pool::listeners::Listener};

/// What an entry of the supervisor is about.
pub(super) struct About<'a>(pub(super) &'a Settings);

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "none, pool of {} pid {}", self.0.app, getpid().as_raw_nonzero())
    }
}

/// How a process ended.
pub(super) struct How(pub(super) ExitStatus);

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ExitText(self.0).fmt(f)
    }
}

/// Where the pool listens.
pub(super) struct Addresses<'a>(pub(super) &'a [Listener]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, listener) in self.0.iter().enumerate() {
            write!(f, "{}`{}`", if position > 0 { ", " } else { "" }, listener.address)?;
        }
        Ok(())
    }
}
