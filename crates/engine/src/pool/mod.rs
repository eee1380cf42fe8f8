//! A pool: its template process, and its workers, which serve FastCGI or warm CGI requests.

pub(crate) mod access_log;
mod deadline_thread;
mod pending_workers;
pub(crate) mod serving;
pub(crate) mod template;
mod template_loop;
mod template_signals;
mod warm;
mod watchdog;
pub(crate) mod worker_limits;
pub(crate) mod worker_status;
