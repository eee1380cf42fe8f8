//! Signals, as bytes that can be waited for.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nix::sys::signal::{SigSet, Signal};
use signal_hook::{flag, low_level::pipe};

/// Rings when one of its signals comes.
pub(crate) struct Bell {
    stream: UnixStream,
    /// The number of the last one, if that is noted.
    last: Arc<AtomicUsize>,
}

impl Bell {
    /// A bell for `signals`. Programs that are started get these as usual.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(crate) fn on(signals: &[Signal]) -> io::Result<Self> {
        Self::noting(signals, &[])
    }

    /// A bell for `signals` that knows which of `noted` has come last.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(crate) fn noting(signals: &[Signal], noted: &[Signal]) -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        for &signal in noted {
            // Before the bell can ring.
            flag::register_usize(signal as i32, last.clone(), signal as usize)?;
        }
        let (stream, handlers_end) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        for &signal in signals {
            pipe::register(signal as i32, handlers_end.try_clone()?)?;
        }
        // A web server may have blocked signals for threads of its own, and programs inherit that. The
        // application has none blocked in any mode: forked processes let all through, too.
        SigSet::all().thread_unblock()?;
        Ok(Self { stream, last })
    }

    /// Has one of the signals come since the last look?
    pub(crate) fn rang(&self) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut &self.stream, &mut bytes), Ok(1..))
    }

    /// The last of the signals that are noted.
    pub(crate) fn last(&self) -> Option<Signal> {
        i32::try_from(self.last.load(Ordering::Relaxed)).ok().and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
