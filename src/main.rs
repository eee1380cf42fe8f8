//! wsgate: runs Python WSGI applications behind CGI, and one request from the shell.

#![forbid(unsafe_code)]

mod account;
mod call;
mod cgi;
mod check;
mod cli;
mod effects;
mod elf;
mod engine;
mod exit;
mod guard;
mod hosts;
mod not_started;
mod options;
mod pool;
mod python;
mod request;
mod runtime_directory;
mod script_line;
mod settings;
mod signals;
mod start;
mod trusted_path;
mod users;

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    signals::survive_file_size_limit();
    cli::run().into()
}
