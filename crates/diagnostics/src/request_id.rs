//! Request ids, for the log and for error pages.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The response header that has the request id, if it is sent.
pub const HEADER: &str = "X-Request-Id";

/// Responses of this process have the header.
static IS_SENT: AtomicBool = AtomicBool::new(false);

/// Sets whether responses of this process have the header [`HEADER`].
pub fn set_sent(is_sent: bool) {
    IS_SENT.store(is_sent, Ordering::Relaxed);
}

/// Do responses of this process have the header [`HEADER`]?
pub fn is_sent() -> bool {
    IS_SENT.load(Ordering::Relaxed)
}

/// Is `text` a request id, of wsgate or of Apache's `mod_unique_id`?
pub fn is_request_id(text: &str) -> bool {
    (8..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@_-".contains(&byte))
}

/// Makes a request id.
pub fn new() -> String {
    Ids::new().next()
}

/// A generator of request ids. A forked child needs its own: it would make the same ids as its
/// parent.
#[derive(Debug)]
pub struct Ids(AtomicU64);

impl Ids {
    /// Makes a generator that begins at random.
    #[expect(clippy::new_without_default, reason = "no two are alike")]
    pub fn new() -> Self {
        let mut bytes = [0; 8];
        // Without random numbers, which only a very old kernel withholds, process ids distinguish
        // log messages.
        let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
        Self(AtomicU64::new(u64::from_ne_bytes(bytes)))
    }

    /// Makes the next id. No id comes twice: steps of an odd width reach every number before the
    /// first comes again, and mixing is reversible.
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
    fn a_new_id_is_valid_and_no_two_are_the_same() {
        assert!(is_request_id(&new()));
        assert_ne!(new(), new());
        let ids = Ids::new();
        let mut made: Vec<_> = (0..10_000).map(|_| ids.next()).collect();
        assert!(made.iter().all(|id| id.len() == 16 && is_request_id(id)));
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 10_000);
    }

    #[test]
    fn a_text_that_could_forge_a_log_line_is_not_an_id() {
        for text in ["", "short", "with space in it", "line\nbreak-in-it", "<script>alert</script>"]
        {
            assert!(!is_request_id(text), "{text}");
        }
    }
}
