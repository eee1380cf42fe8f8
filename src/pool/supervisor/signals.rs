//! Signals that the supervisor handles.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use nix::sys::signal::Signal;

use crate::{
    pool::supervisor::{action::Action, lifecycle::Event},
    system::signals::{SignalPipe, StraySignals},
};

/// Handlers of the supervisor's signals.
pub(super) struct Signals {
    child: SignalPipe,
    stop: SignalPipe,
    reload: SignalPipe,
    reopen_logs: SignalPipe,
    stray: StraySignals,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If the kernel refuses one of them.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            child: SignalPipe::of(&[Signal::SIGCHLD])?,
            stop: SignalPipe::of(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT])?,
            // SIGUSR2 is php-fpm's signal for a reload.
            reload: SignalPipe::of(&[Signal::SIGHUP, Signal::SIGUSR2])?,
            reopen_logs: SignalPipe::of(&[Signal::SIGUSR1])?,
            stray: StraySignals::take()?,
        })
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
        actions.extend(self.stray.messages().into_iter().map(Action::Log));
        actions
    }

    /// Was a request to reopen the logs received?
    pub(super) fn wants_reopened_logs(&self) -> bool {
        self.reopen_logs.received()
    }

    /// File descriptors that are readable after a signal.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let bells = [&self.child, &self.stop, &self.reload, &self.reopen_logs];
        bells.into_iter().map(|bell| bell.as_fd()).chain([self.stray.as_fd()])
    }
}
