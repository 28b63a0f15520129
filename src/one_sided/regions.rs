//! The regions of a peer, in the order in which its owner told of them, and found by id and by
//! address. Not their keys, which the protocol keeps.

use std::collections::BTreeMap;

use kvx_core::id::RegionId;
use kvx_core::plan::Places;
use kvx_core::region::{Region as CoreRegion, Rights};
use kvx_core::transport::MemoryKind;
use kvx_core::wire::metadata::RegionDescription;

/// A region of a peer, as its owner describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRegion {
    /// The owner's name for it.
    pub id: RegionId,
    /// The address under which the owner knows its first byte.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// What we may do with it.
    pub rights: Rights,
    /// What memory it is.
    pub kind: MemoryKind,
}

/// The regions of a peer.
#[derive(Debug, Default)]
pub(crate) struct RemoteRegions {
    list: Vec<RemoteRegion>,
    /// Positions in `list` by id, and by position where an id comes twice.
    by_id: Vec<u32>,
    /// By address, each kind of memory apart; with the positions in `list` that places count.
    by_address: BTreeMap<MemoryKind, (Places, Vec<u32>)>,
}

impl RemoteRegions {
    /// In their order.
    pub(crate) fn list(&self) -> &[RemoteRegion] {
        &self.list
    }

    /// The region of this id; the first, if there are several. O(log n).
    pub(crate) fn get(&self, id: RegionId) -> Option<&RemoteRegion> {
        let place = self.by_id.partition_point(|position| self.at(*position).id < id);
        self.by_id.get(place).map(|position| self.at(*position)).filter(|region| region.id == id)
    }

    /// A region that holds `len` bytes at `address`, and the offset in it.
    pub(crate) fn find(
        &self,
        kind: MemoryKind,
        address: u64,
        len: u64,
    ) -> Option<(&RemoteRegion, u64)> {
        let (places, positions) = self.by_address.get(&kind)?;
        let span = places.find(address, len)?;
        Some((self.at(positions[span.region as usize]), span.offset))
    }

    fn at(&self, position: u32) -> &RemoteRegion {
        &self.list[position as usize]
    }
}

impl<R: Into<RemoteRegion>> FromIterator<R> for RemoteRegions {
    fn from_iter<I: IntoIterator<Item = R>>(regions: I) -> Self {
        let list: Vec<RemoteRegion> = regions.into_iter().map(Into::into).collect();
        // A list of regions is far shorter than 2^32.
        let mut by_id: Vec<u32> = (0..list.len() as u32).collect();
        by_id.sort_by_key(|position| list[*position as usize].id);
        let mut kinds: BTreeMap<MemoryKind, Vec<u32>> = BTreeMap::new();
        for (region, position) in list.iter().zip(0..) {
            kinds.entry(region.kind).or_default().push(position);
        }
        let place = |position: &u32| {
            let region = &list[*position as usize];
            (region.base, region.len)
        };
        let by_address = kinds.into_iter().map(|(kind, positions)| {
            let places = Places::new(positions.iter().map(place));
            (kind, (places, positions))
        });
        let by_address = by_address.collect();
        Self { list, by_id, by_address }
    }
}

impl From<RegionDescription> for RemoteRegion {
    fn from(region: RegionDescription) -> Self {
        let RegionDescription { id, base, len, rights, kind, .. } = region;
        Self { id, base, len, rights, kind }
    }
}

impl From<&CoreRegion> for RemoteRegion {
    fn from(region: &CoreRegion) -> Self {
        let (base, len, kind) = (region.base(), region.len(), region.memory.kind());
        Self { id: region.id, base, len, rights: region.rights, kind }
    }
}

#[cfg(test)]
mod tests {
    use kvx_core::testing::Random;

    use super::*;

    /// Small numbers, so that regions overlap, hide each other and share their ids.
    fn some(random: &mut Random) -> Vec<RemoteRegion> {
        let region = |random: &mut Random| RemoteRegion {
            id: RegionId::new(random.index(8) as u32, 1 + random.index(2) as u32),
            base: random.within(0..24),
            len: random.within(1..16),
            rights: Rights::all(),
            kind: if random.percent(70) { MemoryKind::Host } else { MemoryKind::Cuda(1) },
        };
        (0..random.index(12)).map(|_| region(random)).collect()
    }

    #[test]
    fn a_region_is_found_as_by_looking_at_one_after_the_other() {
        let mut random = Random::new(7);
        for _ in 0..3000 {
            let list = some(&mut random);
            let regions: RemoteRegions = list.iter().cloned().collect();
            assert_eq!(regions.list(), list);
            for index in 0..8 {
                let id = RegionId::new(index, 1);
                assert_eq!(regions.get(id), list.iter().find(|region| region.id == id));
            }
            for _ in 0..20 {
                let (address, len) = (random.within(0..40), random.within(0..12));
                let kind = if random.percent(50) { MemoryKind::Host } else { MemoryKind::Cuda(1) };
                let holds = |region: &RemoteRegion| {
                    let end = region.base + region.len;
                    region.kind == kind && address >= region.base && address + len <= end
                };
                let found = regions.find(kind, address, len);
                let right = |(region, offset): (&RemoteRegion, u64)| {
                    holds(region) && list.contains(region) && region.base + offset == address
                };
                let context = format!("{found:?} for {address}+{len} in {list:?}");
                assert!(found.is_none_or(right), "{context}");
                assert_eq!(found.is_some(), list.iter().any(holds), "{context}");
            }
        }
    }
}
