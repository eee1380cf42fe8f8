//! A FastCGI pool: its template process, and its workers.

pub(crate) mod access_log;
pub(crate) mod deadline_thread;
pub(crate) mod pending_workers;
pub(crate) mod serving;
pub(crate) mod template;
pub(crate) mod template_signals;
pub(crate) mod watchdog;
pub(crate) mod worker_limits;
pub(crate) mod worker_status;
