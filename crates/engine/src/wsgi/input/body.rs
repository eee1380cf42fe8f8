//! The buffered body behind `wsgi.input`: the received bytes, and the read position of the
//! application.
//!
//! A body of up to [`MAX_KEPT_BYTES`] is kept, so that the application can seek back. For example,
//! Zope repeats a request after a conflict. A longer body can be read again only if its source is a
//! file.

use std::{collections::TryReserveError, io, mem};

use crate::wsgi::BodySource;

/// How many bytes one read requests from the source.
const READ_SIZE: usize = 64 * 1024;

/// The length of the longest body that is kept completely, in bytes.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// How many bytes are reserved before they are received.
const MAX_RESERVED: usize = 1 << 20;

/// A request body, as far as it was received.
pub(super) struct BufferedBody {
    /// `None` after the request, since another request may use its descriptors by then.
    source: Option<Box<dyn BodySource>>,
    /// The bytes received from `base` on, whether read or not.
    buffer: Vec<u8>,
    /// The position of the buffer in the body.
    base: u64,
    /// The read position of the application in the body.
    position: u64,
    /// The length of the whole body in bytes, if known.
    length: Option<u64>,
    /// The buffer holds the whole body received so far.
    keeps: bool,
    ended: bool,
    /// Reading failed, so the body is incomplete.
    cut: bool,
    /// The application has closed the stream.
    closed: bool,
}

/// The result of one read from the source.
pub(super) enum ReadStep {
    /// The number of received bytes; 0 at the end of the body.
    Got(usize),
    /// A signal arrived, which Python has to handle before the next read.
    Signal,
    /// The request has reached its deadline.
    Late,
    /// The request is over.
    Closed,
    Failed(io::Error),
}

/// The result of a seek in the body.
pub(super) enum SeekOutcome {
    /// The read position is the requested position.
    Done,
    /// More of the body has to be received first.
    Later,
    /// The requested bytes are not kept.
    Impossible,
}

impl BufferedBody {
    /// A body of which nothing was received yet, with the source `source`.
    pub(super) fn new(source: Box<dyn BodySource>) -> Self {
        let length = source.length();
        Self {
            source: Some(source),
            buffer: Vec::new(),
            base: 0,
            position: 0,
            length,
            keeps: length.is_none_or(|length| length <= MAX_KEPT_BYTES as u64),
            ended: false,
            cut: false,
            closed: false,
        }
    }

    /// Ends the stream: the application cannot read after the request.
    pub(super) fn end(&mut self) {
        self.source = None;
        self.forget();
    }

