//! The process that serves a request: one that the gateway has started, or one of a warm pool.

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

use crate::system::signals::Bell;

/// A process that serves a request.
pub(crate) enum Subject {
    /// A child of this process. The bell rings when one ends. The kernel kills the child when the
    /// lifeline is closed.
    Child { child: Child, bell: Bell, _lifeline: OwnedFd },
    /// A child of somebody else's, which leads a process group.
    Another { pid: Pid, process: OwnedFd },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As its parent hears it.
    Known(ExitStatus),
    /// Only its parent knows.
    Unknown,
}

impl Subject {
    /// Readable when it may have ended.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        match self {
            Self::Child { bell, .. } => bell.as_fd(),
            Self::Another { process, .. } => process.as_fd(),
        }
    }

    /// May it have ended since the last look?
    pub(super) fn stirred(&self) -> bool {
        match self {
            // The signal comes, too, when a child was stopped or goes on.
            Self::Child { bell, .. } => bell.rang() && self.is_zombie(),
            Self::Another { process, .. } => has_ended(process),
        }
    }

    /// Has the child ended? It is not reaped. If the kernel does not say, it may have.
    fn is_zombie(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.pid().is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }

    /// Does it end within `moment`? Nothing is reaped.
    pub(super) fn ends_within(&self, moment: Duration) -> bool {
        let begun = Instant::now();
        loop {
            let has_ended = match self {
                Self::Child { .. } => self.is_zombie(),
                Self::Another { process, .. } => has_ended(process),
            };
            if has_ended || begun.elapsed() >= moment {
                return has_ended;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Outcome> {
        match self {
            Self::Child { child, .. } => child.try_wait().ok().flatten().map(Outcome::Known),
            Self::Another { process, .. } => has_ended(process).then_some(Outcome::Unknown),
        }
    }

    /// May it live on after the request, for others?
    pub(super) fn may_stay(&self) -> bool {
        matches!(self, Self::Another { .. })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended a moment ago.
        let _ = match self {
            Self::Child { .. } => self.pid().map(|pid| kill_process(pid, signal)),
            Self::Another { pid, process } => {
                signal_process(*pid, process, signal);
                return;
            }
        };
    }

    /// Signals it and what it has started.
    pub(super) fn signal_group(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        match self {
            Self::Child { child, .. } => i32::try_from(child.id()).ok().and_then(Pid::from_raw),
            Self::Another { pid, .. } => Some(*pid),
        }
    }
}

/// Signals the process `pid`, whose end the descriptor `process` shows.
pub(crate) fn signal_process(pid: Pid, process: &OwnedFd, signal: Signal) {
    // Before Linux 5.3 the descriptor is none that a signal could be sent by. A number that belongs
    // to another process by now would have to have been given away since this look.
    if !matches!(pidfd_send_signal(process, signal), Ok(()) | Err(Errno::SRCH))
        && !has_ended(process)
    {
        let _ = kill_process(pid, signal);
    }
}

/// Has the process behind this descriptor ended?
pub(crate) fn has_ended(process: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
}
