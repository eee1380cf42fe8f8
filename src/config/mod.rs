//! Options, settings, configuration files, the `#!` line of a script, and the number of workers
//! that the limits hold.

mod env_file;
pub(crate) mod file;
mod file_values;
pub(crate) mod missing_path;
pub(crate) mod options;
pub(crate) mod script_line;
pub(crate) mod settings;
mod unreadable_script;
pub(crate) mod warm_pool;
pub(crate) mod worker_budget;