    /// Has a read failed?
    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }

    /// Closes the stream: the application cannot read from it any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.forget();
    }

    fn forget(&mut self) {
        self.base = self.position;
        self.keeps = false;
        self.buffer = Vec::new();
    }

    /// Has the application closed the stream?
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Is the request over?
    pub(super) fn is_over(&self) -> bool {
        self.source.is_none()
    }

    /// Is the whole body kept in memory?
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The read position, if the application may seek.
    pub(super) fn place(&self) -> Option<u64> {
        (self.keeps || self.is_in_file()).then_some(self.position)
    }

    /// Is it certain that the application may seek to any position?
    pub(super) fn is_seekable(&self) -> bool {
        (self.keeps && (self.ended || self.length.is_some())) || self.is_in_file()
    }

    fn is_in_file(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_in_file())
    }

    /// The length of the body, if already known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length.or_else(|| self.ended.then_some(self.received()))
    }

    /// The position in the body at which the buffer ends.
    fn received(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// How many bytes are left to read, as far as known, up to [`MAX_RESERVED`].
    pub(super) fn expected(&self) -> usize {
        let left = self.length.unwrap_or(0).saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(MAX_RESERVED)
    }

    /// The received bytes that were not read yet.
    pub(super) fn unread(&self) -> &[u8] {
        let start = self.position.saturating_sub(self.base);
        usize::try_from(start).ok().and_then(|start| self.buffer.get(start..)).unwrap_or_default()
    }

    /// Advances the read position by `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count as u64;
    }

    /// Moves bytes from the buffer to `taken`: at most `most` bytes, up to the first byte `until`.
    /// Returns whether `until` was found.
    ///
    /// # Errors
    /// If memory is short. Then no byte is moved.
    pub(super) fn take(
        &mut self,
        most: usize,
        until: Option<u8>,
        taken: &mut Vec<u8>,
    ) -> Result<bool, TryReserveError> {
        let available = &self.unread()[..self.unread().len().min(most)];
        let end = until.and_then(|byte| available.iter().position(|&other| other == byte));
        let count = end.map_or(available.len(), |position| position + 1);
        taken.try_reserve(count)?;
        taken.extend_from_slice(&available[..count]);
        self.advance(count);
        Ok(end.is_some())
    }

    /// Reads from the source directly into `into`, without keeping the bytes. The application must
    /// have read the whole buffer before.
    pub(super) fn read(&mut self, into: &mut [u8]) -> ReadStep {
        self.buffer.clear();
        let step = self.receive(into);
        if let ReadStep::Got(count) = step {
            self.advance(count);
        }
        self.base = self.position;
        step
    }

    /// Reads from the source into the buffer. If the body is too long to be kept, the application
    /// must have read the whole buffer before.
    pub(super) fn fill(&mut self) -> ReadStep {
        if !self.may_keep_more() {
            self.keeps = false;
            self.buffer.clear();
            self.base = self.position;
        }
        self.extend()
    }

    /// Can more of the body be received without losing the kept bytes?
    pub(super) fn may_keep_more(&self) -> bool {
        self.keeps && (self.ended || self.buffer.len() < MAX_KEPT_BYTES)
    }

    fn extend(&mut self) -> ReadStep {
        let held = self.buffer.len();
        let missing = self.length.map_or(u64::MAX, |length| length.saturating_sub(self.received()));
        let piece =
            usize::try_from(missing).map_or(READ_SIZE, |missing| missing.clamp(1, READ_SIZE));
        let made_room = if self.keeps && held == 0 {
            // Growing the buffer piece by piece would copy it repeatedly.
            let room = usize::try_from(missing)
                .map_or(piece, |missing| missing.clamp(piece, MAX_KEPT_BYTES));
            self.buffer.try_reserve_exact(room)
        } else {
            self.buffer.try_reserve(piece)
        };
        if made_room.is_err() {
            return ReadStep::Failed(io::ErrorKind::OutOfMemory.into());
        }
        let mut buffer = mem::take(&mut self.buffer);
        buffer.resize(held + piece, 0);
        let step = self.receive(&mut buffer[held..]);
        buffer.truncate(held + if let ReadStep::Got(count) = step { count } else { 0 });
        self.buffer = buffer;
        self.ended |= self.length.is_some_and(|length| length > 0 && length == self.received());
        step
    }

    fn receive(&mut self, into: &mut [u8]) -> ReadStep {
        if self.ended {
            return ReadStep::Got(0);
        }
        let Some(source) = &mut self.source else {
            return ReadStep::Closed;
        };
        match source.read(into) {
            Ok(count) => {
                self.ended = count == 0;
                ReadStep::Got(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadStep::Signal,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => ReadStep::Late,
            Err(error) => {
                self.cut = true;
                ReadStep::Failed(error)
            }
        }
    }

    /// Moves the read position to `target`, which may be beyond the end.
    pub(super) fn seek(&mut self, target: u64) -> SeekOutcome {
        if self.keeps {
            if target > self.received() && !self.ended {
                return if self.may_keep_more() {
                    SeekOutcome::Later
                } else {
                    SeekOutcome::Impossible
                };
            }
        } else {
            let length = self.length.unwrap_or(u64::MAX);
            if !self.source.as_mut().is_some_and(|source| source.seek(target.min(length))) {
                return SeekOutcome::Impossible;
            }
            self.buffer.clear();
            self.base = target;
            self.ended = false;
        }
        self.position = target;
        SeekOutcome::Done
    }
}
