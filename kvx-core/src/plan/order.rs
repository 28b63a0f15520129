//! The order in which spans come to lie in memory.

use crate::error::Invalid;
use crate::plan::radix;

/// The indices `0..count` in the order of `place(i)`: region, then offset; equal places keep their
/// order. `None` when they are in order as they stand.
///
/// # Errors
/// Too many for a plan, or there is no memory.
pub(super) fn order(
    count: usize,
    place: impl Fn(usize) -> (u32, u64),
) -> Result<Option<Vec<u32>>, Invalid> {
    let survey = Survey::of(count, &place);
    if survey.sorted {
        return Ok(None);
    }
    if u32::try_from(count).is_err() {
        return Err(refused(format!("{count} spans do not fit in one plan")));
    }
    // Sorting whole numbers is several times as fast as sorting indices by what they point at. The
    // index makes up the low bits. Offsets are multiples of a page or a block, and regions few:
    // nearly always all three fit in 64 bits.
    let (index_bits, offset_bits) = (bits(count as u64 - 1), bits(survey.offsets >> survey.align));
    if bits(u64::from(survey.region)) + offset_bits + index_bits <= 64 {
        let key = |i: usize, (region, offset): (u32, u64)| {
            // Two places at least are out of order: the index takes a bit, so that no shift is 64.
            (u64::from(region) << offset_bits | offset >> survey.align) << index_bits | i as u64
        };
        let mut keys = keys(count, place, key)?;
        radix::sort(&mut keys, index_bits).map_err(|_| no_memory(count))?;
        let mask = (1 << index_bits) - 1;
        return indices(&keys, |key| (key & mask) as u32).map(Some);
    }
    let key = |i: usize, (region, offset): (u32, u64)| {
        u128::from(region) << 96 | u128::from(offset) << 32 | i as u128
    };
    let mut keys = keys(count, place, key)?;
    keys.sort_unstable();
    indices(&keys, |key| key as u32).map(Some)
}

fn keys<K>(
    count: usize,
    place: impl Fn(usize) -> (u32, u64),
    key: impl Fn(usize, (u32, u64)) -> K,
) -> Result<Vec<K>, Invalid> {
    let mut keys = Vec::new();
    keys.try_reserve_exact(count).map_err(|_| no_memory(count))?;
    keys.extend((0..count).map(|i| key(i, place(i))));
    Ok(keys)
}

fn indices<K: Copy>(keys: &[K], index: impl Fn(K) -> u32) -> Result<Vec<u32>, Invalid> {
    let mut indices = Vec::new();
    indices.try_reserve_exact(keys.len()).map_err(|_| no_memory(keys.len()))?;
    indices.extend(keys.iter().map(|key| index(*key)));
    Ok(indices)
}

/// What one look at all places shows.
struct Survey {
    /// They are in order as they stand.
    sorted: bool,
    /// The highest region index.
    region: u32,
    /// All offsets, or-ed.
    offsets: u64,
    /// Low bits that are zero in every offset.
    align: u32,
}

impl Survey {
    fn of(count: usize, place: &impl Fn(usize) -> (u32, u64)) -> Self {
        let mut survey = Self { sorted: true, region: 0, offsets: 0, align: 0 };
        let mut last = (0, 0);
        for i in 0..count {
            let (region, offset) = place(i);
            survey.sorted &= last <= (region, offset);
            survey.region = survey.region.max(region);
            survey.offsets |= offset;
            last = (region, offset);
        }
        survey.align = survey.offsets.trailing_zeros().min(u64::BITS - 1);
        survey
    }
}

/// The bits that hold every number up to `highest`.
fn bits(highest: u64) -> u32 {
    u64::BITS - highest.leading_zeros()
}

pub(super) fn no_memory(count: usize) -> Invalid {
    refused(format!("there is no memory for {count} spans"))
}

pub(super) fn refused(why: String) -> Invalid {
    Invalid::Field { field: "plan", why }
}
