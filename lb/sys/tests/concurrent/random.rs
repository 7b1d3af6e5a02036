//! Random numbers that can be had again.

use std::env;
use std::time::{Duration, SystemTime};

/// A generator (splitmix64).
pub struct Random(u64);

impl Random {
    const SEED: &str = "MARKWAY_TEST_SEED";

    /// From the seed of the environment or of the clock, which is printed and so shown on failure.
    pub fn announced() -> Self {
        let seed = match env::var(Self::SEED) {
            Ok(text) => text.parse().expect("a seed is a number"),
            Err(_) => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs() << 30 | u64::from(since.subsec_nanos())),
        };
        println!("the random choices are repeated with {}={seed}", Self::SEED);
        Random(seed)
    }

    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.next() % u64::from(end)).expect("it is below a number of 32 bits")
    }

    pub fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        let end = u32::try_from(N).expect("there are few");
        all[self.below(end) as usize]
    }

    /// Lets some time pass, at most this many microseconds.
    pub fn pause(&mut self, most: u32) {
        std::thread::sleep(Duration::from_micros(self.below(most).into()));
    }
}
