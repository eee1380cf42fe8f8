//! The process that serves a request: a child of the gateway, or a worker of a warm pool.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_send_signal,
        waitid,
    },
};

use crate::system::signals::SignalPipe;

/// A process that serves a request.
pub(crate) enum ServingProcess {
    /// A child of this process; `child_signal` receives SIGCHLD. The kernel kills the child when
    /// the gateway pipe is closed.
    Child { child: Child, child_signal: SignalPipe, _gateway_pipe: OwnedFd },
    /// A worker of a warm pool, which leads a process group.
    PoolWorker { pid: Pid, process: OwnedFd },
}

/// How a process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessExit {
    /// The exit status, known to the parent of the process.
    Known(ExitStatus),
    /// The status is unknown: only the parent gets it, and the parent is another process.
    Unknown,
}

impl ServingProcess {
    /// The file descriptor that is readable when the process may have exited.
    pub(super) fn exit_event(&self) -> BorrowedFd<'_> {
        match self {
            Self::Child { child_signal, .. } => child_signal.as_fd(),
            Self::PoolWorker { process, .. } => process.as_fd(),
        }
    }

    /// May the process have exited since the last call?
    pub(super) fn may_have_exited(&self) -> bool {
        match self {
            // SIGCHLD is also sent when a child was stopped or continues.
            Self::Child { child_signal, .. } => child_signal.received() && self.is_zombie(),
            Self::PoolWorker { process, .. } => has_exited(process),
        }
    }

    /// Has the child exited, without being reaped? If the kernel does not say, it may have.
    fn is_zombie(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.pid().is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }

    /// The signal that has stopped the child since the last call, and its process group.
    pub(super) fn stopped_by(&self) -> Option<(Signal, Pid)> {
        let pid = self.pid()?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::Pid(pid), options).ok()??;
        Some((Signal::from_named_raw(status.stopping_signal()?)?, pid))
    }

    /// Does the process exit within `timeout`? It is not reaped.
    pub(super) fn exits_within(&self, timeout: Duration) -> bool {
        let started = Instant::now();
        loop {
            let exited = match self {
                Self::Child { .. } => self.is_zombie(),
                Self::PoolWorker { process, .. } => has_exited(process),
            };
            if exited || started.elapsed() >= timeout {
                return exited;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How the process exited, if it has.
    pub(super) fn exit(&mut self) -> Option<ProcessExit> {
        match self {
            Self::Child { child, .. } => child.try_wait().ok().flatten().map(ProcessExit::Known),
            Self::PoolWorker { process, .. } => has_exited(process).then_some(ProcessExit::Unknown),
        }
    }

    /// Is the process a worker of a pool, which may serve other requests later?
    pub(super) fn is_pool_worker(&self) -> bool {
        matches!(self, Self::PoolWorker { .. })
    }

    /// Sends `signal` to the process.
    pub(super) fn signal(&self, signal: Signal) {
        // The process may have exited a moment ago.
        let _ = match self {
            Self::Child { .. } => self.pid().map(|pid| kill_process(pid, signal)),
            Self::PoolWorker { pid, process } => {
                signal_process(*pid, process, signal);
                return;
            }
        };
    }

    /// Sends `signal` to the process and its descendants.
    pub(super) fn signal_group(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Child { child, .. } => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
            Self::PoolWorker { pid, .. } => Some(*pid),
        }
    }
}

/// Sends `signal` to the process `pid`, of which `process` is the pidfd.
pub(crate) fn signal_process(pid: Pid, process: &OwnedFd, signal: Signal) {
    // Before Linux 5.3 a template sends a pipe that is closed at the exit of the worker, not a
    // pidfd. A signal by number could reach another process only if the kernel reused the number
    // since the check.
    if !matches!(pidfd_send_signal(process, signal), Ok(()) | Err(Errno::SRCH))
        && !has_exited(process)
    {
        let _ = kill_process(pid, signal);
    }
}

/// Has the process of this pidfd exited?
fn has_exited(process: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}
