//! What comes of bytes on a connection: literal ones, cut ones, random ones and hostile ones.
//!
//! `drive` feeds a connection and writes down what it says; `model` says what it should. Tests are
//! named after the rows of the project's table of requirements where they prove one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bytes;
mod drive;
mod hostile;
mod life;
mod limits;
mod management;
mod model;
mod requests;
mod roles;
mod splits;
mod targets;
mod trips;
