//! Splits the bytes of a connection into headers and contents of records (FastCGI 1.0, 3.3). The
//! bytes may arrive in pieces of any length.
//!
//! Both sides of a connection use this reader, which does not interpret the records.

use std::mem;

use crate::record::{Header, UnknownVersion, VERSION_1};

/// The position in a connection: in a header, in the content of a record, or in its padding.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The first bytes of a header that has arrived in part.
    head: [u8; Header::LEN],
    /// Number of bytes in `head`.
    filled: usize,
    /// Bytes of the current record's content that have not arrived.
    content: usize,
    /// Bytes of the current record's padding that have not arrived.
    padding: usize,
    /// Content that [`Reader::gather`] has collected.
    gathered: Vec<u8>,
}

impl Reader {
    /// A reader at the first byte of a connection.
    pub(crate) const fn new() -> Self {
        Self { head: [0; Header::LEN], filled: 0, content: 0, padding: 0, gathered: Vec::new() }
    }

    /// Bytes of the current record's content that have not arrived.
    pub(crate) fn remaining(&self) -> usize {
        self.content
    }

    /// Is the position between two records, or in padding?
    pub(crate) fn is_between_records(&self) -> bool {
        self.content == 0 && self.filled == 0
    }

    /// Takes the current record's content from `input`, as far as it has arrived.
    #[inline]
    pub(crate) fn content<'i>(&mut self, input: &mut &'i [u8]) -> &'i [u8] {
        let (content, rest) = input.split_at(self.content.min(input.len()));
        *input = rest;
        self.content -= content.len();
        content
    }

    /// Collects the pieces of the current record's content; `Some` when the content is complete.
    pub(crate) fn gather(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        self.gathered.extend_from_slice(piece);
        (self.content == 0).then(|| mem::take(&mut self.gathered))
    }

    /// Bytes in the buffer of [`Reader::gather`].
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.capacity()
    }

    /// Skips `length` bytes of content that the caller has read itself, at most the remaining ones.
    pub(crate) fn took(&mut self, length: usize) {
        self.content -= length;
    }

    /// Takes the next header from `input`, after the content of the previous record. `None`: all of
    /// the input is consumed, and the header is incomplete. A wrong version is an error as soon as
    /// its byte arrives.
    #[inline]
    pub(crate) fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, UnknownVersion> {
        if self.padding > 0 {
            let (padding, rest) = input.split_at(self.padding.min(input.len()));
            *input = rest;
            self.padding -= padding.len();
        }
        if self.filled == 0
            && let Some((head, rest)) = input.split_first_chunk()
        {
            *input = rest;
            return self.open(*head).map(Some);
        }
        self.header_in_pieces(input)
    }

    fn header_in_pieces(&mut self, input: &mut &[u8]) -> Result<Option<Header>, UnknownVersion> {
        let missing = &mut self.head[self.filled..];
        let (piece, rest) = input.split_at(missing.len().min(input.len()));
        missing[..piece.len()].copy_from_slice(piece);
        *input = rest;
        self.filled += piece.len();
        if self.filled == Header::LEN {
            self.filled = 0;
            return self.open(self.head).map(Some);
        }
        if self.filled > 0 && self.head[0] != VERSION_1 {
            return Err(UnknownVersion(self.head[0]));
        }
        Ok(None)
    }

    fn open(&mut self, head: [u8; Header::LEN]) -> Result<Header, UnknownVersion> {
        let header = Header::from_bytes(&head)?;
        self.content = header.content_length.into();
        self.padding = header.padding_length.into();
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordType, RequestId};

    const RECORD: &[u8] = b"\x01\x05\0\x01\0\x03\x02\0abcPP";

    #[test]
    fn f53_a_header_in_pieces_is_the_header_in_one() {
        let whole = Reader::new().header(&mut &RECORD[..8]).unwrap();
        assert_eq!(whole.map(|header| header.record_type), Some(RecordType::Stdin));
        for split in 0..8 {
            let mut reader = Reader::new();
            let (mut first, mut second) = RECORD[..8].split_at(split);
            assert_eq!(reader.header(&mut first), Ok(None));
            assert_eq!(reader.is_between_records(), split == 0);
            assert_eq!(reader.header(&mut second), Ok(whole));
            assert!(first.is_empty() && second.is_empty());
        }
    }

    #[test]
    fn f07_padding_is_skipped_wherever_it_is_split() {
        for split in 0..=2 {
            let mut reader = Reader::new();
            let mut input = &RECORD[..11 + split];
            assert_eq!(
                reader.header(&mut input).unwrap().map(|header| header.request_id),
                Some(RequestId::new(1))
            );
            assert_eq!(reader.content(&mut input), b"abc");
            assert!(reader.is_between_records());
            assert_eq!(reader.header(&mut input), Ok(None));
            let mut rest = &[&RECORD[11 + split..], RECORD].concat()[..];
            assert!(reader.header(&mut rest).unwrap().is_some(), "split at {split}");
            assert_eq!(reader.content(&mut rest), b"abc");
        }
    }

    #[test]
    fn f09_a_wrong_version_is_noticed_at_its_first_byte() {
        assert_eq!(Reader::new().header(&mut &b"G"[..]), Err(UnknownVersion(b'G')));
        assert_eq!(Reader::new().header(&mut &b"GET / HTTP/1.0"[..]), Err(UnknownVersion(b'G')));
    }
}
