//! What the supervisor of a pool and its template say to each other: packets of one size on a
//! `SOCK_SEQPACKET` socket.
//!
//! The template is Python and may be hurt by the application it has loaded; so the supervisor reads
//! nothing from it but these.

/// Length of a packet in bytes.
pub const PACKET_BYTES: usize = 16;

/// What the supervisor wants of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateCommand {
    /// Fork a worker for the slot with this number.
    Fork {
        /// Which lines of the scoreboard are the worker's.
        slot: u32,
    },
    /// Workers that are loading the application are not wanted any more.
    CancelPending,
    /// Open the logs again, as the scoreboard says.
    ReopenLogs,
}

/// What the template has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateEvent {
    /// The application could be loaded: workers can be forked. From a worker to its template: it
    /// has loaded the application.
    Ready,
    /// The application cannot be loaded; the log says why.
    LoadFailed,
    /// A worker is there, with the application.
    WorkerStarted {
        /// Which lines of the scoreboard are its.
        slot: u32,
        /// Its process.
        pid: i32,
    },
    /// A worker could not be forked, for want of processes or memory.
    ForkFailed {
        /// Which lines of the scoreboard would have been its.
        slot: u32,
    },
    /// A worker has ended.
    WorkerExited {
        /// Its process.
        pid: i32,
        /// How, as `waitpid` gives it.
        status: i32,
    },
    /// A worker ended before it had loaded the application; the log says why.
    StartFailed {
        /// Its place in the pool.
        slot: u32,
    },
    /// The application is loaded, but what it did meanwhile cannot be forked. The template ends.
    NotForkable,
    /// The same, and one process at a time may have what it did.
    OneProcess,
}

impl TemplateCommand {
    /// The packet.
    pub fn encode(self) -> [u8; PACKET_BYTES] {
        match self {
            Self::Fork { slot } => packet(1, slot.cast_signed(), 0),
            Self::CancelPending => packet(2, 0, 0),
            Self::ReopenLogs => packet(3, 0, 0),
        }
    }

    /// Reads a packet; `None` if it is none of ours.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match fields(packet)? {
            (1, slot, 0) => Some(Self::Fork { slot: slot.cast_unsigned() }),
            (2, 0, 0) => Some(Self::CancelPending),
            (3, 0, 0) => Some(Self::ReopenLogs),
            _ => None,
        }
    }
}

impl TemplateEvent {
    /// The packet.
    pub fn encode(self) -> [u8; PACKET_BYTES] {
        match self {
            Self::Ready => packet(1, 0, 0),
            Self::LoadFailed => packet(2, 0, 0),
            Self::WorkerStarted { slot, pid } => packet(3, slot.cast_signed(), pid),
            Self::ForkFailed { slot } => packet(4, slot.cast_signed(), 0),
            Self::WorkerExited { pid, status } => packet(5, pid, status),
            Self::StartFailed { slot } => packet(6, slot.cast_signed(), 0),
            Self::NotForkable => packet(7, 0, 0),
            Self::OneProcess => packet(8, 0, 0),
        }
    }

    /// Reads a packet; `None` if it is none of ours.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match fields(packet)? {
            (1, 0, 0) => Some(Self::Ready),
            (2, 0, 0) => Some(Self::LoadFailed),
            (3, slot, pid) => Some(Self::WorkerStarted { slot: slot.cast_unsigned(), pid }),
            (4, slot, 0) => Some(Self::ForkFailed { slot: slot.cast_unsigned() }),
            (5, pid, status) => Some(Self::WorkerExited { pid, status }),
            (6, slot, 0) => Some(Self::StartFailed { slot: slot.cast_unsigned() }),
            (7, 0, 0) => Some(Self::NotForkable),
            (8, 0, 0) => Some(Self::OneProcess),
            _ => None,
        }
    }
}

fn packet(kind: u32, first: i32, second: i32) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[..4].copy_from_slice(&kind.to_ne_bytes());
    packet[4..8].copy_from_slice(&first.to_ne_bytes());
    packet[8..12].copy_from_slice(&second.to_ne_bytes());
    packet
}

fn fields(packet: &[u8]) -> Option<(u32, i32, i32)> {
    let packet: &[u8; PACKET_BYTES] = packet.try_into().ok()?;
    let word = |at: usize| [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
    Some((u32::from_ne_bytes(word(0)), i32::from_ne_bytes(word(4)), i32::from_ne_bytes(word(8))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_comes_back_as_it_went() {
        for order in [
            TemplateCommand::Fork { slot: 7 },
            TemplateCommand::CancelPending,
            TemplateCommand::ReopenLogs,
        ] {
            assert_eq!(TemplateCommand::decode(&order.encode()), Some(order));
        }
        for news in [
            TemplateEvent::Ready,
            TemplateEvent::LoadFailed,
            TemplateEvent::WorkerStarted { slot: 3, pid: 4711 },
            TemplateEvent::ForkFailed { slot: 3 },
            TemplateEvent::WorkerExited { pid: 4711, status: 0x8b },
            TemplateEvent::StartFailed { slot: 3 },
            TemplateEvent::NotForkable,
            TemplateEvent::OneProcess,
        ] {
            assert_eq!(TemplateEvent::decode(&news.encode()), Some(news));
        }
    }

    #[test]
    fn strange_packets_are_nothing() {
        for strange in [&b""[..], &[0; PACKET_BYTES], &[255; PACKET_BYTES], &[1; 15], &[1; 17]] {
            assert_eq!(TemplateCommand::decode(strange), None);
            assert_eq!(TemplateEvent::decode(strange), None);
        }
    }
}
