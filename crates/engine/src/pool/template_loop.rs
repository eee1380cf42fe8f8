//! The loop of a template process: forks a worker whenever the supervisor asks for one.

use std::{mem::ManuallyDrop, os::fd::AsFd as _, time::Duration};

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
    process::{Pid, WaitOptions, WaitStatus, getpid, waitpid},
};
use wire::{
    message::PACKET_BYTES,
    template::{TemplateCommand, TemplateEvent},
};

use crate::{
    loading::staleness::modules::{self, ModuleWatch},
    log::{self, Log},
    pool::{
        pending_workers::{LoadOutcome, PendingWorkers, TemplateSocket},
        template_signals::TemplateSignals,
    },
    process::{
        fork::{self, ForkSide},
        forks::Descriptor,
        gateway_pipe::{TemplateLink, TemplatePipe},
    },
};

/// A process that forks workers.
pub(super) struct Template {
    channel: Descriptor,
    signals: TemplateSignals,
    pid: Pid,
    /// Running workers that the supervisor knows.
    workers: Vec<Pid>,
    /// Workers that load the application.
    pending: PendingWorkers,
    /// The pipe that keeps workers running until this process exits.
    template_pipe: ManuallyDrop<TemplatePipe>,
    /// Is the application loaded here?
    has_application: bool,
    /// The supervisor has closed the channel.
    is_retired: bool,
}

/// The role of this process at the end of the loop.
pub(super) enum LoopExit {
    /// The template, which exits with this status.
    Template(i32),
    /// A worker, which exits with its template.
    Worker(WorkerStart, TemplateLink),
}

/// The first task of a worker.
pub(super) enum WorkerStart {
    /// Serve the loaded application in this block.
    Loaded { block: u32 },
    /// Load the application. The socket reports the result to the template.
    Loading { block: Option<u32>, socket: TemplateSocket },
}

impl Template {
    /// A template that takes commands from `channel`.
    ///
    /// # Errors
    /// If file descriptors are short, or Python raises.
    pub(super) fn new(
        py: Python<'_>,
        channel: Descriptor,
        has_application: bool,
    ) -> PyResult<Self> {
        Ok(Self {
            channel,
            signals: TemplateSignals::register(py)?,
            pid: getpid(),
            workers: Vec::new(),
            pending: PendingWorkers::default(),
            template_pipe: ManuallyDrop::new(TemplatePipe::new()?),
            has_application,
            is_retired: false,
        })
    }

    /// Carries out the supervisor's commands in this process. Returns in each worker, too.
    ///
    /// # Errors
    /// If the application has closed file descriptors of the template, or Python raises.
    pub(super) fn run(
        mut self,
        py: Python<'_>,
        log: &Log,
        modules: Option<&ModuleWatch>,
    ) -> PyResult<LoopExit> {
        if self.has_application {
            send_event(&self.channel, &TemplateEvent::Ready);
        } else {
            match self.fork(py, None)? {
                Some(start) => return self.become_worker(py, start),
                None if self.pending.is_empty() => {
                    // `fork` has reported nothing: the supervisor has not asked for this worker.
                    let message =
                        LogMessage::new(Code::ForkFailed, "the first worker could not be forked")
                            .hint(limit_hints::processes(None));
                    log.write(&message);
                    send_event(&self.channel, &TemplateEvent::load_failed(&message.summary()));
                    return Ok(LoopExit::Template(1));
                }
                None => {}
            }
        }
        while !(self.is_retired && self.workers.is_empty() && self.pending.is_empty()) {
            // Runs before the first wait, too, because later changes are compared with the files of
            // that time.
            if let Some(modules) = modules {
                modules.look(py);
            }
            self.wait(py, modules.map(|_| modules::CHECK_INTERVAL))?;
            while let Some(command) = self.next_command() {
                match command {
                    TemplateCommand::Fork { block } => {
                        if let Some(start) = self.fork(py, Some(block))? {
                            return self.become_worker(py, start);
                        }
                    }
                    TemplateCommand::CancelPending => self.pending.kill_all(),
                    TemplateCommand::ReopenLogs => log::reopen_rotated(),
                }
            }
            if self.is_retired {
                self.pending.kill_all();
            }
            if self.report_workers(log) {
                // The kernel kills the first worker when this process exits.
                return Ok(LoopExit::Template(1));
            }
        }
        Ok(LoopExit::Template(0))
    }

    /// Reports the outcomes of workers to the supervisor. Did the first worker fail to load the
    /// application?
    fn report_workers(&mut self, log: &Log) -> bool {
        // Reports are read before exits, because a worker reports before it exits.
        let exited = self.reap();
        let outcomes = self.pending.read_events();
        let is_first_failed =
            |outcome: &LoadOutcome| matches!(outcome, LoadOutcome::FirstFailed(_));
        let mut has_first_failed = outcomes.iter().any(is_first_failed);
        outcomes.into_iter().for_each(|outcome| self.report(outcome));
        for (pid, status) in exited {
            if let Some((outcome, message)) = self.pending.on_exit(pid, status) {
                message.iter().for_each(|message| log.write(message));
                has_first_failed |= outcome.iter().any(is_first_failed);
                outcome.into_iter().for_each(|outcome| self.report(outcome));
            } else {
                self.workers.retain(|worker| *worker != pid);
                let (pid, status) =
                    (pid.as_raw_nonzero().get(), status.map_or(0, WaitStatus::as_raw));
                send_event(&self.channel, &TemplateEvent::WorkerExited { pid, status });
            }
        }
        has_first_failed
    }

