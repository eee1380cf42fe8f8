//! A template process, from the view of its supervisor: a Python process that loads the application
//! and forks workers from itself, like Android's zygote.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::ExitStatus,
    time::Instant,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::{
        Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid,
        waitpid,
    },
};
use wire::{
    launch::{Preload, Service, Work},
    report::{MAX_REPORT_BYTES, Report},
    template::{TemplateCommand, TemplateEvent},
};

use crate::{
    config::settings::Settings, guard::start::Start, pool::handover::HandedTemplate,
    request::Request, system::processes::is_running_child,
};

/// The resources of a new template process, in addition to its settings.
pub(super) struct TemplateLaunch<'a> {
    pub(super) service: Service,
    pub(super) request: &'a Request,
    /// File descriptors that the process inherits.
    pub(super) inherited: Vec<BorrowedFd<'a>>,
}

/// A template process.
pub(super) struct Template {
    pid: Pid,
    /// The exit status, once the process was waited for.
    exit_status: Option<ExitStatus>,
    /// Channel for orders and news; `None` after either end was closed.
    channel: Option<OwnedFd>,
    /// The kernel closes this end when the supervisor exits, and the template exits with it.
    gateway_pipe: OwnedFd,
    generation: u64,
    settings: Settings,
    preload: Preload,
    loading: Loading,
    /// Number of running workers.
    workers: usize,
    /// The running workers of a template that the previous program of an upgrade has started.
    /// Its messages may be those of another build, so the exits of its workers are looked for.
    handed_workers: Vec<Pid>,
    /// Number of ordered workers that are not running yet.
    pending: usize,
    /// The template was asked to give up its pending workers.
    has_cancelled_pending: bool,
    /// Time at which the process is killed if it has not exited.
    kill_at: Option<Instant>,
    /// Why the engine could not be loaded.
    engine_error: Option<String>,
    /// Why the application could not be loaded.
    load_error: Option<String>,
}

/// The progress of a template in loading the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loading {
    /// The application is being loaded.
    InProgress,
    /// Workers can be forked.
    Ready,
    /// The application cannot be loaded. The template has logged the reason.
    Failed,
    /// The application is loaded, but the process must not be forked. The process exits.
    NotForkable {
        /// The application has opened a resource that only one process may have.
        is_for_one_process: bool,
    },
}

