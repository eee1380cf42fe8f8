//! Signals as bytes on a pipe that can be polled, and their reasons for log messages.

use std::{
    collections::BTreeSet,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use diagnostics::{
    message::{Code, LogMessage},
    process_exit::signal_name,
};
use nix::{
    libc,
    sys::signal::{SigSet, Signal},
};
use signal_hook::{
    flag,
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};

/// Signals that kill a process by default and have no meaning for wsgate. The first three come from
/// timers, which survive execve(2).
const STRAY: [Signal; 7] = [
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
];

/// A pipe that becomes readable when one of its signals is received.
pub(crate) struct SignalPipe {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// The number of the last signal that is recorded.
    last: Arc<AtomicUsize>,
}

impl SignalPipe {
    /// A pipe for `signals`. Child programs start with the default action of these signals.
    ///
    /// # Errors
    /// If the kernel refuses one of the signals.
    pub(crate) fn of(signals: &[Signal]) -> io::Result<Self> {
        let pipe = Self::recording(signals, &[])?;
        unblock_all()?;
        Ok(pipe)
    }

    /// A pipe for `signals` that records the last of `recorded`. Signals that are blocked stay so.
    ///
    /// # Errors
    /// If the kernel refuses one of the signals.
    pub(crate) fn recording(signals: &[Signal], recorded: &[Signal]) -> io::Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        for &signal in recorded {
            // Recorded before the pipe is readable.
            flag::register_usize(signal as i32, last.clone(), signal as usize)?;
        }
        let (stream, handlers_end) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let numbers = signals.iter().map(|&signal| signal as i32);
        let delivery = SignalDelivery::with_pipe(stream, handlers_end, SignalOnly, numbers)?;
        // A signal received before the pipe existed has written nothing to it.
        if let Some(early) = i32::try_from(last.load(Ordering::Relaxed)).ok().filter(|&it| it != 0)
        {
            signal_hook::low_level::raise(early)?;
        }
        Ok(Self { delivery, last })
    }

    /// A pipe for all signals that may ask a request to stop. A gateway killed by such a signal
    /// would send no response.
    ///
    /// # Errors
    /// If the kernel refuses one of the signals.
    pub(crate) fn of_request_stop() -> io::Result<Self> {
        let sent = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let pipe = Self::recording(
            &[&sent[..], &[Signal::SIGUSR1, Signal::SIGUSR2], &STRAY].concat(),
            &sent[..3],
        )?;
        unblock_all()?;
        Ok(pipe)
    }

    /// Was one of the signals received since the last call?
    pub(crate) fn received(&self) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut self.delivery.get_read(), &mut bytes), Ok(1..))
    }

    /// The last of the recorded signals.
    pub(crate) fn last(&self) -> Option<Signal> {
        signal_of(self.last.load(Ordering::Relaxed))
    }

    /// The last of the recorded signals, which is forgotten.
    pub(crate) fn take_last(&self) -> Option<Signal> {
        signal_of(self.last.swap(0, Ordering::Relaxed))
    }
}

fn signal_of(number: usize) -> Option<Signal> {
    i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok())
}

impl AsFd for SignalPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Unblocks all signals. A web server may block signals for its threads, and programs inherit that;
/// the application has no blocked signals in any mode, since forked processes unblock all, too.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn unblock_all() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// Blocks all signals: they wait for the next program of this process.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn block_all() -> io::Result<()> {
    Ok(SigSet::all().thread_block()?)
}

/// Makes a write above the limit of file sizes (`RLIMIT_FSIZE`) fail with `EFBIG`, instead of
/// killing this process by SIGXFSZ. Python does the same.
pub(crate) fn survive_file_size_limit() {
    // A handler is set, because child programs would inherit an ignored signal. No kernel refuses
    // this handler.
    let _ = flag::register(Signal::SIGXFSZ as i32, Arc::new(AtomicBool::new(false)));
}

/// Handles the signals that have no meaning for a supervisor, so that no such signal kills a pool.
pub(crate) struct StraySignals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    logged: BTreeSet<i32>,
}

impl StraySignals {
    /// Installs handlers for the signals.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn take() -> io::Result<Self> {
        let (stream, handlers_end) = UnixStream::pair()?;
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let numbers = STRAY.iter().map(|&signal| signal as i32).chain(real_time);
        let delivery = SignalDelivery::with_pipe(stream, handlers_end, SignalOnly, numbers)?;
        Ok(Self { delivery, logged: BTreeSet::new() })
    }

    /// The log messages about the signals that were received, one for each signal.
    pub(crate) fn messages(&mut self) -> Vec<LogMessage> {
        let received = self.delivery.pending().filter(|&signal| self.logged.insert(signal));
        received.map(stray).collect()
    }
}

impl AsFd for StraySignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

fn stray(signal: i32) -> LogMessage {
    let sentence = format!("the supervisor has received {} and goes on", signal_name(signal));
    LogMessage::new(Code::StraySignal, sentence).hint(if signal == Signal::SIGXCPU as i32 {
        "the limit of processor time is reached (`RLIMIT_CPU`, `ulimit -t`); at the hard limit the \
         kernel kills the supervisor: raise the limit of the service"
    } else {
        "this signal means nothing to a pool; see docs/operate.md for those that do"
    })
}

/// The most likely reason why this signal killed a process, if the signal indicates a reason.
pub(crate) fn cause(signal: i32) -> Option<&'static str> {
    Some(match Signal::try_from(signal).ok()? {
        Signal::SIGXCPU => {
            "the limit of processor time was reached (`RLIMIT_CPU`, `ulimit -t`, Apache's \
             RLimitCPU)"
        }
        Signal::SIGXFSZ => "the limit of file sizes was reached (`RLIMIT_FSIZE`, `ulimit -f`)",
        Signal::SIGALRM | Signal::SIGVTALRM | Signal::SIGPROF => {
            "a timer of the application expired (`signal.alarm`, `signal.setitimer`), and the \
             application has no handler for its signal"
        }
        Signal::SIGKILL => {
            "the system may have run out of memory, or a limit was reached (memory, processor \
             time): look at the log of the system"
        }
        _ => return None,
    })
}
