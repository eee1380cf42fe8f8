//! The name of a request in the log and on error pages.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Is this the kind of word that Apache's `mod_unique_id` makes?
pub fn is_one(word: &str) -> bool {
    (8..=64).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@_-".contains(&byte))
}

/// A new one.
pub fn new() -> String {
    Ids::new().next()
}

/// New ones, for a process that needs many. Not to be shared with a child that is forked: each
/// would give the same.
#[derive(Debug)]
pub struct Ids(AtomicU64);

impl Ids {
    /// Ids that begin at random.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        let mut bytes = [0; 8];
        // Without random numbers, which only a very old kernel withholds, requests are still told
        // apart by their process ids.
        let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
        Self(AtomicU64::new(u64::from_ne_bytes(bytes)))
    }

    /// The next. None comes twice: steps of an odd width meet every number before the first again,
    /// and mixing keeps them apart.
    pub fn next(&self) -> String {
        let mut id = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        // The finalizer of SplitMix64.
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id ^= id >> 31;
        let digits: [u8; 16] =
            std::array::from_fn(|place| DIGITS[usize::from((id >> (60 - 4 * place)) as u8 & 15)]);
        String::from_utf8_lossy(&digits).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_one_and_no_two_are_the_same() {
        assert!(is_one(&new()));
        assert_ne!(new(), new());
        let ids = Ids::new();
        let mut made: Vec<_> = (0..10_000).map(|_| ids.next()).collect();
        assert!(made.iter().all(|id| id.len() == 16 && is_one(id)));
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 10_000);
    }

    #[test]
    fn what_could_forge_a_line_is_none() {
        for word in ["", "short", "with space in it", "line\nbreak-in-it", "<script>alert</script>"]
        {
            assert!(!is_one(word), "{word}");
        }
    }
}
