//! What brings requests to the engine. Each transport makes an [`crate::wsgi::Exchange`].

pub(crate) mod cgi;
pub(crate) mod fastcgi;
mod spool;

use std::time::Duration;

/// How often a response that goes on and on looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(100);
