//! Options, settings and the `#!` line: what a run is to be like.

pub(crate) mod options;
pub(crate) mod script_line;
pub(crate) mod settings;
