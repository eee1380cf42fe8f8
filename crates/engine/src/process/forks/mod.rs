//! Descriptors and signal handlers of the engine, and how a fork by the application affects them.
//!
//! A process that the application forks belongs to the application. The engine registers each
//! descriptor and signal handler at its creation. In the child, `children` closes or restores all
//! of them before any code of the application runs.

mod child_flag;
mod children;
mod descriptors;
mod handlers;
mod numbers;
mod stack_requests;
mod standard;

pub(crate) use crate::process::forks::{
    child_flag::{is_child, refuse_child},
    children::{our_fork, watch},
    descriptors::{
        Descriptor, Inventory, has_lost, mark_descriptors_lost, pair, read_at,
        take_unreported_loss, without_forks,
    },
    handlers::{
        call_when_woken, forget_signals, handle, has_come, install_action, repeat_signals,
        report_crashes, report_stacks, stop_waking, wake, wake_again,
    },
    stack_requests::{answer_stack_requests, name_serving_thread},
    standard::{log, log_number, redirect_log, save_log, save_standard, write_to_log},
};
