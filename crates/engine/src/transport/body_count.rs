//! How much of a request body was received, and how much the request announces.

use std::io;

use crate::wsgi::BodyLength;

/// The received bytes of a request body.
pub(super) struct BodyCount {
    /// CONTENT_LENGTH, if it is known.
    announced: Option<u64>,
    received: u64,
}

impl BodyCount {
    /// No byte of a body with the length `length` was received.
    pub(super) fn new(length: BodyLength) -> Self {
        let announced = match length {
            BodyLength::Exactly(length) => Some(length),
            BodyLength::UntilEnd => None,
        };
        Self { announced, received: 0 }
    }

    /// The length of the whole body, if it is known.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// The number of received bytes.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Has the whole announced body been received? A body of unknown length ends with its stream.
    pub(super) fn is_complete(&self) -> bool {
        self.announced == Some(self.received)
    }

    /// Maximum number of bytes to read now: never more than CONTENT_LENGTH (RFC 3875, 4.2; FastCGI
    /// 1.0, 6.2).
    pub(super) fn allowed(&self, wanted: usize) -> usize {
        match self.announced {
            Some(announced) => {
                let left = announced.saturating_sub(self.received);
                usize::try_from(left).map_or(wanted, |left| left.min(wanted))
            }
            None => wanted,
        }
    }

    /// Counts `count` bytes as received.
    pub(super) fn add(&mut self, count: usize) {
        self.received += count as u64;
    }

    /// Continues after the first `position` bytes, when a body in a file is read again.
    pub(super) fn continue_at(&mut self, position: u64) {
        self.received = position;
    }

    /// The error of a body that ended too early.
    pub(super) fn ended_early(&self) -> io::Error {
        let received = self.received;
        let sentence = match self.announced {
            Some(announced) => {
                format!("the request body ended after {received} of {announced} bytes")
            }
            None => format!("the connection ended after {received} bytes of the request body"),
        };
        io::Error::new(io::ErrorKind::UnexpectedEof, sentence)
    }
}
