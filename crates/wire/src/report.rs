//! Reports of the engine to the gateway while a request runs, and the gateway's reason to stop: one
//! packet a message, on a `SOCK_SEQPACKET` socket.
//!
//! The gateway decides from these reports alone what it may still send: it never reads an
//! application's own bytes. A packet that is not a report of this build is ignored, since an
//! application can find the descriptor.

use serde::{Deserialize, Serialize};

use crate::message::{
    EncodeError, HEADER_BYTES, Kind, Message, PACKET_BYTES, decode, decode_packet, encode,
    encode_packet, encode_text, payload,
};

/// Longest packet in bytes; a longer text is cut.
pub const MAX_REPORT_BYTES: usize = 8192;

/// Longest text in a report: header, variant and length have to fit, too.
const MAX_TEXT_BYTES: usize = MAX_REPORT_BYTES - HEADER_BYTES - 8;

/// Exit status of an engine whose descriptors for reports the application has closed.
pub const EXIT_DESCRIPTORS_LOST: i32 = 213;

/// A report of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The engine is loaded and understands this gateway.
    Ready,
    /// The first bytes of the response are about to be written: from here on the gateway must not
    /// write one.
    ResponseStarts,
    /// Nothing more of the response will be written; the process still works on the request.
    ResponseEnded {
        /// The response is complete; otherwise it was cut.
        complete: bool,
    },
    /// The request is finished.
    RequestEnded {
        /// The response is complete; otherwise it was cut.
        complete: bool,
    },
    /// The response has been written, and the process goes on without its gateway: first the
    /// gateway exits, then the response ends. A process of a warm pool sends this in place of the
    /// last [`Report::RequestEnded`].
    Released {
        /// The response is complete; otherwise it was cut.
        complete: bool,
    },
    /// Python could not load the engine, or the engine does not understand this gateway; the text
    /// says why. `src/python/bootstrap.py` sends this report.
    EngineFailed(String),
    /// The application is loaded, or failed to load. A process that was forked with the application
    /// does not send this.
    Loaded,
    /// The application asks for more time: the request may take at least so many milliseconds from
    /// now.
    TimeExtended(u64),
    /// The application has closed the descriptor of the response, or replaced the file behind it.
    /// Nothing has been sent.
    DescriptorsLost,
    /// The application is loaded, and other processes may load it meanwhile.
    Audited,
    /// The application is loaded, and left open what one process at a time may have; the text lists
    /// it.
    OneProcess(String),
}

/// Why the gateway stops a request. The engine receives the reason before the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The request reached its timeout.
    Timeout,
    /// The response had not begun within its own timeout.
    ResponseTimeout,
    /// The gateway received SIGTERM: from a web server, or from somebody else.
    Terminated,
    /// The gateway received SIGINT (Ctrl-C).
    Interrupted,
    /// The gateway received SIGHUP: its terminal was closed.
    HungUp,
    /// The gateway received another signal: of a timer, a limit or somebody.
    OtherSignal,
}

impl Message for Report {
    const KIND: Kind = Kind::Report;
}

impl Message for StopReason {
    const KIND: Kind = Kind::StopReason;
}

impl Report {
    /// Encodes the report as a packet of at most [`MAX_REPORT_BYTES`].
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        match self {
            Self::EngineFailed(text) => encode_text(Kind::EngineFailed, shortened(text)),
            Self::OneProcess(text) if text.len() > MAX_TEXT_BYTES => {
                encode(&Self::OneProcess(shortened(text).to_owned()))
            }
            report => encode(report),
        }
    }

    /// Decodes a packet; `None` if it is not a report of this build.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        if let Ok((text, [])) = payload(Kind::EngineFailed, packet) {
            return Some(Self::EngineFailed(String::from_utf8_lossy(text).into_owned()));
        }
        decode(packet).ok()
    }
}

