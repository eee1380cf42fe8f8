//! Descriptors and signal handlers of the engine's own, and what a fork by the application makes of
//! them.
//!
//! A process that the application forks is the application's. The engine registers each of its
//! descriptors and signal handlers when it makes them. Before the first line of the application's
//! code runs in the child, one place empties the registers.

pub(crate) mod children;
pub(crate) mod descriptors;
pub(crate) mod handlers;

pub(crate) use crate::process::forks::{
    children::{end_if_child, is_child, our_fork, refuse_child, watch},
    descriptors::{
        Descriptor, Inventory, has_lost, is_untold, keep_log, keep_standard, lead_log, log,
        log_number, mark_lost, pair, without_forks, write_to_log,
    },
    handlers::{
        block_all, call_when_woken, forget_signals, handle, install_action, repeat_signals,
        report_crashes, report_stacks, set_mask, stop_waking, wake, wake_again,
    },
};
