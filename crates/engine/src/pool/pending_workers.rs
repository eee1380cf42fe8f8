//! Workers that load the application, from their fork until they serve or have failed.
//!
//! The supervisor counts a worker as running when the application is loaded, so no old worker is
//! replaced by a worker that may never serve. The first worker is forked in advance, to test
//! whether the application can be loaded. After loading, this worker waits for its block.

use std::{
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::ExitStatusExt as _,
    },
    process::ExitStatus,
};

use diagnostics::{
    message::{Code, LogMessage},
    process_exit::ExitText,
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, SocketType, recv, send},
    process::{Pid, Signal, WaitStatus, kill_process},
};
use wire::{
    message::PACKET_BYTES,
    template::{MAX_EVENT_BYTES, TemplateCommand, TemplateEvent},
};

use crate::process::forks::{self, Descriptor};

/// A worker's end of the socket to its template.
pub(super) struct TemplateSocket(Descriptor);

/// A worker that was forked.
struct PendingWorker {
    pid: Pid,
    /// `None` for the first worker until it gets a block.
    block: Option<u32>,
    /// `None` after the last report of the worker.
    socket: Option<Descriptor>,
    stage: LoadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadStage {
    /// The worker loads the application.
    Loading,
    /// The worker has loaded the application and waits for its block.
    Waiting,
    /// The worker could not load the application, has logged that, and is about to exit.
    Failed,
    /// The worker was killed.
    Cancelled,
}

/// The outcome of a worker's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LoadOutcome {
    /// The first worker has loaded the application.
    FirstLoaded,
    /// The first worker could not load the application, for this reason.
    FirstFailed(String),
    /// A worker serves.
    Started { block: u32, pid: Pid },
    /// A worker could not load the application.
    StartFailed { block: u32 },
}

/// The workers of a template that are loading the application.
#[derive(Default)]
pub(super) struct PendingWorkers(Vec<PendingWorker>);

impl PendingWorkers {
    /// A socket pair for a worker that is about to be forked: the template's end and the worker's
    /// end.
    ///
    /// # Errors
    /// If file descriptors are short.
    pub(super) fn socket_pair() -> std::io::Result<(Descriptor, TemplateSocket)> {
        let (ours, theirs) = forks::pair(SocketType::SEQPACKET)?;
        Ok((ours, TemplateSocket(theirs)))
    }

    /// Adds a forked worker.
    pub(super) fn add(&mut self, pid: Pid, block: Option<u32>, socket: Descriptor) {
        let stage = LoadStage::Loading;
        self.0.push(PendingWorker { pid, block, socket: Some(socket), stage });
    }

