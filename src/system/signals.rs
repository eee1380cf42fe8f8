//! Signals: as bytes that can be waited for, as numbers that mean nothing, and in words.

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

use diagnostics::message::{Code, LogMessage};
use nix::{
    libc,
    sys::signal::{SigSet, Signal},
};
use signal_hook::{
    flag,
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};

/// Signals that would end a process and that nobody sends to wsgate for a purpose. The first three
/// come from timers, which a program keeps that another becomes (execve(2)).
const STRAY: [Signal; 7] = [
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
];

/// Rings when one of its signals comes.
pub(crate) struct Bell {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
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
        let numbers = signals.iter().map(|&signal| signal as i32);
        let delivery = SignalDelivery::with_pipe(stream, handlers_end, SignalOnly, numbers)?;
        // A web server may have blocked signals for threads of its own, and programs inherit that.
        // The application has none blocked in any mode: forked processes let all through, too.
        SigSet::all().thread_unblock()?;
        Ok(Self { delivery, last })
    }

    /// A bell for all signals by which somebody may want a request to end. A gateway that one of
    /// them killed would leave the client without a response.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(crate) fn on_end_of_request() -> io::Result<Self> {
        let sent = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        Self::noting(&[&sent[..], &[Signal::SIGUSR1, Signal::SIGUSR2], &STRAY].concat(), &sent[..3])
    }

    /// Has one of the signals come since the last look?
    pub(crate) fn rang(&self) -> bool {
        let mut bytes = [0; 64];
        matches!(io::Read::read(&mut self.delivery.get_read(), &mut bytes), Ok(1..))
    }

    /// The last of the signals that are noted.
    pub(crate) fn last(&self) -> Option<Signal> {
        i32::try_from(self.last.load(Ordering::Relaxed))
            .ok()
            .and_then(|number| Signal::try_from(number).ok())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Lets writes to files fail (`EFBIG`) that are larger than the limit (`RLIMIT_FSIZE`), instead of
/// ending this process by SIGXFSZ. Python does the same for itself.
pub(crate) fn survive_file_size_limit() {
    // Not ignored: programs that are started would inherit that. No kernel refuses this signal.
    let _ = flag::register(Signal::SIGXFSZ as i32, Arc::new(AtomicBool::new(false)));
}

/// Takes signals that mean nothing to a supervisor, so that none of them ends a pool.
pub(crate) struct StraySignals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    told: BTreeSet<i32>,
}

impl StraySignals {
    /// Takes them from now on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn take() -> io::Result<Self> {
        let (stream, handlers_end) = UnixStream::pair()?;
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let numbers = STRAY.iter().map(|&signal| signal as i32).chain(real_time);
        let delivery = SignalDelivery::with_pipe(stream, handlers_end, SignalOnly, numbers)?;
        Ok(Self { delivery, told: BTreeSet::new() })
    }

    /// What is to be logged of those that have come: each once.
    pub(crate) fn entries(&mut self) -> Vec<LogMessage> {
        let came = self.delivery.pending().filter(|&signal| self.told.insert(signal));
        came.map(stray).collect()
    }
}

impl AsFd for StraySignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

fn stray(signal: i32) -> LogMessage {
    let sentence = format!("the supervisor has received {} and goes on", name(signal));
    LogMessage::warning(Code::StraySignal, sentence).hint(if signal == Signal::SIGXCPU as i32 {
        "its limit of processor time is reached (`RLIMIT_CPU`, `ulimit -t`); at the hard limit the \
         kernel kills it: raise the limit for the service"
    } else {
        "this signal means nothing to a pool; see docs/operate.md for those that do"
    })
}

/// The name of a signal.
pub(crate) fn name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal)
        .map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// What has most likely ended a process by this signal, if the signal says so.
pub(crate) fn cause(signal: i32) -> Option<&'static str> {
    Some(match Signal::try_from(signal).ok()? {
        Signal::SIGXCPU => {
            "the limit of processor time was reached (`RLIMIT_CPU`, `ulimit -t`, Apache's \
             RLimitCPU)"
        }
        Signal::SIGXFSZ => "the limit of file sizes was reached (`RLIMIT_FSIZE`, `ulimit -f`)",
        Signal::SIGALRM | Signal::SIGVTALRM | Signal::SIGPROF => {
            "a timer of the application has ended (`signal.alarm`, `signal.setitimer`), and it has \
             no handler for that"
        }
        Signal::SIGKILL => {
            "the system may have run out of memory, or a limit was reached (memory, processor \
             time): look at its log"
        }
        _ => return None,
    })
}
