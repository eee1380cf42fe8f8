//! A template process, as its supervisor sees it.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, ExitStatus},
    time::Instant,
};

use rustix::{
    net::{RecvFlags, SendFlags, recv, send},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid},
};
use wire::{
    launch::{Preload, Service, Work},
    report::{MAX_REPORT_BYTES, Report},
    template::{TemplateCommand, TemplateEvent},
};

use crate::{config::settings::Settings, guard::start::Start, request::Request};

/// A python that has loaded the application, or is about to, and forks workers.
pub(super) struct Template {
    child: Child,
    channel: Option<OwnedFd>,
    /// The kernel ends it when this process has ended.
    _gateway_pipe: OwnedFd,
    /// Counts templates: a worker of an older one runs older code.
    pub(super) generation: u64,
    /// Workers can be forked.
    pub(super) ready: bool,
    /// Workers that live.
    workers: usize,
    /// Workers that were asked for and not heard of yet.
    owed: usize,
    /// What its code comes from.
    pub(super) settings: Settings,
    /// What it was told about loading the application.
    pub(super) preload: Preload,
    /// Loading the application has done what cannot be forked; it ends.
    pub(super) is_not_forkable: bool,
    /// One process at a time may have what it did.
    pub(super) is_for_one_process: bool,
    /// When it is killed, since it has not ended by itself.
    pub(super) farewell: Option<Instant>,
    /// It was told that workers which are not there yet are not wanted.
    abandoned: bool,
    /// It cannot load the application, and the log says why.
    pub(super) explained: bool,
    /// Why the engine could not be loaded.
    pub(super) unfit: Option<String>,
}

impl Template {
    /// Starts one.
    pub(super) fn start(
        settings: Settings,
        service: &Service,
        request: &Request,
        inherited: &[BorrowedFd<'_>],
        generation: u64,
    ) -> io::Result<Self> {
        let mut start = Start::new(&settings, Work::Template(service.clone()), request, inherited)?;
        // A group of its own, so that what it has started can be ended with it.
        let child = start.command.process_group(0).spawn()?;
        Ok(Self {
            child,
            channel: Some(start.channel),
            _gateway_pipe: start.gateway_pipe,
            generation,
            ready: false,
            workers: 0,
            owed: 0,
            settings,
            preload: service.preload,
            is_not_forkable: false,
            is_for_one_process: false,
            farewell: None,
            abandoned: false,
            explained: false,
            unfit: None,
        })
    }

    /// Readable when there is news.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(OwnedFd::as_fd)
    }

    /// Asks for a worker. Tells whether it could: a template that has very many orders takes no
    /// more, and one that is about to be found dead takes none.
    pub(super) fn fork(&mut self, slot: u32) -> bool {
        let asked = self.send(TemplateCommand::Fork { slot });
        self.owed += usize::from(asked);
        asked
    }

    /// Has it open its logs again.
    pub(super) fn reopen_logs(&self) {
        if let Some(channel) = &self.channel {
            // One that takes no more orders now opens them before it writes the next time.
            send_command(channel, TemplateCommand::ReopenLogs);
        }
    }

    /// Counts what `news` says of its workers.
    fn count(&mut self, news: TemplateEvent) {
        match news {
            TemplateEvent::WorkerStarted { .. } => {
                self.owed = self.owed.saturating_sub(1);
                self.workers += 1;
            }
            TemplateEvent::ForkFailed { .. } | TemplateEvent::StartFailed { .. } => {
                self.owed = self.owed.saturating_sub(1)
            }
            TemplateEvent::WorkerExited { .. } => self.workers = self.workers.saturating_sub(1),
            TemplateEvent::Ready => self.ready = true,
            TemplateEvent::LoadFailed => self.explained = true,
            TemplateEvent::NotForkable => self.is_not_forkable = true,
            TemplateEvent::OneProcess => {
                (self.is_not_forkable, self.is_for_one_process) = (true, true)
            }
        }
    }

    /// The next of its news, if there is any.
    pub(super) fn news(&mut self) -> Option<TemplateEvent> {
        let mut packet = [0; MAX_REPORT_BYTES];
        loop {
            match recv(self.channel.as_ref()?, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.channel = None;
                    return None;
                }
                // What is none of ours does not come from the engine: an application may have found
                // the descriptor.
                Ok((length, _)) => {
                    if let Some(news) = TemplateEvent::decode(&packet[..length]) {
                        self.count(news);
                        return Some(news);
                    }
                    // Before the engine is loaded, the lines of Python that load it say why it
                    // cannot be.
                    if let Some(Report::EngineFailed(reason)) = Report::decode(&packet[..length]) {
                        self.unfit = Some(reason);
                    }
                }
                // One that ended without reading its last orders is told of once, before what it
                // had still to say.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(_) => return None,
            }
        }
    }

    /// Lets it end once its last worker has, by `due` at the latest. One that has not loaded the
    /// application yet need not do that any more.
    pub(super) fn retire(&mut self, due: Instant) {
        if !self.ready {
            self.kill();
        } else if self.workers + self.owed == 0 {
            if self.channel.take().is_some() {
                self.farewell = Some(self.farewell.map_or(due, |farewell| farewell.min(due)));
            }
        } else if self.owed > 0 && !self.abandoned {
            // They may be loading the application, without an end. One that could not be told is
            // told the next time.
            self.abandoned = self.send(TemplateCommand::CancelPending);
        }
    }

    fn send(&self, order: TemplateCommand) -> bool {
        self.channel.as_ref().is_some_and(|channel| send_command(channel, order))
    }

    /// Its process, while it has not been found ended.
    pub(super) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Which process loads the application, as far as that is known.
    pub(super) fn loads(&self) -> Preload {
        if self.ready && self.preload == Preload::Auto { Preload::Yes } else { self.preload }
    }

    /// Has it go on if it is stopped, by a debugger or SIGSTOP: only then can it end, and tell of
    /// its workers.
    pub(super) fn resume(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Ends it at once, and its workers with it.
    pub(super) fn kill(&mut self) {
        self.channel = None;
        if let Some(pid) = self.pid() {
            // It may have ended a moment ago.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Kills what it has started and left running, once it has ended itself. Its number, which is
    /// that of its process group, is nobody else's before [`Template::ended`] says so.
    pub(super) fn kill_what_it_left(&self) {
        let has_ended = |pid| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
        };
        if let Some(group) = self.pid().filter(|&pid| has_ended(pid)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// Sends `command` without waiting. Returns whether the template will receive it.
fn send_command(channel: &OwnedFd, command: TemplateCommand) -> bool {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    command.encode().is_ok_and(|packet| send(channel, &packet, flags).is_ok())
}
