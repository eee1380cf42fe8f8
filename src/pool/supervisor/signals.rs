//! Signals that the supervisor handles.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use nix::sys::signal::Signal;

use crate::{
    pool::supervisor::{action::Action, lifecycle::Event},
    system::signals::{SignalPipe, StraySignals, unblock_all},
};

/// Handlers of the supervisor's signals.
pub(super) struct Signals {
    child: SignalPipe,
    stop: SignalPipe,
    reload: SignalPipe,
    upgrade: SignalPipe,
    reopen_logs: SignalPipe,
    stray: StraySignals,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(super) fn install() -> io::Result<Self> {
        let pipe = |signals: &[Signal]| SignalPipe::recording(signals, &[]);
        let signals = Self {
            child: pipe(&[Signal::SIGCHLD])?,
            stop: pipe(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT])?,
            reload: pipe(&[Signal::SIGHUP])?,
            // As in php-fpm, which executes its program again, too.
            upgrade: pipe(&[Signal::SIGUSR2])?,
            reopen_logs: pipe(&[Signal::SIGUSR1])?,
            stray: StraySignals::take()?,
        };
        // Signals that were received during an upgrade are handled now.
        unblock_all()?;
        Ok(signals)
    }

    /// Reactions to the signals that have arrived, except for a request to reopen the logs.
    pub(super) fn poll(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        // Exits of children are noticed by polling the templates.
        self.child.received();
        if self.stop.received() {
            actions.push(Action::Raise(Event::Signal));
        }
        if self.reload.received() {
            actions.push(Action::Raise(Event::Reload));
        }
        if self.upgrade.received() {
            actions.push(Action::Upgrade);
        }
        actions.extend(self.stray.messages().into_iter().map(Action::Log));
        actions
    }

    /// Was a request to reopen the logs received?
    pub(super) fn wants_reopened_logs(&self) -> bool {
        self.reopen_logs.received()
    }

    /// File descriptors that are readable after a signal.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let bells = [&self.child, &self.stop, &self.reload, &self.upgrade, &self.reopen_logs];
        bells.into_iter().map(|bell| bell.as_fd()).chain([self.stray.as_fd()])
    }
}
