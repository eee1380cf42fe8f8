//! Jitter: limits of many processes, made unequal so that not all reach them at once.

use rustix::rand::{GetRandomFlags, getrandom};

/// Returns `limit`, less up to a tenth at random. Limits below 10 stay exact, and 0 stays 0.
pub fn with_jitter(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers, which only a very old kernel withholds, there is no jitter.
    let _ = getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    limit - u64::from_ne_bytes(bytes) % (limit / 10 + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn small_limits_are_exact() {
        for limit in 0..10 {
            assert!((0..100).all(|_| with_jitter(limit) == limit), "{limit}");
        }
    }

    #[test]
    fn large_limits_lose_up_to_a_tenth_and_are_never_exceeded() {
        let drawn: BTreeSet<u64> = (0..10_000).map(|_| with_jitter(100)).collect();
        assert_eq!(drawn, (90..=100).collect());
        assert!(with_jitter(u64::MAX) >= u64::MAX / 10 * 9);
    }
}
