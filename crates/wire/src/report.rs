//! What the engine tells the gateway while a request runs: one packet a message, on a
//! `SOCK_SEQPACKET` socket.
//!
//! The gateway decides from these alone what it may still send: it never reads an application's own
//! bytes.

/// Longest packet in bytes; a longer text is cut.
pub const MAX_REPORT_BYTES: usize = 8192;

/// Exit status of an engine that has lost the descriptors which it would report by.
pub const EXIT_DESCRIPTORS_LOST: i32 = 213;

/// A message of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The engine is loaded and understands this gateway.
    Ready,
    /// The first bytes of the response leave now: from here on nobody else may write one.
    ResponseStarts,
    /// Nothing more of the response will be sent; the process still works on the request.
    ResponseEnded {
        /// All of it was written; otherwise it was cut.
        complete: bool,
    },
    /// The request is over.
    RequestEnded {
        /// All of it was written; otherwise it was cut.
        complete: bool,
    },
    /// All of the response has been written, and the process lives on by itself: its guard is to
    /// end, and the response ends after that. A process of a warm pool says so in place of the last
    /// [`Report::RequestEnded`].
    Released {
        /// All of it was written; otherwise it was cut.
        complete: bool,
    },
    /// Python or the engine could not get that far; the text says why.
    EngineFailed(String),
    /// Loading the application has come to an end, good or bad. A process that was forked with it
    /// does not say so.
    Loaded,
    /// The application has closed the response, or put another file in its place. Nothing has left.
    DescriptorsLost,
    /// The application is loaded, and what that left open is no obstacle to other processes with
    /// this application.
    Audited,
    /// The application is loaded, and one process at a time may have what that left open; the text
    /// lists it.
    OneProcess(String),
}

/// Why the gateway ends a request, as the engine is told before the signal comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The request took longer than it may.
    Timeout,
    /// The gateway has received SIGTERM: from a web server, or from somebody else.
    Terminated,
    /// The gateway has received SIGINT, as Ctrl-C sends it.
    Interrupted,
    /// The gateway has received SIGHUP: its terminal was closed.
    HungUp,
}

impl Report {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready => b"R".to_vec(),
            Self::ResponseStarts => b"H".to_vec(),
            Self::ResponseEnded { complete: true } => b"W".to_vec(),
            Self::ResponseEnded { complete: false } => b"V".to_vec(),
            Self::RequestEnded { complete: true } => b"D".to_vec(),
            Self::RequestEnded { complete: false } => b"C".to_vec(),
            Self::Released { complete: true } => b"L".to_vec(),
            Self::Released { complete: false } => b"K".to_vec(),
            Self::EngineFailed(text) => with_text(b'!', text),
            Self::Loaded => b"O".to_vec(),
            Self::DescriptorsLost => b"X".to_vec(),
            Self::Audited => b"A".to_vec(),
            Self::OneProcess(text) => with_text(b'1', text),
        }
    }

    /// Reads a packet; `None` if it is none of ours.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match packet {
            b"R" => Some(Self::Ready),
            b"H" => Some(Self::ResponseStarts),
            b"W" => Some(Self::ResponseEnded { complete: true }),
            b"V" => Some(Self::ResponseEnded { complete: false }),
            b"D" => Some(Self::RequestEnded { complete: true }),
            b"C" => Some(Self::RequestEnded { complete: false }),
            b"L" => Some(Self::Released { complete: true }),
            b"K" => Some(Self::Released { complete: false }),
            [b'!', text @ ..] => {
                Some(Self::EngineFailed(String::from_utf8_lossy(text).into_owned()))
            }
            b"O" => Some(Self::Loaded),
            b"X" => Some(Self::DescriptorsLost),
            b"A" => Some(Self::Audited),
            [b'1', text @ ..] => Some(Self::OneProcess(String::from_utf8_lossy(text).into_owned())),
            _ => None,
        }
    }
}

/// A packet with as much of `text` as there is room for.
fn with_text(kind: u8, text: &str) -> Vec<u8> {
    std::iter::once(kind).chain(text.bytes().take(MAX_REPORT_BYTES - 1)).collect()
}

impl StopReason {
    /// Every reason there is.
    pub const ALL: [Self; 4] = [Self::Timeout, Self::Terminated, Self::Interrupted, Self::HungUp];

    /// The packet.
    pub fn encode(self) -> &'static [u8] {
        match self {
            Self::Timeout => b"T",
            Self::Terminated => b"X",
            Self::Interrupted => b"I",
            Self::HungUp => b"U",
        }
    }

    /// Reads a packet; `None` if it is none of ours.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        match packet {
            b"T" => Some(Self::Timeout),
            b"X" => Some(Self::Terminated),
            b"I" => Some(Self::Interrupted),
            b"U" => Some(Self::HungUp),
            _ => None,
        }
    }

    /// The reason, as the argument of the exception in the application.
    pub fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Terminated => "terminated",
            Self::Interrupted => "interrupted",
            Self::HungUp => "hung up",
        }
    }

    /// The reason that [`StopReason::word`] gives as `word`.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stop| stop.word() == word)
    }

    /// What has happened to the request, as a log message begins.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Timeout => "the request took too long",
            Self::Terminated => "the request was ended from outside (SIGTERM)",
            Self::Interrupted => "the request was interrupted (SIGINT, as Ctrl-C sends it)",
            Self::HungUp => "the request was ended since its terminal was closed (SIGHUP)",
        }
    }

    /// Who does that, as a hint says it.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Terminated => {
                "the web server was stopped or has reached a time limit of its own, or somebody \
                 sent the signal"
            }
            Self::Timeout | Self::Interrupted | Self::HungUp => {
                "the request can be repeated by `wsgate call`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_went() {
        for report in [
            Report::Ready,
            Report::ResponseStarts,
            Report::ResponseEnded { complete: true },
            Report::ResponseEnded { complete: false },
            Report::RequestEnded { complete: true },
            Report::RequestEnded { complete: false },
            Report::Released { complete: true },
            Report::Released { complete: false },
            Report::EngineFailed("no such module".into()),
            Report::Loaded,
            Report::DescriptorsLost,
            Report::Audited,
            Report::OneProcess("module `a` (line 1) opened a file".into()),
        ] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        for stop in StopReason::ALL {
            assert_eq!(StopReason::decode(stop.encode()), Some(stop));
            assert_eq!(StopReason::of_word(stop.word()), Some(stop));
        }
    }

    #[test]
    fn strange_packets_are_nothing() {
        for packet in [&b""[..], b"r", b"RR", b"\0"] {
            assert_eq!(Report::decode(packet), None);
            assert_eq!(StopReason::decode(packet), None);
        }
    }

    #[test]
    fn a_long_text_is_cut_to_a_packet() {
        assert_eq!(Report::EngineFailed("x".repeat(20_000)).encode().len(), MAX_REPORT_BYTES);
    }
}
