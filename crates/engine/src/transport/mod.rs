//! Transports, which pass requests to the engine. Each transport makes a [`crate::wsgi::Exchange`].
//!
//! A CGI process serves one request. Protocols with connections implement [`Connection`], and the
//! serve loop of a pool is generic over this trait.

mod body_count;
pub(crate) mod cgi;
mod connection;
pub(crate) mod error_sinks;
pub(crate) mod fastcgi;
mod spool;

use std::time::Duration;

pub(crate) use crate::transport::connection::{Connection, Progress, Request, Stage};

/// Time between two checks during a long response that the client is still connected.
const ABORT_CHECK_INTERVAL: Duration = Duration::from_millis(100);