    /// The file descriptors that are readable when [`PendingWorkers::read_events`] has work.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|worker| worker.socket.as_ref().map(Descriptor::as_fd))
    }

    /// The process IDs of the workers.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(|worker| worker.pid)
    }

    /// Are there no pending workers?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Assigns `block` to the first worker, if that worker waits.
    pub(super) fn assign_block(&mut self, block: u32) -> Option<LoadOutcome> {
        let position = self.0.iter().position(|worker| worker.stage == LoadStage::Waiting)?;
        let is_sent = self.0[position].socket.as_ref().is_some_and(|socket| {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let packet = TemplateCommand::Fork { block }.encode();
            packet.is_ok_and(|packet| send(socket, &packet, flags).is_ok())
        });
        // If the worker has exited, the send fails, and the exit is noticed later.
        is_sent.then(|| LoadOutcome::Started { block, pid: self.0.swap_remove(position).pid })
    }

    /// Reads the reports of the workers.
    pub(super) fn read_events(&mut self) -> Vec<LoadOutcome> {
        let mut outcomes = Vec::new();
        self.0.retain_mut(|worker| {
            let event = worker.read_event();
            match (event, worker.stage, worker.block) {
                (Some(TemplateEvent::Ready), LoadStage::Loading, Some(block)) => {
                    outcomes.push(LoadOutcome::Started { block, pid: worker.pid });
                    return false;
                }
                (Some(TemplateEvent::Ready), LoadStage::Loading, None) => {
                    worker.stage = LoadStage::Waiting;
                    outcomes.push(LoadOutcome::FirstLoaded);
                }
                (Some(TemplateEvent::LoadFailed { reason }), LoadStage::Loading, block) => {
                    worker.stage = LoadStage::Failed;
                    outcomes.push(match block {
                        Some(block) => LoadOutcome::StartFailed { block },
                        None => LoadOutcome::FirstFailed(reason),
                    });
                }
                _ => {}
            }
            true
        });
        outcomes
    }

    /// Records the exit of a process. If the process is a pending worker, returns its outcome,
    /// unless it was reported before, and a log message.
    pub(super) fn on_exit(
        &mut self,
        pid: Pid,
        status: Option<WaitStatus>,
    ) -> Option<(Option<LoadOutcome>, Option<LogMessage>)> {
        let position = self.0.iter().position(|worker| worker.pid == pid)?;
        let worker = self.0.swap_remove(position);
        let message = (worker.stage == LoadStage::Loading).then(|| {
            let exit = describe_exit(status);
            LogMessage::new(
                Code::WorkerLoadFailed,
                format!("a worker {exit} while it loaded the application"),
            )
            .hint(
                "read the log lines before this one and the log of the system; `wsgate check` \
                 loads the application from a shell",
            )
        });
        let outcome = match (worker.stage, worker.block) {
            // The outcome was reported already, or the supervisor has not asked for this worker.
            (LoadStage::Failed, _) | (LoadStage::Waiting | LoadStage::Cancelled, None) => None,
            (_, Some(block)) => Some(LoadOutcome::StartFailed { block }),
            (LoadStage::Loading, None) => {
                let reason = message.as_ref().map(LogMessage::summary);
                Some(LoadOutcome::FirstFailed(reason.unwrap_or_default()))
            }
        };
        Some((outcome, message))
    }

    /// Kills workers that have failed but not exited, because a thread may keep them running.
    pub(super) fn kill_failed(&mut self) {
        let failed = self.0.iter().filter(|worker| worker.stage == LoadStage::Failed);
        failed.for_each(PendingWorker::kill);
    }

    /// Kills all workers.
    pub(super) fn kill_all(&mut self) {
        for worker in &mut self.0 {
            worker.kill();
            if worker.stage != LoadStage::Failed {
                worker.stage = LoadStage::Cancelled;
            }
        }
    }
}

impl PendingWorker {
    fn read_event(&mut self) -> Option<TemplateEvent> {
        let mut packet = [0; MAX_EVENT_BYTES];
        loop {
            match recv(self.socket.as_ref()?, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.socket = None,
                Ok((length, _)) => return TemplateEvent::decode(&packet[..length]),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn kill(&self) {
        // The worker may have exited. The kernel does not reuse its process ID before the worker is
        // reaped.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

impl TemplateSocket {
    /// Reports the result of loading. If the template has exited, the kernel ends this process.
    pub(super) fn report(&self, event: &TemplateEvent) {
        if let Ok(packet) = event.encode() {
            let _ = send(&self.0, &packet, SendFlags::NOSIGNAL);
        }
    }

    /// Waits for a block; `None` if the template has exited.
    pub(super) fn wait_for_block(&self) -> Option<u32> {
        let mut packet = [0; PACKET_BYTES];
        loop {
            match recv(&self.0, &mut packet[..], RecvFlags::empty()) {
                Ok((0, _)) => return None,
                Ok((length, _)) => {
                    let command = TemplateCommand::decode(&packet[..length]);
                    if let Some(TemplateCommand::Fork { block }) = command {
                        return Some(block);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

fn describe_exit(status: Option<WaitStatus>) -> String {
    status.map_or_else(
        || "exited".to_owned(),
        |status| ExitText(ExitStatus::from_raw(status.as_raw())).to_string(),
    )
}
