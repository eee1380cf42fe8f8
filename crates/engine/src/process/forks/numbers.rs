//! Numbers of descriptors: copies, and the standard numbers 0 to 2, which the application may
//! close.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, Ordering},
};

use crate::process::forks::child_flag::is_child;

/// Copies of the descriptors 0 to 2, in case the application closes them; -1 for no copy.
pub(super) static STANDARD_COPIES: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];

/// Moves `descriptor` to a number above 2, and restores the standard descriptor that the
/// application has closed. Otherwise printed text would go to the engine's descriptor.
pub(super) fn move_above(descriptor: OwnedFd) -> OwnedFd {
    let number = descriptor.as_raw_fd();
    if number > 2 || is_child() {
        return descriptor;
    }
    match duplicate(number) {
        Ok(moved) => {
            if !restore(number) {
                // No other file may get the number.
                let nothing = rustix::fs::open(
                    c"/dev/null",
                    rustix::fs::OFlags::RDWR,
                    rustix::fs::Mode::empty(),
                );
                // SAFETY: `descriptor` owns `number`, and its file has another number by now.
                nothing.iter().for_each(|nothing| unsafe {
                    libc::dup2(nothing.as_raw_fd(), number);
                });
            }
            // The application may have closed the other two as well.
            for other in (0..3).filter(|&other| other != number && is_closed(other)) {
                restore(other);
            }
            // The number no longer belongs to the engine.
            std::mem::forget(descriptor);
            moved
        }
        Err(_) => descriptor,
    }
}

fn is_closed(number: RawFd) -> bool {
    // SAFETY: the kernel refuses a number that is not open.
    unsafe { libc::fcntl(number, libc::F_GETFD) == -1 }
}

/// Restores a standard descriptor from its copy.
fn restore(number: RawFd) -> bool {
    let copy = usize::try_from(number).ok().and_then(|number| STANDARD_COPIES.get(number));
    let copy = copy.map_or(-1, |copy| copy.load(Ordering::Relaxed));
    // SAFETY: no value owns a standard descriptor; the kernel refuses a closed copy.
    copy >= 0 && unsafe { libc::dup2(copy, number) } == number
}

/// Duplicates descriptor `number` to a number above 2. Programs that are started do not inherit the
/// copy.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    duplicate_beyond(number, 3)
}

pub(super) fn duplicate_beyond(number: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the kernel refuses a number that is not open; the result has no other owner.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(OwnedFd::from_raw_fd(copy)),
        }
    }
}
