//! Finds and loads the application, and knows what loading has left in the process.

pub(crate) mod application;
pub(crate) mod import_audit;
pub(crate) mod loaded_state;
pub(crate) mod prefault;
pub(crate) mod random_state;
pub(crate) mod staleness;
pub(crate) mod synthetic_request;
pub(crate) mod warm_up;