    /// Waits for an event, for `timeout` at most.
    fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        py.detach(|| {
            // A closed channel would be readable forever.
            let channel = (!self.is_retired).then(|| self.channel.as_fd());
            let watched = self.pending.sockets().chain([self.signals.as_fd()]).chain(channel);
            let mut watched: Vec<_> =
                watched.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)).collect();
            match poll(&mut watched, timeout.as_ref()) {
                // Every later wait would return at once.
                Ok(_) if watched.iter().any(|it| it.revents().contains(PollFlags::NVAL)) => Err(
                    std::io::Error::other("the application has closed a file descriptor of wsgate"),
                ),
                Ok(_) | Err(Errno::INTR) => Ok(()),
                Err(error) => Err(std::io::Error::from(error)),
            }
        })?;
        self.signals.take();
        // Signal handlers of the application run here. Their exceptions do not concern the
        // template.
        if let Err(error) = py.check_signals() {
            error.write_unraisable(py, None);
        }
        Ok(())
    }

    /// The workers that have exited. The application reaps its own children.
    fn reap(&self) -> Vec<(Pid, Option<WaitStatus>)> {
        let pids = self.workers.iter().copied().chain(self.pending.pids());
        let exited = |pid| match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(exited) => exited.map(|(pid, status)| (pid, Some(status))),
            // Code of the application, such as a signal handler, has reaped the worker, so the
            // status is unknown.
            Err(Errno::CHILD) => Some((pid, None)),
            Err(_) => None,
        };
        pids.filter_map(exited).collect()
    }

    /// The next command, if one has arrived.
    fn next_command(&mut self) -> Option<TemplateCommand> {
        let mut packet = [0; PACKET_BYTES];
        while !self.is_retired {
            match recv(&self.channel, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.is_retired = true,
                Ok((length, _)) => {
                    let command = TemplateCommand::decode(&packet[..length]);
                    if command.is_some() {
                        return command;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The application has closed the channel: no command can arrive any more.
                Err(_) => self.is_retired = true,
            }
        }
        None
    }

    /// Forks a worker for `block`, or the first worker, which gets its block later. Returns `Some`
    /// in the worker.
    fn fork(&mut self, py: Python<'_>, block: Option<u32>) -> PyResult<Option<WorkerStart>> {
        self.pending.kill_failed();
        if let Some(outcome) = block.and_then(|block| self.pending.assign_block(block)) {
            self.report(outcome);
            return Ok(None);
        }
        let sockets =
            if self.has_application { None } else { PendingWorkers::socket_pair().map(Some)? };
        match (fork::fork(py), block) {
            (Ok(ForkSide::Child), block) => Ok(match (sockets, block) {
                (Some((_, socket)), block) => Some(WorkerStart::Loading { block, socket }),
                (None, block) => block.map(|block| WorkerStart::Loaded { block }),
            }),
            (Ok(ForkSide::Parent(pid)), block) => {
                match (sockets, block) {
                    (Some((socket, _)), block) => self.pending.add(pid, block, socket),
                    (None, Some(block)) => self.report(LoadOutcome::Started { block, pid }),
                    (None, None) => {}
                }
                Ok(None)
            }
            (Err(error), Some(block)) => {
                let errno = error.raw_os_error().unwrap_or_default();
                send_event(&self.channel, &TemplateEvent::ForkFailed { block, errno });
                Ok(None)
            }
            (Err(_), None) => Ok(None),
        }
    }

    /// Reports the outcome of a worker to the supervisor.
    fn report(&mut self, outcome: LoadOutcome) {
        let event = match outcome {
            LoadOutcome::FirstLoaded => TemplateEvent::Ready,
            LoadOutcome::FirstFailed(reason) => TemplateEvent::load_failed(&reason),
            LoadOutcome::Started { block, pid } => {
                self.workers.push(pid);
                TemplateEvent::WorkerStarted { block, pid: pid.as_raw_nonzero().get() }
            }
            LoadOutcome::StartFailed { block } => TemplateEvent::StartFailed { block },
        };
        send_event(&self.channel, &event);
    }

    /// Makes this process a worker. The order is: exit with the template, release the template's
    /// signals and sockets, unblock signals.
    fn become_worker(self, py: Python<'_>, start: WorkerStart) -> PyResult<LoopExit> {
        let template_link = ManuallyDrop::into_inner(self.template_pipe).tie(self.pid)?;
        self.signals.give_back(py)?;
        Ok(LoopExit::Worker(start, template_link))
    }
}

/// Sends an event to the supervisor. If the supervisor has exited, the kernel ends this process.
pub(super) fn send_event(channel: &Descriptor, event: &TemplateEvent) {
    if let Ok(packet) = event.encode() {
        let _ = send(channel, &packet, SendFlags::NOSIGNAL);
    }
}
