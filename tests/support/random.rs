//! Random numbers, whose seed a failure shows.

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
};

/// Numbers that the printed seed reproduces (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// Takes the seed from the variable `WSGATE_TEST_SEED`, or another one at each run. A failure
    /// shows the seed.
    #[expect(clippy::print_stdout, reason = "the harness shows it beside the failure")]
    pub(crate) fn new() -> Self {
        let given = env::var("WSGATE_TEST_SEED")
            .ok()
            .map(|seed| seed.parse().expect("WSGATE_TEST_SEED: a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().hash_one("seed"));
        println!("WSGATE_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// Returns `length` random bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}
