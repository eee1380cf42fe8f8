//! Division of a stream into records (FastCGI 1.0, 3.3).
//!
//! This module makes headers only, so that contents are sent without copying: `writev` of header,
//! content and padding, or a header and then `sendfile`.

use crate::record::{Header, MAX_CONTENT, RecordType, RequestId};

/// Content length of each record but the last, in bytes. This is the longest content that needs no
/// padding to keep the next record aligned to eight bytes, as the specification recommends.
const FULL: u16 = 0xfff8;

/// The bytes of padding.
static PADDING: [u8; 7] = [0; 7];

/// The header and the padding of one record.
///
/// Send [`Frame::header`], then [`Frame::content_length`] bytes of content, then
/// [`Frame::padding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    header: [u8; Header::LEN],
    content_length: u16,
    padding_length: u8,
}

/// The records for the next bytes of a stream. No bytes need no record, because an empty record
/// would end the stream.
#[derive(Clone, Debug)]
pub struct Frames {
    record_type: RecordType,
    id: RequestId,
    padded: bool,
    /// Bytes of content that are not in a record yet.
    left: usize,
}

impl Frame {
    /// The bytes before the content.
    pub const fn header(&self) -> &[u8; Header::LEN] {
        &self.header
    }

    /// Length of the content in bytes, 1 to 65535.
    pub fn content_length(&self) -> usize {
        self.content_length.into()
    }

    /// The bytes after the content: none without [`Output::padded`](crate::Output::padded), seven
    /// at most.
    pub fn padding(&self) -> &'static [u8] {
        &PADDING[..self.padding_length.into()]
    }
}

impl Frames {
    pub(crate) const fn new(
        record_type: RecordType,
        id: RequestId,
        padded: bool,
        length: usize,
    ) -> Self {
        Self { record_type, id, padded, left: length }
    }

    /// Appends all of the records with `content` to `out`. The length of `content` is the length
    /// given to [`Frames::new`].
    pub(crate) fn append(self, content: &[u8], out: &mut Vec<u8>) {
        let mut rest = content;
        for frame in self {
            let (content, after) = rest.split_at(frame.content_length());
            rest = after;
            out.extend_from_slice(frame.header());
            out.extend_from_slice(content);
            out.extend_from_slice(frame.padding());
        }
    }
}

impl Iterator for Frames {
    type Item = Frame;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let content_length = match u16::try_from(self.left) {
            Ok(0) => return None,
            Ok(length) => length,
            Err(_) => FULL,
        };
        self.left -= usize::from(content_length);
        // The low three bits of the negated length are the distance to the next multiple of eight.
        let padding_length =
            if self.padded { (content_length.wrapping_neg() & 7).to_le_bytes()[0] } else { 0 };
        let header = Header {
            record_type: self.record_type,
            request_id: Some(self.id),
            content_length,
            padding_length,
        }
        .to_bytes();
        Some(Frame { header, content_length, padding_length })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = if self.left <= MAX_CONTENT {
            usize::from(self.left > 0)
        } else {
            // Full records until the rest fits in one record.
            (self.left - MAX_CONTENT).div_ceil(FULL.into()) + 1
        };
        (count, Some(count))
    }
}

impl ExactSizeIterator for Frames {}
impl std::iter::FusedIterator for Frames {}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(padded: bool, length: usize) -> Frames {
        Frames::new(RecordType::Stdout, RequestId::MIN, padded, length)
    }

    #[test]
    fn f33_a_stretch_of_no_bytes_takes_no_record() {
        assert_eq!(frames(true, 0).next(), None);
    }

    #[test]
    fn f06_up_to_65535_bytes_take_one_record_and_more_are_divided() {
        for (length, contents) in [
            (1, &[1][..]),
            (65535, &[65535]),
            (65536, &[65528, 8]),
            (65528 + 65535, &[65528, 65535]),
            (65528 + 65536, &[65528, 65528, 8]),
        ] {
            let frames = frames(false, length);
            assert_eq!(frames.len(), contents.len(), "{length}");
            assert_eq!(frames.map(|frame| frame.content_length()).collect::<Vec<_>>(), contents);
        }
    }

    #[test]
    fn f08_padded_records_end_at_a_multiple_of_eight_and_others_with_their_content() {
        for length in (1..=64).chain(65520..65600) {
            for frame in frames(true, length) {
                assert_eq!((frame.content_length() + frame.padding().len()) % 8, 0);
                assert!(frame.padding().len() < 8);
                assert_eq!(usize::from(frame.header()[6]), frame.padding().len());
            }
            assert!(
                frames(false, length)
                    .all(|frame| frame.padding().is_empty() && frame.header()[6] == 0)
            );
        }
    }
}
