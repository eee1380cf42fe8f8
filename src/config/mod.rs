//! Options, settings and the `#!` line of a script.

pub(crate) mod options;
pub(crate) mod script_line;
pub(crate) mod settings;
pub(crate) mod warm_pool;
