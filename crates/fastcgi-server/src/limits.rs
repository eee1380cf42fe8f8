//! How much of a peer's a connection keeps, and what it says about the application.

use crate::values::Values;

/// What bounds the memory of one [`Connection`](crate::Connection), and what it answers to
/// `FCGI_GET_VALUES`.
///
/// No peer makes a connection keep more than [`Limits::params_bytes`] for each of
/// [`Limits::active_requests`], and a query of at most 64 KiB while it arrives; the buffers of
/// these may be twice as large. Nothing is allocated because a length announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of parameters that one request may have, lengths included. Default: 1 MiB,
    /// somewhat more than Apache sends with all its own limits used up. More of them end in
    /// [`ParamsError::TooLong`](crate::ParamsError::TooLong).
    pub params_bytes: usize,
    /// Most parameters that one request may have. Default: 1024, of which Apache uses about 150 at
    /// most. More of them end in [`ParamsError::TooMany`](crate::ParamsError::TooMany).
    pub params_count: usize,
    /// Most requests that one connection may have going at the same time; 0 counts as 1. Default:
    /// 1, which means that connections are not multiplexed: a further request is refused with
    /// `FCGI_CANT_MPX_CONN`. With more than 1 a request above the limit is refused with
    /// `FCGI_OVERLOADED` (FastCGI 1.0, 5.5). Requests are searched one after the other, so this
    /// should stay in the hundreds.
    pub active_requests: usize,
    /// How many connections the whole application accepts at the same time, to be announced as
    /// `FCGI_MAX_CONNS`. Default: not announced.
    pub max_conns: Option<u32>,
    /// How many requests the whole application accepts at the same time, to be announced as
    /// `FCGI_MAX_REQS`. Default: not announced.
    pub max_reqs: Option<u32>,
}

impl Limits {
    /// Whether a connection may have several requests going at the same time.
    pub const fn multiplex(&self) -> bool {
        self.active_requests > 1
    }

    /// What is answered to `FCGI_GET_VALUES` (FastCGI 1.0, 4.1).
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
