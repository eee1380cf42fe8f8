//! The complete, validated parameters of a request (FastCGI 1.0, 5.2 and 6.1).

use std::{error, fmt};

use crate::pairs::{Pairs, skip_pair};

/// The parameters of one request, in one buffer and in the order in which they arrived.
///
/// The buffer holds whole pairs only, so reading cannot fail. Return unused parameters with
/// [`Connection::reuse`](crate::Connection::reuse): the connection then allocates a buffer for its
/// first request only.
///
/// The order has no meaning (FastCGI 1.0, 5.2). If a name repeats, its *last* value counts: in
/// [`Params::get`], and in a map that is filled from [`Params::iter`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// Whole pairs, as checked by `Params::new`.
    bytes: Vec<u8>,
    count: usize,
    /// The bytes hold more zeros than the lengths need, so a name or value may hold a NUL.
    may_hold_nul: bool,
}

/// Why the parameters of a request are invalid. The request can still get a response, because its
/// end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamsError {
    /// The stream is longer than [`Limits::params_bytes`](crate::Limits::params_bytes). Its bytes
    /// were dropped, because no response may begin before the end of the stream (FastCGI 1.0, 6.2).
    /// Respond with status 431.
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream has more pairs than [`Limits::params_count`](crate::Limits::params_count).
    /// Respond with status 431.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The stream ends within a pair, possibly because a length is wrong (FastCGI 1.0, 3.4).
    /// Respond with status 400.
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
    /// The parameters in `bytes`, which must be at most `limit` whole pairs.
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
        // Counting all zeros at once is many times faster than searching each name and value.
        // Outside names and values, only lengths hold zeros, and their shortest form holds the
        // fewest. The count of a chunk fits in a byte, and 192 is a multiple of the size of vector
        // registers, so the compiler counts many bytes at a time.
        let in_piece =
            |piece: &[u8]| usize::from(piece.iter().map(|&byte| u8::from(byte == 0)).sum::<u8>());
        let zeros = bytes.chunks(192).map(in_piece).sum::<usize>();
        Ok(Self { bytes, count, may_hold_nul: zeros != in_lengths })
    }

    /// Number of parameters, repeated names included.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Are there no parameters?
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All names with their values, repeated names included.
    pub fn iter(&self) -> Iter<'_> {
        Iter { pairs: Pairs::new(&self.bytes), left: self.count }
    }

    /// The value of `name`, compared byte by byte; the last one if there are several.
    ///
    /// Each call searches all parameters. To read more than a few parameters, iterate over them
    /// once.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().filter(|(candidate, _)| *candidate == name).map(|(_, value)| value).last()
    }

    /// The first parameter with a NUL byte in its name or value; `None` if all can become
    /// `environ(7)`.
    ///
    /// Values that are text hold no NUL (FastCGI 1.0, 6.1). The environment of a process would
    /// truncate a value at a NUL, so refuse the request before building an environment.
    pub fn with_nul(&self) -> Option<(&[u8], &[u8])> {
        if !self.may_hold_nul {
            return None;
        }
        self.iter().find(|(name, value)| name.contains(&0) || value.contains(&0))
    }

    /// The pairs as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The buffer, for reuse.
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
        // `Params::new` has checked every pair, so this drops no error.
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
