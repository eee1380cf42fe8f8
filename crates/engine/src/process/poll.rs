//! Checks with poll(2) that do not wait.

use std::os::fd::AsFd;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The events of `wanted` that `descriptor` has now, besides the errors and hang-ups that poll(2)
/// always reports.
///
/// # Errors
/// If a signal interrupts the call, or memory is short.
pub(crate) fn events_now(descriptor: impl AsFd, wanted: PollFlags) -> Result<PollFlags, Errno> {
    let mut watched = [PollFd::new(&descriptor, wanted)];
    poll(&mut watched, Some(&AT_ONCE))?;
    Ok(watched[0].revents())
}

/// Does `descriptor` have an event of `wanted`, an error or a hang-up now?
pub(crate) fn has_event(descriptor: impl AsFd, wanted: PollFlags) -> bool {
    events_now(descriptor, wanted).is_ok_and(|events| !events.is_empty())
}

/// Can `descriptor` be read without waiting, or has it reached its end?
pub(crate) fn is_readable(descriptor: impl AsFd) -> bool {
    has_event(descriptor, PollFlags::IN)
}
