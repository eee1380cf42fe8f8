//! Limits of a connection, which are also the values that it announces.

use crate::values::Values;

/// Limits on the memory of one [`Connection`](crate::Connection), and its response to
/// `FCGI_GET_VALUES`.
///
/// A connection keeps at most [`Limits::params_bytes`] for each of [`Limits::active_requests`], and
/// a query of at most 64 KiB. The buffers may be twice as large. An announced length allocates no
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the parameters of one request in bytes, lengths included. The default is 1
    /// MiB, slightly more than Apache sends at its own limits. A larger size causes
    /// [`ParamsError::TooLong`](crate::ParamsError::TooLong).
    pub params_bytes: usize,
    /// Maximum number of parameters of one request. The default is 1024; Apache sends at most about
    /// 150. A larger number causes [`ParamsError::TooMany`](crate::ParamsError::TooMany).
    pub params_count: usize,
    /// Maximum number of concurrent requests on one connection; 0 counts as 1. The default is 1:
    /// connections are not multiplexed, and a further request is refused with `FCGI_CANT_MPX_CONN`.
    /// If the limit is above 1, a request above the limit is refused with `FCGI_OVERLOADED`
    /// (FastCGI 1.0, 5.5). Requests are found by linear search, so keep this limit below a
    /// thousand.
    pub active_requests: usize,
    /// Maximum number of concurrent connections of the whole application, announced as
    /// `FCGI_MAX_CONNS`. The default is `None`: not announced.
    pub max_conns: Option<u32>,
    /// Maximum number of concurrent requests of the whole application, announced as
    /// `FCGI_MAX_REQS`. The default is `None`: not announced.
    pub max_reqs: Option<u32>,
}

impl Limits {
    /// May a connection have several active requests?
    pub const fn multiplex(&self) -> bool {
        self.active_requests > 1
    }

    /// The response to `FCGI_GET_VALUES` (FastCGI 1.0, 4.1).
    pub const fn values(&self) -> Values {
        Values {
            max_conns: self.max_conns,
            max_reqs: self.max_reqs,
            mpxs_conns: Some(self.multiplex()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            params_bytes: 1 << 20,
            params_count: 1024,
            active_requests: 1,
            max_conns: None,
            max_reqs: None,
        }
    }
}
