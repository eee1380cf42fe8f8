//! Transports: what brings requests to the engine. Each makes a [`crate::wsgi::Exchange`].
//!
//! CGI has one request a process. Protocols with connections implement [`Connection`], which the
//! serve loop of a pool is generic over.

pub(crate) mod cgi;
mod connection;
pub(crate) mod error_sinks;
pub(crate) mod fastcgi;
mod spool;

use std::time::Duration;

pub(crate) use crate::transport::connection::{Connection, Progress, Request, Stage};

/// How often an endless response checks whether its client is still there.
const ABORT_CHECK_INTERVAL: Duration = Duration::from_millis(100);
