//! The parameters of a request, whole and checked (FastCGI 1.0, 5.2 and 6.1).

use std::{error, fmt};

use crate::pairs::{Pairs, skip_pair};

/// The parameters of one request, in one buffer and in the order in which they arrived.
///
/// The buffer is known to hold whole pairs, so reading it cannot fail. Hand it back with
/// [`Connection::reuse`](crate::Connection::reuse) when it is not needed any more: then a
/// connection allocates for its first request only.
///
/// The order means nothing (FastCGI 1.0, 5.2). Of two parameters with one name the *last* wins:
/// [`Params::get`] does so, and so does a map that is filled from [`Params::iter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Whole pairs; `Params::new` is the only way in.
    bytes: Vec<u8>,
    count: usize,
    /// There are more zeros in them than there would be if no name and no value held one.
    may_hold_nul: bool,
}

/// Why the parameters of a request cannot be used. The request can be answered all the same, since
/// its end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// The stream had more bytes than [`Limits::params_bytes`](crate::Limits::params_bytes). None
    /// of them were kept, and the rest was dropped as it came, since no response may begin before
    /// the stream is over (FastCGI 1.0, 6.2). Answer with status 431.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// There were more pairs than [`Limits::params_count`](crate::Limits::params_count). Answer
    /// with status 431.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The stream ended within a pair, or a length in it lied (FastCGI 1.0, 3.4). Answer with
    /// status 400.
    Truncated {
        /// Where the pair begins, in bytes from the start of the stream.
        at: usize,
    },
}

/// The parameters in the order in which they arrived; see [`Params::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    pairs: Pairs<'a>,
    left: usize,
}

impl Params {
    /// Takes the bytes of a whole stream, if they are at most `limit` whole pairs.
    pub(crate) fn new(bytes: Vec<u8>, limit: usize) -> Result<Self, ParamsError> {
        let (mut count, mut in_lengths) = (0, 0);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let Some((lengths, behind)) = skip_pair(rest) else {
                return Err(ParamsError::Truncated { at: bytes.len() - rest.len() });
            };
            if count == limit {
                return Err(ParamsError::TooMany { limit });
            }
            rest = behind;
            count += 1;
            in_lengths += zeros_in_length(lengths.0) + zeros_in_length(lengths.1);
        }
        // Counting all zeros in one go is many times faster than looking at each name and value.
        // Beside those in the text there are only zeros in the lengths, and these are the fewest
        // when each length is written in its shortest form. In pieces whose count fits a byte, of a
        // length that registers divide, many are counted at a time.
        let in_piece =
            |piece: &[u8]| usize::from(piece.iter().map(|&byte| u8::from(byte == 0)).sum::<u8>());
        let zeros = bytes.chunks(192).map(in_piece).sum::<usize>();
        Ok(Self { bytes, count, may_hold_nul: zeros != in_lengths })
    }

    /// How many there are, repeated names included.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All names with their values, repeated names included.
    pub fn iter(&self) -> Iter<'_> {
        Iter { pairs: Pairs::new(&self.bytes), left: self.count }
    }

    /// The value of `name`, compared byte by byte; the last one if there are several.
    ///
    /// Looks at every parameter. Who wants more than a few of them should walk over all once.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().filter(|(candidate, _)| *candidate == name).map(|(_, value)| value).last()
    }

    /// The first parameter with a NUL byte in its name or value; `None` if all can become
    /// `environ(7)`.
    ///
    /// Textual values hold none (FastCGI 1.0, 6.1). A value with one would be cut short in the
    /// environment of a process, so reject the request before building such an environment.
    pub fn with_nul(&self) -> Option<(&[u8], &[u8])> {
        if !self.may_hold_nul {
            return None;
        }
        self.iter().find(|(name, value)| name.contains(&0) || value.contains(&0))
    }

    /// The pairs as they came over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, to be used for something else.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// Zeros in the shortest form of a length.
#[inline]
fn zeros_in_length(length: usize) -> usize {
    if length <= 0x7f {
        return usize::from(length == 0);
    }
    // A length in a pair has 31 bits.
    let length = u32::try_from(length).unwrap_or(u32::MAX) | 0x8000_0000;
    length.to_be_bytes().iter().filter(|&&byte| byte == 0).count()
}

impl<'a> IntoIterator for &'a Params {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        // `Params::new` has seen every pair, so there is no error to lose.
        let pair = self.pairs.next()?.ok()?;
        self.left -= 1;
        Some(pair)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
impl std::iter::FusedIterator for Iter<'_> {}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "more than `{limit}` bytes of parameters"),
            Self::TooMany { limit } => write!(f, "more than `{limit}` parameters"),
            Self::Truncated { at } => write!(f, "the parameter at byte `{at}` is cut off"),
        }
    }
}

impl error::Error for ParamsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(bytes: &[u8]) -> Params {
        Params::new(bytes.to_vec(), 10).unwrap()
    }

    #[test]
    fn f24_of_two_values_the_last_wins_and_both_are_listed() {
        let params = params(b"\x01\x01A1\x01\x01B2\x01\x01A3");
        assert_eq!(params.get(b"A"), Some(&b"3"[..]));
        assert_eq!(params.get(b"a"), None);
        assert_eq!(params.iter().map(|(name, _)| name).collect::<Vec<_>>(), [b"A", b"B", b"A"]);
        assert_eq!((params.len(), params.iter().len(), params.is_empty()), (3, 3, false));
    }

    #[test]
    fn f35_a_nul_in_a_name_or_value_is_found() {
        assert_eq!(params(b"\x01\x01A1\0\0").with_nul(), None);
        assert_eq!(params(b"\x01\x01A1\x01\x03Bx\0y").with_nul(), Some((&b"B"[..], &b"x\0y"[..])));
        assert_eq!(params(b"\x02\x01A\x001").with_nul(), Some((&b"A\0"[..], &b"1"[..])));
    }

    #[test]
    fn f52_as_many_parameters_as_the_limit_are_taken_and_no_more() {
        let bytes = b"\0\0\0\0".to_vec();
        assert_eq!(Params::new(bytes.clone(), 2).map(|params| params.len()), Ok(2));
        assert_eq!(Params::new(bytes, 1), Err(ParamsError::TooMany { limit: 1 }));
        assert_eq!(Params::new(Vec::new(), 0), Ok(Params::default()));
    }

    #[test]
    fn f16_bytes_that_end_within_a_pair_are_no_parameters() {
        assert_eq!(
            Params::new(b"\0\0\x01\x05Aabc".to_vec(), 10),
            Err(ParamsError::Truncated { at: 2 })
        );
    }
}
