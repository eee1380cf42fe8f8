//! Black-box tests of the built binary, alone and behind real web servers.
//!
//! `support` is the harness; each other room is named after what its tests prove. `apps/` holds
//! applications that misbehave.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod application_signals;
mod attack;
mod call;
mod cgi;
mod check;
mod cli;
mod documents;
mod each_mode;
mod guard;
mod interpreter;
mod limits;
mod matrix;
mod messages;
mod migration_pages;
mod modes;
mod monitor;
mod old_kernel;
mod packages;
mod pep3333;
mod pool;
mod process_exit;
mod serve;
mod shared_host;
mod source_tree;
mod stopped;
mod support;
mod warm;
mod web_servers;
mod wsgi;
