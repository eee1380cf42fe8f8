//! The interpreter and the engine that run an application.

pub(crate) mod elf;
pub(crate) mod engine;
mod glibc;
pub(crate) mod identify;
pub(crate) mod interpreter;
