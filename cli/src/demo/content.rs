//! What the demo's KV caches consist of: numbers that follow from seed and place, so that a block
//! at a wrong place has wrong content. Not random enough for anything else.

use crate::numbers::Numbers;

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

impl Place {
    fn key(self) -> u64 {
        let Self { seed, instance, rank, pool, block } = self;
        let parts = [instance, rank, pool, block].map(u64::from);
        parts.into_iter().fold(seed, |key, part| Numbers::new(key ^ part).next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { seed: 1, instance: 0, rank: 0, pool: 0, block: 0 };

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
}
