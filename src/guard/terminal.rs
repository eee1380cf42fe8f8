//! The terminal of a person who calls an application: `breakpoint()` and `input()` read from it.
//!
//! Python runs in a process group of its own, in the background: Ctrl-C reaches the gateway. The
//! kernel stops a background process that reads from the terminal (SIGTTIN) or sets its modes
//! (SIGTTOU). The gateway then makes Python's group the foreground group, as a shell does for `fg`.

use std::{
    io::{self, IsTerminal as _},
    process::Command,
};

use nix::sys::signal::{SigSet, Signal as BlockedSignal};
use rustix::{
    process::{Pid, Signal, getpgrp, getpid, kill_process},
    stdio::stdin,
    termios::{tcgetpgrp, tcsetpgrp},
};

use crate::guard::ServingProcess;

/// The terminal on standard input and standard error.
pub(super) struct Terminal {
    /// Python's process group has the foreground.
    is_lent: bool,
}

impl Terminal {
    /// The terminal of this process, if this process is in the foreground.
    pub(super) fn of_this_process() -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        let is_foreground = is_terminal && tcgetpgrp(stdin()) == Ok(getpgrp());
        is_foreground.then_some(Self { is_lent: false })
    }

    /// Lets the process of `command` inherit the terminal.
    pub(super) fn inherit(command: &mut Command) {
        command.stdin(std::process::Stdio::inherit());
    }

    /// Continues `process` if the kernel has stopped it: in the foreground, if it needs the
    /// terminal. Returns whether it does.
    pub(super) fn attend(&mut self, process: &ServingProcess) -> bool {
        let Some((signal, group)) = process.stopped_by() else { return false };
        if signal == Signal::TSTP {
            // Ctrl-Z: the shell waits for this process, and continues it with `fg`.
            self.take_back();
            let _ = kill_process(getpid(), Signal::STOP);
        } else if signal != Signal::TTIN && signal != Signal::TTOU {
            return false;
        }
        self.is_lent = set_foreground(group);
        process.signal_group(Signal::CONT);
        true
    }

    fn take_back(&mut self) {
        if std::mem::take(&mut self.is_lent) {
            set_foreground(getpgrp());
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Makes `group` the foreground group of the terminal.
fn set_foreground(group: Pid) -> bool {
    // The kernel would stop a background process that does this.
    let mut blocked = SigSet::empty();
    blocked.add(BlockedSignal::SIGTTOU);
    let was_blocked =
        SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(BlockedSignal::SIGTTOU));
    let _ = blocked.thread_block();
    let is_set = tcsetpgrp(stdin(), group).is_ok();
    if !was_blocked {
        let _ = blocked.thread_unblock();
    }
    is_set
}
