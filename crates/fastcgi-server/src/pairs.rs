//! Name-value pairs: the encoding of parameters and of management queries (FastCGI 1.0, 3.4).
//!
//! The functions work on whole buffers. A pair may span two records of a stream (3.3), so a reader
//! joins the records first.

use std::{error, fmt};

/// Maximum length of a name or a value in bytes: 31 bits, because the highest bit of a length marks
/// its four-byte form (FastCGI 1.0, 3.4).
pub const MAX_LENGTH: usize = 0x7fff_ffff;

/// Maximum length in the one-byte form. A longer length takes four bytes.
const SHORT: usize = 0x7f;

/// Reads the pairs in a buffer, one after the other, without copying.
///
/// Names and values may be empty, may hold any byte, and may repeat. Small lengths may have the
/// four-byte form, too. The iterator ends after an error.
///
/// ```
/// use fastcgi_server::pairs::Pairs;
///
/// let mut pairs = Pairs::new(b"\x0b\x02SERVER_PORT80\x05\x00EMPTY");
/// assert_eq!(pairs.next(), Some(Ok((&b"SERVER_PORT"[..], &b"80"[..]))));
/// assert_eq!(pairs.next(), Some(Ok((&b"EMPTY"[..], &b""[..]))));
/// assert_eq!(pairs.next(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
    /// Length of the whole buffer in bytes.
    whole: usize,
}

/// A buffer ends within a pair: in a length, or before the end of the name or value (FastCGI 1.0,
/// 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Where the pair begins, in bytes from the start of the buffer.
    pub at: usize,
}

/// A name or value of more than [`MAX_LENGTH`] bytes cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable {
    /// Length of the name or value in bytes.
    pub length: usize,
}

impl<'a> Pairs<'a> {
    /// The pairs in `bytes`, which hold nothing else.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, whole: bytes.len() }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Truncated>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((pair, rest)) = split_pair(self.rest) else {
            let at = self.whole - self.rest.len();
            self.rest = &[];
            return Some(Err(Truncated { at }));
        };
        self.rest = rest;
        Some(Ok(pair))
    }
}

impl std::iter::FusedIterator for Pairs<'_> {}

/// Length of the encoded pair in bytes.
pub const fn encoded_len(name: &[u8], value: &[u8]) -> usize {
    prefix_len(name.len()) + prefix_len(value.len()) + name.len() + value.len()
}

/// Appends a pair to `out`, each length in its shortest form.
///
/// # Errors
///
/// [`Unwritable`] if the name or the value is longer than [`MAX_LENGTH`]; `out` is then unchanged.
pub fn append(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let (name_prefix, value_prefix) = (Prefix::new(name.len())?, Prefix::new(value.len())?);
    out.reserve(encoded_len(name, value));
    out.extend_from_slice(name_prefix.as_bytes());
    out.extend_from_slice(value_prefix.as_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    Ok(())
}

/// A name and a value.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// Splits off the first pair; `None` if the pair is truncated.
#[inline]
fn split_pair(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let ((name_length, value_length), rest) = split_lengths(bytes)?;
    let (name, rest) = rest.split_at_checked(name_length)?;
    let (value, rest) = rest.split_at_checked(value_length)?;
    Some(((name, value), rest))
}

/// The lengths of the first pair's name and value, and the bytes after the pair; `None` if the pair
/// is truncated.
#[inline]
pub(crate) fn skip_pair(bytes: &[u8]) -> Option<((usize, usize), &[u8])> {
    let (lengths, rest) = split_lengths(bytes)?;
    // Each length has at most 31 bits, so the sum fits in 32 bits.
    Some((lengths, rest.get(lengths.0.checked_add(lengths.1)?..)?))
}

#[inline]
fn split_lengths(bytes: &[u8]) -> Option<((usize, usize), &[u8])> {
    if let [name_length, value_length, rest @ ..] = bytes {
        let lengths = (usize::from(*name_length), usize::from(*value_length));
        // The fast path for nearly all pairs.
        if lengths.0 | lengths.1 <= SHORT {
            return Some((lengths, rest));
        }
    }
    let (name_length, rest) = split_length(bytes)?;
    let (value_length, rest) = split_length(rest)?;
    Some(((name_length, value_length), rest))
}

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, after) = bytes.split_first()?;
    let first = usize::from(*first);
    if first <= SHORT {
        return Some((first, after));
    }
    let (length, after) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*length)).ok()? & MAX_LENGTH, after))
}

const fn prefix_len(length: usize) -> usize {
    if length <= SHORT { 1 } else { 4 }
}

/// An encoded length: the last `prefix_len` of four bytes.
struct Prefix {
    bytes: [u8; 4],
    from: usize,
}

impl Prefix {
    fn new(length: usize) -> Result<Self, Unwritable> {
        let number = u32::try_from(length)
            .ok()
            .filter(|_| length <= MAX_LENGTH)
            .ok_or(Unwritable { length })?;
        let mut bytes = number.to_be_bytes();
        let from = bytes.len() - prefix_len(length);
        if from == 0 {
            bytes[0] |= 0x80;
        }
        Ok(Self { bytes, from })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name-value pair at byte `{}` is cut off", self.at)
    }
}

