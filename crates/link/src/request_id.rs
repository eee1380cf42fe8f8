//! The name of a request in the log and on error pages.

use rustix::rand::{GetRandomFlags, getrandom};

/// Is this the kind of word that Apache's `mod_unique_id` makes?
pub fn is_one(word: &str) -> bool {
    (8..=64).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"@_-".contains(&byte))
}

/// A new one.
pub fn new() -> String {
    let mut bytes = [0; 8];
    // Without random numbers, which only a very old kernel withholds, requests are still told apart by their process ids.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    format!("{:016x}", u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_is_one_and_no_two_are_the_same() {
        assert!(is_one(&new()));
        assert_ne!(new(), new());
    }

    #[test]
    fn what_could_forge_a_line_is_none() {
        for word in ["", "short", "with space in it", "line\nbreak-in-it", "<script>alert</script>"] {
            assert!(!is_one(word), "{word}");
        }
    }
}
