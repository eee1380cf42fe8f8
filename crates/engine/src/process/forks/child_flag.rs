//! Records whether this process is a child that the application has forked.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// This process is a child that the application has forked, or a descendant of such a child.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Marks this process as such a child. Async-signal-safe.
pub(super) fn set() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// Is this process a child that the application has forked?
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// Refuses an operation that only the parent may perform.
///
/// # Errors
/// `BrokenPipe` in a child that the application has forked.
pub(crate) fn refuse_child() -> io::Result<()> {
    if is_child() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}
