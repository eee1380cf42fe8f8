//! What the machine knows: users, hosts, directories that can be trusted, signals.

pub(crate) mod account;
pub(crate) mod hosts;
pub(crate) mod runtime_directory;
pub(crate) mod signals;
pub(crate) mod trusted_path;
pub(crate) mod users;
