//! Numbers that follow from a key: what the memory of demo and benchmarks holds, and where blocks
//! lie in it. Not random enough for anything else.

/// splitmix64 (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub(crate) struct Numbers {
    state: u64,
}

impl Numbers {
    pub(crate) fn new(state: u64) -> Self {
        Self { state }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let number = number_at(self.state, 0);
        self.state = self.state.wrapping_add(STEP);
        number
    }
}

/// What the state grows by with each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Number `index` of those that follow from `state`, counted from 0.
pub(crate) fn number_at(state: u64, index: u64) -> u64 {
    let state = state.wrapping_add(STEP.wrapping_mul(index.wrapping_add(1)));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `count` of the numbers below `of`, in an order that the key decides: where the blocks of a
/// prompt lie in a pool that has served others before.
pub(crate) fn scattered(key: u64, count: u32, of: u32) -> Vec<u32> {
    let mut numbers = Numbers::new(key);
    let mut all: Vec<u32> = (0..of).collect();
    let count = count.min(of) as usize;
    for at in 0..count {
        let left = (all.len() - at) as u64;
        all.swap(at, at + (numbers.next() % left) as usize);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut numbers = Numbers::new(1_234_567);
        assert_eq!(numbers.next(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.next(), 3_203_168_211_198_807_973);
        assert_eq!(number_at(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn scattered_blocks_are_distinct_and_inside_the_pool() {
        let blocks = scattered(7, 90, 100);
        let mut sorted = blocks.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 90);
        assert!(sorted.iter().all(|block| *block < 100));
        assert_ne!(blocks, sorted);
        assert_ne!(blocks, scattered(8, 90, 100));
    }
}
