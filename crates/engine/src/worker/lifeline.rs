//! Ends this process when the gateway that guards its request has gone: it is no child of that one, so the kernel's signal for
//! children cannot tell it.

use std::os::fd::AsRawFd as _;

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, getpid, kill_process},
};

use crate::forks::Descriptor;

/// Has the kernel kill this process when the other end of `pipe` is closed, to which nothing is ever written.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn hold_to(pipe: &Descriptor) -> std::io::Result<()> {
    let number = pipe.as_raw_fd();
    let asks = [
        (libc::F_SETOWN, getpid().as_raw_nonzero().get()),
        // Not SIGIO, which an application could catch.
        (F_SETSIG, Signal::KILL.as_raw()),
        (libc::F_SETFL, libc::O_ASYNC),
    ];
    for (command, argument) in asks {
        // SAFETY: each of these takes a number and touches no memory; the descriptor is open.
        if unsafe { libc::fcntl(number, command, argument) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    // It may have gone before the kernel was asked.
    let mut watched = [PollFd::new(pipe, PollFlags::empty())];
    if !matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0)) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
    Ok(())
}

/// Undoes [`hold_to`].
pub(super) fn let_go(pipe: &Descriptor) {
    // SAFETY: the call takes numbers and touches no memory; the descriptor is open. It was given what is taken from it here, so it
    // cannot be refused.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, 0) };
}

/// fcntl(2): which signal `O_ASYNC` sends. The number is the same on all architectures of Linux.
const F_SETSIG: libc::c_int = 10;
