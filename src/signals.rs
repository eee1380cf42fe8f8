//! Signals, as bytes that can be waited for.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    os::unix::net::UnixStream,
};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    low_level::pipe,
};

/// Those that the guard waits for.
pub(super) struct Signals {
    child: UnixStream,
    end: UnixStream,
}

impl Signals {
    /// Asks the kernel for them. Programs that are started get them as usual.
    pub(super) fn register() -> io::Result<Self> {
        let (child, childs_end) = UnixStream::pair()?;
        let (end, ends_end) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        end.set_nonblocking(true)?;
        pipe::register(SIGCHLD, childs_end)?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, ends_end.try_clone()?)?;
        }
        // A web server may have blocked them for threads of its own, and programs inherit that.
        SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).thread_unblock()?;
        Ok(Self { child, end })
    }

    /// Has a child ended since the last look?
    pub(super) fn child_changed(&self) -> bool {
        Self::drain(&self.child)
    }

    /// Was this process told to end since the last look?
    pub(super) fn ended(&self) -> bool {
        Self::drain(&self.end)
    }

    /// Readable when a child has ended.
    pub(super) fn child(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Readable when this process was told to end.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn drain(stream: &UnixStream) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut &*stream, &mut bytes), Ok(1..))
    }
}
