//! Interfaces to the operating system: users, hosts, paths, the runtime directory, signals, limits
//! and processes.

pub(crate) mod accept_queue;
pub(crate) mod account;
mod cgroups;
pub(crate) mod closed_directory;
pub(crate) mod command_line;
pub(crate) mod document_root;
pub(crate) mod error_log;
pub(crate) mod hosts;
pub(crate) mod installed_file;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod log_style;
pub(crate) mod processes;
pub(crate) mod shell;
pub(crate) mod signals;
pub(crate) mod users;

pub(crate) use control::{runtime_directory, trusted_path};
