//! wsgate: runs Python WSGI applications behind CGI, and one request from the shell.

#![forbid(unsafe_code)]

mod call;
mod cgi;
mod check;
mod cli;
mod config;
mod exit;
mod guard;
mod init;
mod pool;
mod python;
mod request;
mod system;

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    crate::system::signals::survive_file_size_limit();
    crate::cli::run().into()
}
