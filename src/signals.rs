//! Signals, as bytes that can be waited for.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::low_level::pipe;

/// Rings when one of its signals comes.
pub(crate) struct Bell {
    stream: UnixStream,
}

impl Bell {
    /// A bell for `signals`. Programs that are started get these as usual.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(crate) fn on(signals: &[Signal]) -> io::Result<Self> {
        let (stream, handlers_end) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        for &signal in signals {
            pipe::register(signal as i32, handlers_end.try_clone()?)?;
        }
        // A web server may have blocked signals for threads of its own, and programs inherit that. The
        // application has none blocked in any mode: forked processes let all through, too.
        SigSet::all().thread_unblock()?;
        Ok(Self { stream })
    }

    /// Has one of the signals come since the last look?
    pub(crate) fn rang(&self) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut &self.stream, &mut bytes), Ok(1..))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
