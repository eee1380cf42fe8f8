//! Timers of the kernel that end, interrupt or report slow operations.

pub(crate) mod application_timers;
pub(crate) mod close_timer;
pub(crate) mod exit_deadline;
mod kernel_timer;
pub(crate) mod stack_dump;
