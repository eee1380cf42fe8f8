//! The process that Python runs in: how it ends, and how it is asked to.
//!
//! Knows nothing of requests, pools and applications.

mod closing;
mod deadline;
mod exit;
mod finalisation;
mod inherited;
mod signals;
mod sigterm;
mod slow;
mod timers;

pub(crate) use closing::{cancel, has_interrupted, interrupt_after, outlive, rejoin};
pub(crate) use deadline::Serving;
pub(crate) use exit::{
    Limit, Ownership, end_soon_after_signal, exit, flush_c_streams, mark_c_handlers,
};
pub(crate) use inherited::Inherited;
pub(crate) use signals::{Mask, unblock_signals};
pub(crate) use sigterm::Sigterm;
pub(crate) use slow::tell_after;
pub(crate) use timers::Timers;
