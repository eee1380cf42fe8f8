//! Descriptors and signal handlers of the engine, and what a fork by the application does to them.
//!
//! A process that the application forks belongs to the application. The engine registers each
//! descriptor and signal handler when it makes one. Before the first line of the application's code
//! runs in the child, `children` closes and restores all of them.

mod child_flag;
mod children;
mod descriptors;
mod handlers;
mod numbers;
mod standard;

pub(crate) use crate::process::forks::{
    child_flag::{is_child, refuse_child},
    children::{our_fork, watch},
    descriptors::{
        Descriptor, Inventory, has_lost, mark_descriptors_lost, pair, read_at,
        take_unreported_loss, without_forks,
    },
    handlers::{
        call_when_woken, forget_signals, handle, install_action, repeat_signals, report_crashes,
        report_stacks, stop_waking, wake, wake_again,
    },
    standard::{log, log_number, redirect_log, save_log, save_standard, write_to_log},
};
