//! Numbers that look random and depend on a seed alone: splitmix64.

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// `count` of the numbers below `bound`, each once, in any order.
    pub fn pick(&mut self, count: u32, bound: u32) -> Vec<u32> {
        let mut all: Vec<u32> = (0..bound).collect();
        for at in 0..count {
            let other = at + self.below(u64::from(bound - at)) as u32;
            all.swap(at as usize, other as usize);
        }
        all.truncate(count as usize);
        all
    }
}

/// The finisher of splitmix64: every bit of the result depends on every bit of `word`.
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A number from the environment, to vary a test or to repeat one.
pub fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}
