//! The body behind `wsgi.input`: what has come of it, and where in it the application reads.
//!
//! A body that fits [`MAX_KEPT_BYTES`] is kept, so that the application can go back in it (Zope
//! repeats a request after a conflict, for one). A greater one can be read again only where its
//! source lies in a file.

use std::{collections::TryReserveError, io, mem};

use crate::wsgi::BodySource;

/// Bytes that are asked of the source at a time.
const READ_SIZE: usize = 64 * 1024;

/// Bytes of the longest body that is kept as a whole.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Bytes that room is made for before they have come.
const MAX_RESERVED: usize = 1 << 20;

/// A request body, as far as it has come.
pub(super) struct BufferedBody {
    /// Gone when the request is over: its descriptors may serve another by then.
    source: Option<Box<dyn BodySource>>,
    /// What has come from `base` on, read or not.
    buffer: Vec<u8>,
    /// Where in the body the buffer begins.
    base: u64,
    /// Where in the body the application reads.
    position: u64,
    /// Bytes of the whole body, if that is known.
    length: Option<u64>,
    /// The buffer holds all that has come.
    keeps: bool,
    ended: bool,
    /// Reading failed: the body has not come whole.
    cut: bool,
    /// The application has closed the stream.
    closed: bool,
}

/// What a reading step has come to.
pub(super) enum ReadStep {
    /// So many bytes have come; none if the body is over.
    Got(usize),
    /// A signal came; Python wants to see it before the next step.
    Signal,
    /// The request has reached its deadline.
    Late,
    /// The request is over.
    Closed,
    Failed(io::Error),
}

/// What going to another place in the body has come to.
pub(super) enum SeekOutcome {
    /// The application reads there now.
    Done,
    /// More of the body has to come first.
    Later,
    /// What is asked for is not kept.
    Impossible,
}

impl BufferedBody {
    /// Nothing has come of the body that `source` gives.
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

    /// Ends the stream: the application reads nothing more after the request.
    pub(super) fn end(&mut self) {
        self.source = None;
        self.forget();
    }

    /// Has a read failed?
    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }

    /// Closes the stream: the application reads no more of it.
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

    /// Where in the body the application reads, if it may read elsewhere.
    pub(super) fn place(&self) -> Option<u64> {
        (self.keeps || self.is_in_file()).then_some(self.position)
    }

    /// Is it certain that the application may read at any place?
    pub(super) fn is_seekable(&self) -> bool {
        (self.keeps && (self.ended || self.length.is_some())) || self.is_in_file()
    }

    fn is_in_file(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_in_file())
    }

    /// Where the body ends, if that is known already.
    pub(super) fn length(&self) -> Option<u64> {
        self.length.or_else(|| self.ended.then_some(self.received()))
    }

    /// Where in the body the buffer ends.
    fn received(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// How many bytes are still to be read, as far as it is known and worth making room for at
    /// once.
    pub(super) fn expected(&self) -> usize {
        let left = self.length.unwrap_or(0).saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(MAX_RESERVED)
    }

    /// What has come and was not read.
    pub(super) fn unread(&self) -> &[u8] {
        let start = self.position.saturating_sub(self.base);
        usize::try_from(start).ok().and_then(|start| self.buffer.get(start..)).unwrap_or_default()
    }

    /// The first `count` bytes of what was not read are read now.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count as u64;
    }

    /// Moves bytes from the buffer to `taken`, at most `most` of them and none behind `until`.
    /// Returns whether `until` was met.
    ///
    /// # Errors
    /// If there is no memory for them. Nothing is moved then.
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

    /// Reads what comes next into `into`, past the buffer. All that the buffer holds has to be
    /// read, and nothing is kept of it.
    pub(super) fn read(&mut self, into: &mut [u8]) -> ReadStep {
        self.buffer.clear();
        let step = self.receive(into);
        if let ReadStep::Got(count) = step {
            self.advance(count);
        }
        self.base = self.position;
        step
    }

    /// Reads what comes next into the buffer. All that the buffer holds has to be read, if the body
    /// is greater than what is kept.
    pub(super) fn fill(&mut self) -> ReadStep {
        if !self.may_keep_more() {
            self.keeps = false;
            self.buffer.clear();
            self.base = self.position;
        }
        self.extend()
    }

    /// May more of the body come without losing what is kept?
    pub(super) fn may_keep_more(&self) -> bool {
        self.keeps && (self.ended || self.buffer.len() < MAX_KEPT_BYTES)
    }

    fn extend(&mut self) -> ReadStep {
        let held = self.buffer.len();
        let missing = self.length.map_or(u64::MAX, |length| length.saturating_sub(self.received()));
        let piece =
            usize::try_from(missing).map_or(READ_SIZE, |missing| missing.clamp(1, READ_SIZE));
        let made_room = if self.keeps && held == 0 {
            // A buffer that grows piece by piece is copied again and again.
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

    /// Goes to `target`, which may lie behind the end.
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