/// As much of the beginning of `text` as a packet holds.
fn shortened(text: &str) -> &str {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

impl StopReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Timeout,
        Self::ResponseTimeout,
        Self::Terminated,
        Self::Interrupted,
        Self::HungUp,
        Self::OtherSignal,
    ];

    /// Has the request reached a time limit of wsgate?
    pub fn is_timeout(self) -> bool {
        matches!(self, Self::Timeout | Self::ResponseTimeout)
    }

    /// Encodes the reason as a packet.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self) -> Result<[u8; PACKET_BYTES], EncodeError> {
        encode_packet(self)
    }

    /// Decodes a packet; `None` if it is not a reason of this build.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        decode_packet(packet).ok()
    }

    /// The reason as the argument of the exception that the application sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ResponseTimeout => "response timeout",
            Self::Terminated => "terminated",
            Self::Interrupted => "interrupted",
            Self::HungUp => "hung up",
            Self::OtherSignal => "signal",
        }
    }

    /// The reason whose [`StopReason::as_str`] is `text`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// The first part of a log message about the stopped request.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Timeout => "the request took too long",
            Self::ResponseTimeout => "the response did not begin in time",
            Self::Terminated => "the request was stopped by SIGTERM",
            Self::Interrupted => "the request was interrupted (SIGINT, as Ctrl-C sends it)",
            Self::HungUp => "the request was stopped because its terminal was closed (SIGHUP)",
            Self::OtherSignal => "the request was stopped by a signal that its gateway received",
        }
    }

    /// The hint of a log message about the stopped request.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Terminated => {
                "the web server was stopped or has reached a time limit of its own, or somebody \
                 sent the signal"
            }
            Self::OtherSignal => {
                "a timer or a limit of the web server, such as RLIMIT_CPU, or somebody sent the \
                 signal"
            }
            Self::Timeout | Self::ResponseTimeout | Self::Interrupted | Self::HungUp => {
                "the request can be repeated by `wsgate call`"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_back_as_it_was_sent() {
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
            Report::TimeExtended(600_000),
            Report::DescriptorsLost,
            Report::Audited,
            Report::OneProcess("module `a` (line 1) opened a file".into()),
        ] {
            let packet = report.encode().unwrap();
            assert_eq!(StopReason::decode(&packet), None);
            for length in 0..packet.len() {
                assert_eq!(Report::decode(&packet[..length]), None);
            }
            assert_eq!(Report::decode(&packet), Some(report));
        }
        for reason in StopReason::ALL {
            assert_eq!(StopReason::decode(&reason.encode().unwrap()), Some(reason));
            assert_eq!(StopReason::parse(reason.as_str()), Some(reason));
        }
    }

    #[test]
    fn other_packets_are_ignored() {
        for packet in [&b""[..], b"R", b"!text", b"\0", &[0; HEADER_BYTES], &[255; 64]] {
            assert_eq!(Report::decode(packet), None);
            assert_eq!(StopReason::decode(packet), None);
        }
    }

    #[test]
    fn a_long_text_is_cut_to_a_packet() {
        let text = "\u{e9}".repeat(20_000);
        for report in [Report::EngineFailed(text.clone()), Report::OneProcess(text.clone())] {
            let packet = report.encode().unwrap();
            assert!((MAX_REPORT_BYTES - 16..=MAX_REPORT_BYTES).contains(&packet.len()));
            let Some(Report::EngineFailed(cut) | Report::OneProcess(cut)) = Report::decode(&packet)
            else {
                panic!("{report:?}");
            };
            assert!(text.starts_with(&cut) && cut.len() > 8000);
        }
    }

    #[test]
    fn a_text_that_is_not_utf_8_is_shown_all_the_same() {
        let mut packet = Report::EngineFailed("??".into()).encode().unwrap();
        packet[HEADER_BYTES] = 0xff;
        assert_eq!(Report::decode(&packet), Some(Report::EngineFailed("\u{fffd}?".into())));
    }
}
