//! Messages between the supervisor of a pool and its template process, and between the template and
//! a worker that is still loading.
//!
//! Each is a packet on a `SOCK_SEQPACKET` socket: a command of [`PACKET_BYTES`], an event of
//! [`MAX_EVENT_BYTES`] at most. A template runs code of the application, so the supervisor trusts
//! nothing else that comes from it.

use serde::{Deserialize, Serialize};

use crate::message::{
    EncodeError, HEADER_BYTES, Kind, Message, PACKET_BYTES, decode, decode_packet, encode,
    encode_packet,
};

/// Longest reason of [`TemplateEvent::LoadFailed`] in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// Longest event in bytes.
pub const MAX_EVENT_BYTES: usize = HEADER_BYTES + MAX_REASON_BYTES + 16;

/// A command of the supervisor to its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateCommand {
    /// Fork a worker. From a template to a worker: write this block and serve.
    Fork {
        /// Number of the worker's block of scoreboard lines.
        block: u32,
    },
    /// Kill the workers that are still loading the application.
    CancelPending,
    /// Reopen the logs whose generation the scoreboard has raised.
    ReopenLogs,
}

/// An event that a template reports to its supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateEvent {
    /// The application is loaded, and workers can be forked. From a worker to its template: the
    /// worker has loaded the application.
    Ready,
    /// The application cannot be loaded; the log says more than the reason.
    LoadFailed {
        /// Code and sentence of the log message.
        reason: String,
    },
    /// A worker with the application loaded is running.
    WorkerStarted {
        /// Number of its block of scoreboard lines.
        block: u32,
        /// Its process id.
        pid: i32,
    },
    /// A worker could not be forked: no process or no memory is left.
    ForkFailed {
        /// Number of the block that stays free.
        block: u32,
        /// The error of fork(2).
        errno: i32,
    },
    /// A worker exited or was killed.
    WorkerExited {
        /// Its process id.
        pid: i32,
        /// Its exit status, as waitpid(2) returns it.
        status: i32,
    },
    /// A worker exited before it had loaded the application; the log says why.
    StartFailed {
        /// Number of the block that stays free.
        block: u32,
    },
    /// The application is loaded, but its import left open or running what forked processes must
    /// not share. The template exits.
    NotForkable,
    /// As [`TemplateEvent::NotForkable`], and only one process at a time may have it.
    OneProcess,
}

impl Message for TemplateCommand {
    const KIND: Kind = Kind::TemplateCommand;
}

impl Message for TemplateEvent {
    const KIND: Kind = Kind::TemplateEvent;
}

impl TemplateCommand {
    /// Encodes the command as a packet.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<[u8; PACKET_BYTES], EncodeError> {
        encode_packet(self)
    }

    /// Decodes a packet; `None` if it is not a command of this build.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        decode_packet(packet).ok()
    }
}

impl TemplateEvent {
    /// The event that the application cannot be loaded, for `reason`; a long one is cut.
    pub fn load_failed(reason: &str) -> Self {
        let end = (0..=reason.len().min(MAX_REASON_BYTES)).rev();
        let end = end.into_iter().find(|&end| reason.is_char_boundary(end)).unwrap_or(0);
        Self::LoadFailed { reason: reason[..end].to_owned() }
    }

    /// Encodes the event as a packet.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        encode(self)
    }

    /// Decodes a packet; `None` if it is not an event of this build.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        decode(packet).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_comes_back_as_it_was_sent() {
        for command in [
            TemplateCommand::Fork { block: 7 },
            TemplateCommand::CancelPending,
            TemplateCommand::ReopenLogs,
        ] {
            assert_eq!(TemplateCommand::decode(&command.encode().unwrap()), Some(command));
        }
        for event in [
            TemplateEvent::Ready,
            TemplateEvent::load_failed("W0301: `app` raised"),
            TemplateEvent::load_failed(&"é".repeat(10_000)),
            TemplateEvent::WorkerStarted { block: 3, pid: 4711 },
            TemplateEvent::ForkFailed { block: 3, errno: 11 },
            TemplateEvent::WorkerExited { pid: 4711, status: 0x8b },
            TemplateEvent::StartFailed { block: 3 },
            TemplateEvent::NotForkable,
            TemplateEvent::OneProcess,
        ] {
            let packet = event.encode().unwrap();
            assert!(packet.len() <= MAX_EVENT_BYTES, "{event:?}");
            assert_eq!(TemplateEvent::decode(&packet), Some(event));
            assert_eq!(TemplateCommand::decode(&packet), None);
        }
    }

    #[test]
    fn other_packets_are_ignored() {
        for other in [&b""[..], &[0; PACKET_BYTES], &[255; PACKET_BYTES], &[1; 63], &[1; 65]] {
            assert_eq!(TemplateCommand::decode(other), None);
            assert_eq!(TemplateEvent::decode(other), None);
        }
    }
}
