//! Interfaces to the operating system: users, hosts, trusted paths, the runtime directory, signals.

pub(crate) mod account;
pub(crate) mod error_log;
pub(crate) mod hosts;
pub(crate) mod runtime_directory;
pub(crate) mod signals;
pub(crate) mod trusted_path;
pub(crate) mod users;
