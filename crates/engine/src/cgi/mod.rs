//! CGI requests: each is served by a process of its own.

pub(crate) mod cold;
pub(crate) mod warm;
