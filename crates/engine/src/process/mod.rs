//! The process that Python runs in: its start, forks, signals, environment and exit. This module
//! contains all unsafe code of the engine, behind safe functions.
//!
//! This module is the lowest layer: requests, logs, pools and applications are unknown here.

pub(crate) mod environment;
mod exit;
mod finalisation;
pub(crate) mod fork;
pub(crate) mod forks;
pub(crate) mod gateway_pipe;
mod inherited;
pub(crate) mod local_time;
pub(crate) mod poll;
pub(crate) mod python_api;
pub(crate) mod python_modules;
pub(crate) mod random_state;
pub(crate) mod registrations;
pub(crate) mod shared_memory;
mod signals;
mod sigterm;
pub(crate) mod thread_probe;
pub(crate) mod threads;
pub(crate) mod timers;
pub(crate) mod title;

pub(crate) use crate::process::{
    exit::{
        ExitLimit, FinalisationScope, collect_inherited, end_soon_after_signal, exit, exit_at_once,
        flush_c_streams, mark_c_handlers,
    },
    signals::{SignalMask, unblock_signals},
    sigterm::Sigterm,
    timers::{
        application_timers::ApplicationTimers,
        close_timer::{cancel, has_interrupted, interrupt_after, outlive_gateway, rejoin_gateway},
        exit_deadline::ServingRequest,
        stack_dump::dump_stacks_after,
    },
};
