//! Workers that load the application by themselves, from their fork until they serve or have
//! failed.
//!
//! A worker is born, for the supervisor, when it has loaded: so old workers are not let go for one
//! that may never serve. The first is forked before anybody asks, and shows whether the application
//! can be loaded at all; it waits for its place then.

use std::os::fd::{AsFd as _, BorrowedFd};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, SocketType, recv, send},
    process::{Pid, Signal, WaitStatus, kill_process},
};
use wire::template::{PACKET_BYTES, TemplateCommand, TemplateEvent};

use crate::process::forks::{
    Descriptor, {self},
};

/// A worker's end of the socket to its template.
pub(crate) struct TemplateSocket(Descriptor);

/// One of them.
struct PendingWorker {
    pid: Pid,
    /// Its place; the first has none before it is asked for.
    slot: Option<u32>,
    /// Closed when it has nothing more to say.
    socket: Option<Descriptor>,
    stage: LoadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LoadStage {
    Loading,
    /// It has loaded, and waits for its place.
    Waiting,
    /// It could not load, has said so in the log, and is about to end.
    Failed,
    /// It was asked to stop.
    Cancelled,
}

/// What became of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoadOutcome {
    /// The first has loaded.
    FirstLoaded,
    /// The first could not load.
    FirstFailed,
    /// A worker serves.
    Started { slot: u32, pid: Pid },
    /// A worker could not load.
    StartFailed { slot: u32 },
}

/// All of them.
#[derive(Default)]
pub(crate) struct PendingWorkers(Vec<PendingWorker>);

impl PendingWorkers {
    /// A socket for a worker that is about to be forked: ours, and its own.
    pub(crate) fn socket_pair() -> std::io::Result<(Descriptor, TemplateSocket)> {
        let (ours, theirs) = forks::pair(SocketType::SEQPACKET)?;
        Ok((ours, TemplateSocket(theirs)))
    }

    /// Takes in a worker that was just forked.
    pub(crate) fn add(&mut self, pid: Pid, slot: Option<u32>, socket: Descriptor) {
        self.0.push(PendingWorker { pid, slot, socket: Some(socket), stage: LoadStage::Loading });
    }

    /// Readable when there is an outcome.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|pending| pending.socket.as_ref().map(Descriptor::as_fd))
    }

    /// The processes.
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(|pending| pending.pid)
    }

    /// Gives the first worker, if it waits, the place `slot`.
    pub(crate) fn assign_slot(&mut self, slot: u32) -> Option<LoadOutcome> {
        let position = self.0.iter().position(|pending| pending.stage == LoadStage::Waiting)?;
        let pending = &self.0[position];
        let is_sent = pending.socket.as_ref().is_some_and(|socket| {
            send(socket, &Order::Fork { slot }.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
                .is_ok()
        });
        // If it was not, it has ended, and will be found so.
        is_sent.then(|| LoadOutcome::Started { slot, pid: self.0.swap_remove(position).pid })
    }

    /// Takes what they say.
    pub(crate) fn read_news(&mut self) -> Vec<LoadOutcome> {
        let mut outcomes = Vec::new();
        self.0.retain_mut(|pending| {
            let said = pending.read_news();
            match (said, pending.stage, pending.slot) {
                (Some(News::Ready), LoadStage::Loading, Some(slot)) => {
                    outcomes.push(LoadOutcome::Started { slot, pid: pending.pid });
                    return false;
                }
                (Some(News::Ready), LoadStage::Loading, None) => {
                    pending.stage = LoadStage::Waiting;
                    outcomes.push(LoadOutcome::FirstLoaded);
                }
                (Some(News::Unfit), LoadStage::Loading, slot) => {
                    pending.stage = LoadStage::Failed;
                    outcomes.push(slot.map_or(LoadOutcome::FirstFailed, |slot| {
                        LoadOutcome::StartFailed { slot }
                    }));
                }
                _ => {}
            }
            true
        });
        outcomes
    }

    /// Takes note that a process has ended. If it was one of these: whether that has an outcome,
    /// and what is to be said of it.
    pub(crate) fn on_exit(
        &mut self,
        pid: Pid,
        status: Option<WaitStatus>,
    ) -> Option<(Option<LoadOutcome>, Option<LogMessage>)> {
        let position = self.0.iter().position(|pending| pending.pid == pid)?;
        let pending = self.0.swap_remove(position);
        let outcome = match (pending.stage, pending.slot) {
            // Told already, or nobody has asked for it.
            (LoadStage::Failed, _) | (LoadStage::Waiting | LoadStage::Cancelled, None) => None,
            (_, Some(slot)) => Some(LoadOutcome::StartFailed { slot }),
            (LoadStage::Loading, None) => Some(LoadOutcome::FirstFailed),
        };
        let entry = (pending.stage == LoadStage::Loading).then(|| {
            LogMessage::error(
                Code::WorkerUnloaded,
                format!("a worker {} while it loaded the application", describe_exit(status)),
            )
            .hint(
                "look for its last words just above, and in the system's log; `wsgate check` loads \
                 it from a shell",
            )
        });
        Some((outcome, entry))
    }

    /// Ends those that have failed and have not come to an end by themselves: a thread may keep
    /// them.
    pub(crate) fn kill_failed(&mut self) {
        self.0
            .iter()
            .filter(|pending| pending.stage == LoadStage::Failed)
            .for_each(PendingWorker::kill);
    }

    /// Ends all of them.
    pub(crate) fn kill_all(&mut self) {
        for pending in &mut self.0 {
            pending.kill();
            if pending.stage != LoadStage::Failed {
                pending.stage = LoadStage::Cancelled;
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl PendingWorker {
    fn read_news(&mut self) -> Option<News> {
        let mut packet = [0; LENGTH];
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
        // It may have ended a moment ago; its number is its own until it is waited for.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

impl TemplateSocket {
    /// Says how loading went. If the template is gone, the kernel ends this process.
    pub(crate) fn report(&self, news: News) {
        let _ = send(&self.0, &news.encode(), SendFlags::NOSIGNAL);
    }

    /// Waiting for a place; none if the template is gone.
    pub(crate) fn wait_for_slot(&self) -> Option<u32> {
        let mut order = [0; LENGTH];
        loop {
            match recv(&self.0, &mut order[..], RecvFlags::empty()) {
                Ok((0, _)) => return None,
                Ok((length, _)) => {
                    if let Some(TemplateCommand::Fork { slot }) =
                        TemplateCommand::decode(&order[..length])
                    {
                        return Some(slot);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

fn describe_exit(status: Option<WaitStatus>) -> String {
    let Some(status) = status else {
        return "ended".into();
    };
    match status.terminating_signal() {
        Some(signal) => {
            let name = signal_hook::low_level::signal_name(signal);
            format!(
                "was killed by {}",
                name.map_or_else(|| format!("signal {signal}"), str::to_owned)
            )
        }
        None => format!("exited with status {}", status.exit_status().unwrap_or(-1)),
    }
}
