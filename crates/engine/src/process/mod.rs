//! The process that Python runs in: how it ends, and how it is asked to.
//!
//! Knows nothing of requests, pools and applications.

pub(crate) mod environment;
mod exit;
mod finalisation;
pub(crate) mod fork;
pub(crate) mod forks;
pub(crate) mod gateway_pipe;
mod inherited;
pub(crate) mod interpreter;
mod signals;
mod sigterm;
pub(crate) mod threads;
pub(crate) mod timers;

pub(crate) use crate::process::{
    exit::{Limit, Ownership, end_soon_after_signal, exit, flush_c_streams, mark_c_handlers},
    inherited::Inherited,
    signals::{Mask, unblock_signals},
    sigterm::Sigterm,
    timers::{
        application_timers::Timers,
        close_timer::{cancel, has_interrupted, interrupt_after, outlive, rejoin},
        exit_deadline::Serving,
        stack_dump::tell_after,
    },
};
