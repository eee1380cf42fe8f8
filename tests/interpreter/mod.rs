//! Which interpreter runs an application, how it is set up, and how it is left.

mod caching;
mod choosing;
mod forms;
mod leaving;
mod own_venv;

pub(crate) use crate::interpreter::choosing::make_venv;
