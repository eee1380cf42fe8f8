//! CGI requests: each is served in a separate process.

pub(crate) mod cold;
mod idle_worker;
pub(crate) mod warm;