impl error::Error for Truncated {}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a name or value of `{}` bytes where at most `{MAX_LENGTH}` can be written",
            self.length
        )
    }
}

impl error::Error for Unwritable {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<Pair<'_>>, Truncated> {
        Pairs::new(bytes).collect()
    }

    fn written(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(name, value, &mut out).unwrap();
        assert_eq!(out.len(), encoded_len(name, value));
        out
    }

    #[test]
    fn f15_the_pairs_of_the_specification_are_read() {
        // Appendix B, example 1, with its octal lengths.
        let bytes = b"\x0b\x02SERVER_PORT80\x0b\x0eSERVER_ADDR199.170.183.42";
        let pairs: [(&[u8], &[u8]); 2] =
            [(b"SERVER_PORT", b"80"), (b"SERVER_ADDR", b"199.170.183.42")];
        assert_eq!(read(bytes).unwrap(), pairs);
        assert_eq!(
            [written(pairs[0].0, pairs[0].1), written(pairs[1].0, pairs[1].1)].concat(),
            bytes
        );
    }

    #[test]
    fn f15_all_four_forms_of_lengths_are_read() {
        let long = [b'x'; 0x80];
        for (prefix, name, value) in [
            (&b"\x01\x01"[..], &b"n"[..], &b"v"[..]),
            (b"\x01\x80\0\0\x80", b"n", &long),
            (b"\x80\0\0\x80\x01", &long, b"v"),
            (b"\x80\0\0\x80\x80\0\0\x80", &long, &long),
        ] {
            let bytes = [prefix, name, value].concat();
            assert_eq!(read(&bytes), Ok(vec![(name, value)]));
            assert_eq!(written(name, value), bytes);
        }
    }

    #[test]
    fn f15_four_byte_lengths_are_legal_for_small_numbers() {
        assert_eq!(read(b"\x80\0\0\x01\x80\0\0\x00n"), Ok(vec![(&b"n"[..], &b""[..])]));
    }

    #[test]
    fn f15_four_byte_lengths_mask_the_top_bit() {
        let value = vec![b'v'; 0x0001_0203];
        let bytes = [b"\x01\x80\x01\x02\x03n", &value[..]].concat();
        assert_eq!(read(&bytes), Ok(vec![(&b"n"[..], &value[..])]));
        assert_eq!(written(b"n", &value), bytes);
    }

    #[test]
    fn f15_lengths_that_add_up_to_more_than_there_is_do_not_overflow() {
        for bytes in [
            &b"\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\xff\xff\xff\xff\xff\xff\xff\xffxxxxxxxx",
            b"\xff\xff\xff\xff\x02ab",
            b"\x02\xff\xff\xff\xffab",
            b"\x80\0\0\0\xff\xff\xff\xff",
        ] {
            assert_eq!(read(bytes), Err(Truncated { at: 0 }));
        }
    }

    #[test]
    fn f15_lengths_change_their_form_between_127_and_128() {
        assert_eq!(written(&[b'n'; 127], b"")[..2], [127, 0]);
        assert_eq!(written(&[b'n'; 128], b"")[..5], [0x80, 0, 0, 128, 0]);
    }

    #[test]
    fn f15_lengths_of_more_than_31_bits_are_not_written() {
        // The pages of a buffer of zeros are never touched.
        let value = vec![0; MAX_LENGTH + 1];
        let mut out = vec![b'x'];
        assert_eq!(append(b"n", &value, &mut out), Err(Unwritable { length: MAX_LENGTH + 1 }));
        assert_eq!(out, b"x");
    }

    #[test]
    fn f16_names_and_values_may_be_empty() {
        assert_eq!(read(b"").unwrap(), []);
        assert_eq!(
            read(b"\0\0\x01\0n\0\x01v"),
            Ok(vec![(&b""[..], &b""[..]), (b"n", b""), (b"", b"v")])
        );
        assert_eq!(written(b"", b""), [0, 0]);
    }

    #[test]
    fn f16_a_pair_that_is_cut_off_anywhere_is_an_error_where_it_begins() {
        let first = b"\x01\x01ab";
        for second in [&b"\x04\x05nameworth"[..], b"\x80\0\0\x04\x80\0\0\x05nameworth"] {
            for cut in 1..second.len() {
                let bytes = [&first[..], &second[..cut]].concat();
                let mut pairs = Pairs::new(&bytes);
                assert_eq!(pairs.next(), Some(Ok((&b"a"[..], &b"b"[..]))));
                assert_eq!(pairs.next(), Some(Err(Truncated { at: first.len() })), "cut at {cut}");
                assert_eq!(pairs.next(), None);
            }
        }
    }

    #[test]
    fn names_and_values_may_hold_any_byte() {
        let all: Vec<u8> = (0..=0xff).collect();
        assert_eq!(read(&written(&all, &all)), Ok(vec![(&all[..], &all[..])]));
    }
}
