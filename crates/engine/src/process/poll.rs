//! Checks of one descriptor with poll(2).

use std::{os::fd::AsFd, time::Duration};

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
fn has_event(descriptor: impl AsFd, wanted: PollFlags) -> bool {
    events_now(descriptor, wanted).is_ok_and(|events| !events.is_empty())
}

/// Has the other end of `descriptor` been closed, or has `descriptor` an error?
pub(crate) fn has_hung_up(descriptor: impl AsFd) -> bool {
    has_event(descriptor, PollFlags::empty())
}

/// As [`has_hung_up`], but waits up to `timeout` for that, or until a signal arrives.
pub(crate) fn hangs_up_within(descriptor: impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).ok();
    let mut watched = [PollFd::new(&descriptor, PollFlags::empty())];
    matches!(poll(&mut watched, timeout.as_ref()), Ok(1..))
}

/// Can `descriptor` be read without waiting, or has it reached its end?
pub(crate) fn is_readable(descriptor: impl AsFd) -> bool {
    has_event(descriptor, PollFlags::IN)
}
