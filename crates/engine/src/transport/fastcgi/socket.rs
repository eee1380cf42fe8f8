//! Waiting for a socket and sending a few bytes on it.

use std::{io, os::fd::AsFd as _, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendFlags, send},
};
use wire::running_clock;

use crate::{process::forks::Descriptor, wsgi::Interruptible};

/// Waits for one of `events` on a socket, and returns the events that occurred. The wait ends after
/// `limit`, and at the deadline of `request`.
///
/// # Errors
/// `TimedOut` at the limit or the deadline, `Interrupted` if a signal came first.
pub(super) fn wait_for_socket(
    socket: &Descriptor,
    events: PollFlags,
    request: Option<&Interruptible>,
    limit: Option<Duration>,
) -> io::Result<PollFlags> {
    let deadline = limit.map(|limit| running_clock::instant() + limit);
    let left = || {
        let left = deadline.map(|it| it.saturating_duration_since(running_clock::instant()));
        left.into_iter().chain(request.and_then(Interruptible::client_wait_limit)).min()
    };
    let mut watched = [PollFd::from_borrowed_fd(socket.as_fd(), events)];
    let mut timeout = left();
    loop {
        let ready = running_clock::wait(timeout, |timeout| {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            poll(&mut watched, timeout.as_ref())
        })?;
        if ready > 0 {
            return Ok(watched[0].revents());
        }
        timeout = left();
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Sends a few bytes without waiting.
///
/// # Errors
/// `WouldBlock` if the bytes do not fit: a peer that does not read loses the connection instead of
/// delaying this process.
pub(super) fn send_at_once(socket: &Descriptor, bytes: &[u8]) -> io::Result<()> {
    let sent = send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
}
