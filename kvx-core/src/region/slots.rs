//! Slots: the short names under which one peer addresses this engine's regions, as the owner keeps
//! them. What a grant allows within a region is [`GrantMap`](super::GrantMap)'s to say.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::{Region, RegionKey, Registry};
use crate::error::Refusal;
use crate::id::{RegionId, Slot};

/// One peer's slots, for one pair of associations.
///
/// Slots are counted from 0 and never used again, so that a late frame never meets another region
/// than it was meant for. Regions come and go in thousands over the life of a peer; what is
/// bounded, and takes memory, is the slots in use at once.
#[derive(Debug, Default)]
pub struct Slots {
    /// The slots in use. None is `next` or above.
    entries: HashMap<Slot, Entry, BuildHasherDefault<SlotHasher>>,
    /// The same by region: exactly one slot for each.
    by_region: HashMap<RegionId, Slot>,
    /// The slot that is given out next.
    next: u32,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    /// Whether the peer has shown the region key. Without, the slot serves grants only.
    one_sided: bool,
}

impl Slots {
    /// Slots in use at once.
    pub const LIMIT: usize = 65_536;

    /// No slots.
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot of a region whose key the peer has shown; the same one each time.
    ///
    /// # Errors
    /// [`Refusal::WrongKey`] for a wrong key and for an unknown region alike, so that ids cannot
    /// be probed; [`Refusal::NoRight`] for a region that allows peers nothing; [`Refusal::Busy`]
    /// when [`Slots::LIMIT`] are in use.
    pub fn open(
        &mut self,
        registry: &Registry,
        region: RegionId,
        key: &RegionKey,
    ) -> Result<Slot, Refusal> {
        let region =
            registry.get(region).filter(|region| region.key == *key).ok_or(Refusal::WrongKey)?;
        if region.rights.is_empty() {
            return Err(Refusal::NoRight);
        }
        self.give(region, true)
    }

    /// A slot for a grant: the peer may use it under grants only, unless it has shown the region
    /// key as well. The same slot each time.
    ///
    /// # Errors
    /// [`Refusal::RegionClosed`], or [`Refusal::Busy`] when [`Slots::LIMIT`] are in use.
    pub fn offer(&mut self, region: Arc<Region>) -> Result<Slot, Refusal> {
        self.give(region, false)
    }

    /// The region of a slot, for a one-sided access or for one under a grant. An open region may
    /// close at any moment: only a lease keeps it.
    ///
    /// # Errors
    /// [`Refusal::UnknownSlot`] for a number never given out; [`Refusal::RegionClosed`] once the
    /// region was deregistered; [`Refusal::NoRight`] for a slot that serves grants only.
    pub fn resolve(&self, slot: Slot, one_sided: bool) -> Result<&Arc<Region>, Refusal> {
        let Some(entry) = self.entries.get(&slot) else {
            let given_out = slot.0 < self.next;
            return Err(if given_out { Refusal::RegionClosed } else { Refusal::UnknownSlot });
        };
        if one_sided && !entry.one_sided {
            return Err(Refusal::NoRight);
        }
        if !entry.region.gate.is_open() {
            return Err(Refusal::RegionClosed);
        }
        Ok(&entry.region)
    }

    /// Gives up the slot of a region that was deregistered. Returns it, if there was one, for the
    /// peer to be told. To be called after [`Registry::deregister`], so that the region does not
    /// come back.
    pub fn close(&mut self, region: RegionId) -> Option<Slot> {
        let slot = self.by_region.remove(&region)?;
        self.entries.remove(&slot);
        Some(slot)
    }

    fn give(&mut self, region: Arc<Region>, one_sided: bool) -> Result<Slot, Refusal> {
        // Deregistration closes the gate and then calls `close` here: a region that is still open
        // now will be cleared away then, one that is closed might stay for ever.
        if !region.gate.is_open() {
            return Err(Refusal::RegionClosed);
        }
        if let Some(&slot) = self.by_region.get(&region.id) {
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.one_sided |= one_sided;
            }
            return Ok(slot);
        }
        if self.entries.len() >= Self::LIMIT {
            return Err(Refusal::Busy);
        }
        let slot = Slot(self.next);
        let next = self.next.checked_add(1).ok_or(Refusal::Busy)?;
        self.entries.try_reserve(1).map_err(|_| Refusal::Busy)?;
        self.by_region.try_reserve(1).map_err(|_| Refusal::Busy)?;
        self.by_region.insert(region.id, slot);
        self.entries.insert(slot, Entry { region, one_sided });
        self.next = next;
        Ok(slot)
    }
}

/// Spreads slots over a table. They are resolved for every span that arrives, and the standard
/// hasher would be most of that; its protection is not needed, for the owner counts slots upward
/// and the peer only chooses which to look up.
#[derive(Debug, Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn write_u32(&mut self, slot: u32) {
        // 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4), then the well mixed high half
        // brought to where the table looks for its buckets.
        self.0 = u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(self.0 as u32 ^ u32::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;
