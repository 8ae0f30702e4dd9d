//! Choices that can be made again: `MACHINEGUN_CRASH_SEED` names them.

use machinegun::clock::random_bytes;

/// Pseudo-random numbers, the same for the same seed.
pub struct Dice(u64);

/// A number that whoever runs the test may choose.
pub fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

// === impl Dice ===

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From the environment's seed or a new one, which it prints.
    pub fn thrown() -> Self {
        let seed =
            from_environment("MACHINEGUN_CRASH_SEED").unwrap_or_else(|| u64::from(u32::from_be_bytes(random_bytes())));
        println!("MACHINEGUN_CRASH_SEED={seed}");
        Self::new(seed)
    }

    /// splitmix64
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
