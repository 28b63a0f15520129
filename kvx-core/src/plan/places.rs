//! Where addresses lie: from the addresses that an owner knows its memory by to spans.

use crate::error::Invalid;
use crate::plan::{Span, Spans};

/// Regions by address, to look up spans that are given by address.
///
/// Regions may overlap: memory can be registered more than once. A span belongs to one region that
/// holds all of it; which one, where several do, is not said.
///
/// ```
/// use kvx_core::plan::Places;
///
/// let regions = Places::new([(0x10_000, 4096), (0x40_000, 8192)]);
/// let spans = regions.spans(&[0x40_100, 0x10_000], &[64, 4096])?;
/// assert_eq!((spans.get(0).region, spans.get(0).offset), (1, 0x100));
/// assert!(regions.spans(&[0x10_001], &[4096]).is_err());
/// # Ok::<(), kvx_core::error::Invalid>(())
/// ```
#[derive(Clone, Debug)]
pub struct Places {
    /// By base.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    base: u64,
    len: u64,
    /// The region's index in the list that was given.
    region: u32,
    /// The last address, plus one, of this place and all before it; saturates.
    reach: u64,
}

impl Places {
    /// Regions by base address and length in bytes; spans name them by their order here.
    pub fn new(regions: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut places: Vec<Place> = regions
            .into_iter()
            .zip(0..)
            .map(|((base, len), region)| Place { base, len, region, reach: 0 })
            .collect();
        places.sort_unstable_by_key(|place| (place.base, place.len));
        let mut reach = 0;
        for place in &mut places {
            reach = place.base.saturating_add(place.len).max(reach);
            place.reach = reach;
        }
        Self { places }
    }

    /// Span i is the `lens[i]` bytes at `addresses[i]`.
    ///
    /// # Errors
    /// The columns differ in length; bytes that lie in no region, or in more than one; no memory
    /// for the list.
    pub fn spans(&self, addresses: &[u64], lens: &[u64]) -> Result<Spans, Invalid> {
        super::same("addresses against lengths", addresses.len() as u64, lens.len() as u64)?;
        let mut spans = Spans::new();
        spans.try_reserve(addresses.len()).map_err(|_| super::order::no_memory(addresses.len()))?;
        // Neighbours in a list mostly lie in the same region.
        let mut last = None;
        for (index, (&address, &len)) in addresses.iter().zip(lens).enumerate() {
            let held = last
                .and_then(|place: Place| place.holds(address, len))
                .or_else(|| {
                    last = self.place(address, len);
                    last?.holds(address, len)
                })
                .ok_or(Invalid::NotInRegion { index, address, len })?;
            spans.push(held);
        }
        Ok(spans)
    }

    /// The `len` bytes at `address` as a span.
    pub fn find(&self, address: u64, len: u64) -> Option<Span> {
        self.place(address, len)?.holds(address, len)
    }

    fn place(&self, address: u64, len: u64) -> Option<Place> {
        let above = self.places.partition_point(|place| place.base <= address);
        let before = self.places.get(..above)?.iter().rev();
        let mut reaching = before.take_while(|place| place.reach >= address);
        reaching.find(|place| place.holds(address, len).is_some()).copied()
    }
}

impl Place {
    fn holds(self, address: u64, len: u64) -> Option<Span> {
        let offset = address.checked_sub(self.base)?;
        let inside = offset.checked_add(len)? <= self.len;
        inside.then_some(Span { region: self.region, offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(places: &Places, address: u64, len: u64) -> Option<(u32, u64)> {
        let spans = places.spans(&[address], &[len]).ok()?;
        Some((spans.get(0).region, spans.get(0).offset))
    }

    #[test]
    fn a_span_lies_in_the_region_that_holds_all_of_it() {
        let places = Places::new([(300, 100), (100, 100), (200, 50)]);
        assert_eq!(one(&places, 100, 100), Some((1, 0)));
        assert_eq!(one(&places, 249, 1), Some((2, 49)));
        assert_eq!(one(&places, 399, 1), Some((0, 99)));
        assert_eq!(one(&places, 400, 0), Some((0, 100)), "none of the bytes after the last");
        for (address, len) in [(99, 1), (150, 51), (250, 1), (299, 2), (400, 1), (401, 0)] {
            assert_eq!(one(&places, address, len), None, "{len} at {address}");
        }
        assert_eq!(one(&places, u64::MAX, 1), None);
        assert_eq!(one(&places, 150, u64::MAX), None);
    }

    #[test]
    fn a_large_region_is_found_behind_small_ones_within_it() {
        let places = Places::new([(0, 1000), (10, 5), (500, 1), (500, 20)]);
        assert_eq!(one(&places, 12, 100), Some((0, 12)));
        assert_eq!(one(&places, 502, 500), None, "beyond the end");
        assert_eq!(one(&places, 502, 400), Some((0, 502)));
    }

    #[test]
    fn the_top_of_the_address_space_is_a_place_too() {
        let places = Places::new([(u64::MAX - 9, 10)]);
        assert_eq!(one(&places, u64::MAX, 0), Some((0, 9)));
        assert_eq!(one(&places, u64::MAX - 9, 10), Some((0, 0)));
    }

    #[test]
    fn errors_name_the_span() {
        let places = Places::new([(0, 10)]);
        let error = places.spans(&[0, 5, 5], &[10, 5, 6]).unwrap_err();
        assert_eq!(error, Invalid::NotInRegion { index: 2, address: 5, len: 6 });
        assert!(places.spans(&[0], &[]).is_err());
    }
}
