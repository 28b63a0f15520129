//! Randomness from a seed: the same numbers on every machine, for ever. Not for secrets.

use std::ops::Range;

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, equidistributed, and any seed is
/// as good as another.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of `range`, which is not empty. The bias is below 2^-32 for the ranges of tests.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start)
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.within(0..len as u64) as usize
    }

    /// True in `percent` of a hundred cases, on average.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// Fresh bytes: an id, a nonce, a key.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bits() as u8)
    }

    /// The numbers below `count`, each once, in random order.
    pub fn order(&mut self, count: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        for last in (1..count).rev() {
            numbers.swap(last, self.index(last + 1));
        }
        numbers
    }

    /// A generator of its own, so that what one part draws does not change what others draw.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // The reference implementation's first outputs for seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_number_lies_in_its_range() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            assert!((5..9).contains(&random.within(5..9)));
            assert!(random.index(3) < 3);
        }
    }

    #[test]
    fn an_order_has_every_number_once() {
        let mut order = Random::new(7).order(100);
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<u32>>());
    }
}
