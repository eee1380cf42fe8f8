//! Finds and loads the application, and records what loading has changed in the process.

pub(crate) mod after_fork;
pub(crate) mod application;
pub(crate) mod import_audit;
pub(crate) mod interpreter;
pub(crate) mod load_error;
pub(crate) mod loaded_state;
mod paste;
pub(crate) mod prefault;
pub(crate) mod staleness;
pub(crate) mod synthetic_request;
pub(crate) mod warm_up;
