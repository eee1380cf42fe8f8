//! Pools of processes that serve an application: FastCGI pools, and the warm pools behind CGI.
//!
//! `fastcgi_pool` and `warm_pool` start a pool, and `supervisor` runs it. `lone_worker` runs a
//! single worker without a supervisor. `commands` are the administrator's subcommands. No Python
//! runs here, and FastCGI is read only to refuse requests that no worker can serve.

mod address;
mod allowed_addresses;
pub(crate) mod args;
mod code_source;
pub(crate) mod commands;
pub(crate) mod config_problems;
mod config_reader;
mod control_socket;
mod error_log;
mod fastcgi_pool;
mod file_changes;
mod file_creator;
mod handover;
mod http_program;
mod inherited_sockets;
mod listen_error;
mod listeners;
mod log_file;
mod log_options;
mod logs;
mod lone_worker;
pub(crate) mod monitor;
pub(crate) mod monitor_args;
mod notify;
mod process_options;
mod queue_options;
mod refuser;
mod responder;
pub(crate) mod serve;
pub(crate) mod serve_args;
mod service;
mod slow_log;
mod socket_access;
pub(crate) mod stacks_command;
mod startup_warnings;
mod status_options;
mod status_text;
mod supervisor;
mod template;
pub(crate) mod top;
mod unix_listener;
pub(crate) mod warm_pool;
mod worker_count;

pub(crate) use crate::pool::{
    fastcgi_pool::run, handover::report_refusal, listeners::stdin_listens,
    lone_worker::serve_standard_input,
};