impl Template {
    /// Starts a template process for `settings`. Its workers belong to `generation`.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(super) fn start(
        settings: Settings,
        launch: &TemplateLaunch<'_>,
        generation: u64,
    ) -> io::Result<Self> {
        let work = Work::Template(launch.service.clone());
        let mut start = Start::new(&settings, work, launch.request, &launch.inherited)?;
        // A process group of its own, so that its leftover children can be killed.
        let child = start.command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or_else(|| io::Error::other("the process has no valid number"))?,
            exit_status: None,
            channel: Some(start.channel),
            gateway_pipe: start.gateway_pipe,
            generation,
            settings,
            preload: launch.service.preload,
            loading: Loading::InProgress,
            workers: 0,
            handed_workers: Vec::new(),
            pending: 0,
            has_cancelled_pending: false,
            kill_at: None,
            engine_error: None,
            load_error: None,
        })
    }

    /// A template that the previous program of an upgrade has started. Its workers serve until they
    /// are replaced; no more are ordered from it.
    pub(super) fn handed_over(handed: HandedTemplate, settings: Settings) -> Self {
        Self {
            pid: handed.pid,
            exit_status: None,
            channel: handed.channel,
            gateway_pipe: handed.gateway_pipe,
            generation: handed.generation,
            settings,
            preload: Preload::Auto,
            loading: Loading::Ready,
            workers: handed.workers.len(),
            handed_workers: handed.workers,
            pending: 0,
            has_cancelled_pending: false,
            kill_at: None,
            engine_error: None,
            load_error: None,
        }
    }

    /// File descriptors of the supervisor's ends, to be handed over.
    pub(super) fn ends(&self) -> (Option<BorrowedFd<'_>>, BorrowedFd<'_>) {
        (self.channel(), self.gateway_pipe.as_fd())
    }

    /// The process.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// The workers of a template that was handed over which have exited since the last call.
    pub(super) fn exited_workers(&mut self) -> Vec<Pid> {
        let template = self.pid;
        let exited = self.handed_workers.extract_if(.., |pid| !is_running_child(*pid, template));
        let exited: Vec<Pid> = exited.collect();
        self.workers = self.workers.saturating_sub(exited.len());
        exited
    }

    /// Number of this template: a worker of an older template runs older code.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The settings that the process was started with.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The instruction which process is to load the application.
    pub(super) fn preload(&self) -> Preload {
        self.preload
    }

    /// The result of that instruction, as far as it is known.
    pub(super) fn effective_preload(&self) -> Preload {
        if self.loading == Loading::Ready && self.preload == Preload::Auto {
            Preload::Yes
        } else {
            self.preload
        }
    }

    /// The progress of loading.
    pub(super) fn loading(&self) -> Loading {
        self.loading
    }

    /// Why the engine could not be loaded.
    pub(super) fn engine_error(&self) -> Option<&str> {
        self.engine_error.as_deref()
    }

    /// Code and sentence of the log message why the application could not be loaded.
    pub(super) fn load_error(&self) -> Option<&str> {
        self.load_error.as_deref()
    }

    /// The channel, which is readable when there is news.
    pub(super) fn channel(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(OwnedFd::as_fd)
    }

    /// Orders a worker for the block of scoreboard lines with this number. Returns whether the
    /// order was sent: the channel may be full, or the process may have exited.
    pub(super) fn fork(&mut self, block: u32) -> bool {
        let is_sent = self.send(TemplateCommand::Fork { block });
        self.pending += usize::from(is_sent);
        is_sent
    }

    /// Orders the process to give up the workers that are not running yet.
    pub(super) fn cancel_pending(&self) {
        if self.pending > 0 {
            // If the order cannot be sent, the next call sends it.
            let _ = self.send(TemplateCommand::CancelPending);
        }
    }

    /// Orders the process to reopen its logs.
    pub(super) fn reopen_logs(&self) {
        // A process that does not get the order reopens them before its next log message.
        let _ = self.send(TemplateCommand::ReopenLogs);
    }

    /// The next news, if there is any.
    pub(super) fn next_news(&mut self) -> Option<TemplateEvent> {
        let mut packet = [0; MAX_REPORT_BYTES];
        loop {
            match recv(self.channel.as_ref()?, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.channel = None;
                    return None;
                }
                // The application may write to the file descriptor, so any packet can arrive.
                // Unknown packets are ignored.
                Ok((length, _)) => {
                    if let Some(news) = TemplateEvent::decode(&packet[..length]) {
                        self.note(&news);
                        return Some(news);
                    }
                    // The Python code that loads the engine sends its failure as a report.
                    if let Some(Report::EngineFailed(reason)) = Report::decode(&packet[..length]) {
                        self.engine_error = Some(reason);
                    }
                }
                // If the process exits with unread orders, the kernel reports this error once,
                // before the remaining packets.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(_) => return None,
            }
        }
    }

    fn note(&mut self, news: &TemplateEvent) {
        match news {
            TemplateEvent::WorkerStarted { .. } => {
                self.pending = self.pending.saturating_sub(1);
                self.workers += 1;
            }
            TemplateEvent::ForkFailed { .. } | TemplateEvent::StartFailed { .. } => {
                self.pending = self.pending.saturating_sub(1);
            }
            TemplateEvent::WorkerExited { pid, .. } => {
                self.handed_workers.retain(|worker| worker.as_raw_nonzero().get() != *pid);
                self.workers = self.workers.saturating_sub(1);
            }
            TemplateEvent::Ready => self.loading = Loading::Ready,
            TemplateEvent::LoadFailed { reason } => {
                self.loading = Loading::Failed;
                self.load_error = Some(reason.clone());
            }
            TemplateEvent::NotForkable => {
                self.loading = Loading::NotForkable { is_for_one_process: false };
            }
            TemplateEvent::OneProcess => {
                self.loading = Loading::NotForkable { is_for_one_process: true }
            }
        }
    }

    /// Lets the process exit once its last worker has exited, and sets `kill_at` as its deadline
    /// from then on. A process that is still loading is killed at once. Call this again after news.
    pub(super) fn retire(&mut self, kill_at: Instant) {
        if self.loading != Loading::Ready {
            self.kill();
        } else if self.workers + self.pending == 0 {
            if self.channel.take().is_some() {
                self.kill_by(kill_at);
            }
        } else if self.pending > 0 && !self.has_cancelled_pending {
            // Pending workers may load the application forever. If the order cannot be sent, the
            // next call sends it.
            self.has_cancelled_pending = self.send(TemplateCommand::CancelPending);
        }
    }

    /// Sets the deadline for the exit of the process, unless an earlier one is set.
    pub(super) fn kill_by(&mut self, due: Instant) {
        self.kill_at = Some(self.kill_at.map_or(due, |at| at.min(due)));
    }

    /// The deadline for the exit of the process.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Kills the process if its deadline has passed. Returns whether that was done.
    pub(super) fn kill_if_overdue(&mut self, now: Instant) -> bool {
        let is_overdue = self.kill_at.take_if(|due| *due <= now).is_some();
        if is_overdue {
            self.kill();
        }
        is_overdue
    }

    fn send(&self, command: TemplateCommand) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let (Some(channel), Ok(packet)) = (&self.channel, command.encode()) else { return false };
        send(channel, &packet, flags).is_ok()
    }

    /// Continues a process that is stopped by a debugger or SIGSTOP. Otherwise it cannot exit or
    /// report its workers.
    pub(super) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process; the kernel kills its workers, too.
    pub(super) fn kill(&mut self) {
        self.channel = None;
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // The number of a process that was waited for may belong to another process.
        if self.exit_status.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Kills the leftover children of a process that has exited. Call this before
    /// [`Template::exit_status`], which frees the number of its process group.
    pub(super) fn kill_leftovers(&self) {
        let has_exited = |pid| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
        };
        if self.exit_status.is_none() && has_exited(self.pid) {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// The exit status, if the process has exited.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit_status.is_none()
            && let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::NOHANG)
        {
            self.exit_status = Some(ExitStatus::from_raw(status.as_raw()));
        }
        self.exit_status
    }
}
