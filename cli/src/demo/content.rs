//! What the demo's KV caches consist of: numbers that follow from seed and place, so that a block
//! at a wrong place has wrong content. Not random enough for anything else.

/// The place of a block's content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) seed: u64,
    /// The prefill instance, each of which computes a prompt of its own.
    pub(super) instance: u32,
    pub(super) rank: u32,
    /// The pool: for K/V, that of a layer's keys or values.
    pub(super) pool: u32,
    /// Position of the block in the prompt, not in memory.
    pub(super) block: u32,
}

/// Fills a block with its content.
pub(super) fn fill(place: Place, bytes: &mut [u8]) {
    let mut numbers = Numbers::new(place.key());
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&numbers.next().to_le_bytes()[..word.len()]);
    }
}

/// The first token that a prompt's prefill computes, which travels beside the cache.
pub(super) fn first_token(seed: u64, instance: u32) -> u64 {
    // No pool has this number.
    let place = Place { seed, instance, rank: 0, pool: u32::MAX, block: 0 };
    Numbers::new(place.key()).next()
}

/// `count` of the numbers below `of`, in an order that the key decides: where the blocks of a
/// prompt lie in a pool that has served others before.
pub(super) fn scattered(key: u64, count: u32, of: u32) -> Vec<u32> {
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

impl Place {
    fn key(self) -> u64 {
        let Self { seed, instance, rank, pool, block } = self;
        let parts = [instance, rank, pool, block].map(u64::from);
        parts.into_iter().fold(seed, |key, part| Numbers::new(key ^ part).next())
    }
}

/// splitmix64 (Steele, Lea and Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Numbers {
    state: u64,
}

impl Numbers {
    fn new(state: u64) -> Self {
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { seed: 1, instance: 0, rank: 0, pool: 0, block: 0 };

    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut numbers = Numbers::new(1_234_567);
        assert_eq!(numbers.next(), 6_457_827_717_110_365_317);
        assert_eq!(numbers.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn every_place_has_content_of_its_own_and_the_same_each_time() {
        let of = |place| {
            let mut bytes = [0; 20];
            fill(place, &mut bytes);
            bytes
        };
        let places = [
            PLACE,
            Place { seed: 2, ..PLACE },
            Place { instance: 1, ..PLACE },
            Place { rank: 1, ..PLACE },
            Place { pool: 1, ..PLACE },
            Place { block: 1, ..PLACE },
        ];
        for (at, place) in places.into_iter().enumerate() {
            assert_eq!(of(place), of(place));
            assert!(places[..at].iter().all(|other| of(*other) != of(place)));
        }
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
