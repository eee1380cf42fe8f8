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
pub(crate) struct Cord(Descriptor);

/// One of them.
struct Unborn {
    pid: Pid,
    /// Its place; the first has none before it is asked for.
    slot: Option<u32>,
    /// Closed when it has nothing more to say.
    socket: Option<Descriptor>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Loads,
    /// It has loaded, and waits for its place.
    Waits,
    /// It could not load, has said so in the log, and is about to end.
    Failed,
    /// It was asked to stop.
    Unwanted,
}

/// What became of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The first has loaded.
    First,
    /// The first could not load.
    Hopeless,
    /// A worker serves.
    Born { slot: u32, pid: Pid },
    /// A worker could not load.
    Stillborn { slot: u32 },
}

/// All of them.
#[derive(Default)]
pub(crate) struct Nursery(Vec<Unborn>);

impl Nursery {
    /// A socket for a worker that is about to be forked: ours, and its own.
    pub(crate) fn cord() -> std::io::Result<(Descriptor, Cord)> {
        let (ours, theirs) = forks::pair(SocketType::SEQPACKET)?;
        Ok((ours, Cord(theirs)))
    }

    /// Takes in a worker that was just forked.
    pub(crate) fn take_in(&mut self, pid: Pid, slot: Option<u32>, socket: Descriptor) {
        self.0.push(Unborn { pid, slot, socket: Some(socket), stage: Stage::Loads });
    }

    /// Readable when there is an outcome.
    pub(crate) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|unborn| unborn.socket.as_ref().map(Descriptor::as_fd))
    }

    /// The processes.
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(|unborn| unborn.pid)
    }

    /// Gives the first worker, if it waits, the place `slot`.
    pub(crate) fn give_place(&mut self, slot: u32) -> Option<Outcome> {
        let position = self.0.iter().position(|unborn| unborn.stage == Stage::Waits)?;
        let unborn = &self.0[position];
        let told = unborn.socket.as_ref().is_some_and(|socket| {
            send(
                socket,
                &TemplateCommand::Fork { slot }.encode(),
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            )
            .is_ok()
        });
        // If it was not, it has ended, and will be found so.
        told.then(|| Outcome::Born { slot, pid: self.0.swap_remove(position).pid })
    }

    /// Takes what they say.
    pub(crate) fn hear(&mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.0.retain_mut(|unborn| {
            let said = unborn.hear();
            match (said, unborn.stage, unborn.slot) {
                (Some(TemplateEvent::Ready), Stage::Loads, Some(slot)) => {
                    outcomes.push(Outcome::Born { slot, pid: unborn.pid });
                    return false;
                }
                (Some(TemplateEvent::Ready), Stage::Loads, None) => {
                    unborn.stage = Stage::Waits;
                    outcomes.push(Outcome::First);
                }
                (Some(TemplateEvent::LoadFailed), Stage::Loads, slot) => {
                    unborn.stage = Stage::Failed;
                    outcomes
                        .push(slot.map_or(Outcome::Hopeless, |slot| Outcome::Stillborn { slot }));
                }
                _ => {}
            }
            true
        });
        outcomes
    }

    /// Takes note that a process has ended. If it was one of these: whether that has an outcome,
    /// and what is to be said of it.
    pub(crate) fn ended(
        &mut self,
        pid: Pid,
        status: Option<WaitStatus>,
    ) -> Option<(Option<Outcome>, Option<LogMessage>)> {
        let position = self.0.iter().position(|unborn| unborn.pid == pid)?;
        let unborn = self.0.swap_remove(position);
        let outcome = match (unborn.stage, unborn.slot) {
            // Told already, or nobody has asked for it.
            (Stage::Failed, _) | (Stage::Waits | Stage::Unwanted, None) => None,
            (_, Some(slot)) => Some(Outcome::Stillborn { slot }),
            (Stage::Loads, None) => Some(Outcome::Hopeless),
        };
        let entry = (unborn.stage == Stage::Loads).then(|| {
            LogMessage::error(
                Code::WorkerLoadFailed,
                format!("a worker {} while it loaded the application", how(status)),
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
    pub(crate) fn end_failed(&mut self) {
        self.0.iter().filter(|unborn| unborn.stage == Stage::Failed).for_each(Unborn::kill);
    }

    /// Ends all of them.
    pub(crate) fn abandon(&mut self) {
        for unborn in &mut self.0 {
            unborn.kill();
            if unborn.stage != Stage::Failed {
                unborn.stage = Stage::Unwanted;
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Unborn {
    fn hear(&mut self) -> Option<TemplateEvent> {
        let mut packet = [0; PACKET_BYTES];
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

impl Cord {
    /// Says how loading went. If the template is gone, the kernel ends this process.
    pub(crate) fn tell(&self, news: TemplateEvent) {
        let _ = send(&self.0, &news.encode(), SendFlags::NOSIGNAL);
    }

    /// Waits for a place; none if the template is gone.
    pub(crate) fn place(&self) -> Option<u32> {
        let mut order = [0; PACKET_BYTES];
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

fn how(status: Option<WaitStatus>) -> String {
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
