//! Black-box tests of the built binary, alone and behind real web servers.
//!
//! `front` starts web servers, `fronts` asks them what visitors ask; applications that misbehave
//! stand in `apps/`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod application_signals;
mod artefacts;
mod attack;
mod call;
mod cgi;
mod check;
mod cli;
mod documents;
mod each_mode;
mod front;
mod fronts;
mod guard;
mod interpreter;
mod limits;
mod matrix;
mod messages;
mod modes;
mod old_kernel;
mod packages;
mod pep3333;
mod place;
mod pool;
mod probe;
mod process_exit;
mod running;
mod stopped;
mod verdict;
mod warm;
mod wsgi;
