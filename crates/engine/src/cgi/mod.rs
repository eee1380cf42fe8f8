//! CGI requests: each is served in a process of its own.

pub(crate) mod cold;
mod idle_worker;
pub(crate) mod warm;
