//! Copies of log messages for a client that waits for them (`wsgate call`).

use std::sync::{Mutex, PoisonError};

/// How many bytes a transcript holds until they are taken.
const MAX_TRANSCRIPT_BYTES: usize = 64 * 1024;

/// Replaces the text that the transcript cannot hold.
const TRUNCATION_NOTE: &str = "(more was written; the pool's own log has it)\n";

/// A copy of the log messages about one request, which a client takes piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    held: Mutex<TranscriptPieces>,
}

#[derive(Debug, Default)]
struct TranscriptPieces {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Transcript {
    /// Adds as much of `piece` as there is room for.
    pub(crate) fn add(&self, piece: &[u8]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(room) = MAX_TRANSCRIPT_BYTES.checked_sub(held.bytes).filter(|_| !piece.is_empty())
        else {
            return;
        };
        let mut copy = piece[..piece.len().min(room)].to_vec();
        if piece.len() > room {
            // The transcript is now beyond its limit, so the note is added once.
            copy.extend(TRUNCATION_NOTE.as_bytes());
        }
        held.bytes += copy.len();
        held.pieces.push(copy);
    }

    /// Takes all text added since the last call.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner)).pieces
    }
}
