//! Which interpreter and which engine run the application, and how they are started.

pub(crate) mod elf;
pub(crate) mod engine;
pub(crate) mod interpreter;
pub(crate) mod start;
pub(crate) mod start_error;
