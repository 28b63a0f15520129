//! Sorting by digits: the keys of a plan are many, short, and made in the order of their low bits.

use std::collections::TryReserveError;

/// Bits of a digit: its counts stay in the first-level cache.
const DIGIT: u32 = 11;
const BUCKETS: usize = 1 << DIGIT;
/// From so many keys on it is faster than sorting by comparison.
const WORTH_IT: usize = 512;

/// Sorts keys whose lowest `sorted` bits are in order already: each is greater there than the one
/// before.
///
/// # Errors
/// No memory for as many keys again.
pub(super) fn sort(keys: &mut Vec<u64>, sorted: u32) -> Result<(), TryReserveError> {
    if keys.len() < WORTH_IT {
        keys.sort_unstable();
        return Ok(());
    }
    let all = keys.iter().fold(0, |all, key| all | key);
    let mut next = Vec::new();
    next.try_reserve_exact(keys.len())?;
    next.resize(keys.len(), 0);
    let mut shift = sorted;
    while shift < u64::BITS && all >> shift != 0 {
        scatter(keys, &mut next, shift);
        std::mem::swap(keys, &mut next);
        shift += DIGIT;
    }
    Ok(())
}

/// Puts keys in the order of one digit; equal ones keep theirs.
fn scatter(keys: &[u64], into: &mut [u64], shift: u32) {
    let digit = |key: u64| (key >> shift) as usize % BUCKETS;
    let mut places = [0; BUCKETS];
    keys.iter().for_each(|key| places[digit(*key)] += 1);
    let mut begin = 0;
    for place in &mut places {
        let count = std::mem::replace(place, begin);
        begin += count;
    }
    for key in keys {
        let place = &mut places[digit(*key)];
        into[*place] = *key;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_come_in_order(
            places in prop::collection::vec(any::<u64>(), 0..3000),
            width in 0_u32..=52,
        ) {
            let low = 64 - (places.len() as u64).leading_zeros();
            let made = |(i, place): (usize, &u64)| (place >> (63 - width) >> 1) << low | i as u64;
            let mut keys: Vec<u64> = places.iter().enumerate().map(made).collect();
            let mut wanted = keys.clone();
            wanted.sort_unstable();
            sort(&mut keys, low).unwrap();
            prop_assert_eq!(keys, wanted);
        }
    }

    #[test]
    fn all_bits_of_a_key_count() {
        let mut keys: Vec<u64> = (0..1000).map(|i| (999 - i) << 54 | i).collect();
        sort(&mut keys, 10).unwrap();
        assert!(keys.is_sorted());
        assert_eq!(keys[0], 999);
    }
}
