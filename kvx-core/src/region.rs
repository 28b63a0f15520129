//! Registered memory: who may reach which bytes, until when.

mod gate;
mod grant_map;
mod registry;
mod slots;

use std::fmt;
use std::sync::Arc;

use bitflags::bitflags;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Refusal;
use crate::id::RegionId;
use crate::transport::MemoryProvider;
use crate::wire::metadata::RegionDescription;

pub use gate::{Gate, GateClosed, Lease, Leases, OnClose, RegionLease};
pub use grant_map::GrantMap;
pub use registry::Registry;
pub use slots::Slots;

bitflags! {
    /// What peers may do with a region. Its owner may always use it as source and target of its
    /// own transfers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u8 {
        /// Peers that hold the region key may read it.
        const REMOTE_READ = 1;
        /// Peers that hold the region key may write it.
        const REMOTE_WRITE = 2;
    }
}

/// Who may touch a region: 128 random bits. Shown once to get a slot.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RegionKey([u8; 16]);

impl RegionKey {
    /// The key of these bytes, which must come from the system's random source.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the wire.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Takes the same time wherever the keys differ.
impl PartialEq for RegionKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for RegionKey {}

/// Keeps the secret.
impl fmt::Debug for RegionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegionKey(..)")
    }
}

/// One registered region. It lives as long as anyone holds it; whether its memory may still be
/// touched, its gate says.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// Its memory.
    pub memory: Arc<dyn MemoryProvider>,
    /// What peers may do.
    pub rights: Rights,
    /// Who may.
    pub key: RegionKey,
    /// Open until the region is deregistered.
    pub gate: Gate,
}

impl Region {
    /// Length in bytes; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.memory.len()
    }

    /// The address under which the owner knows the first byte.
    pub fn base(&self) -> u64 {
        self.memory.base()
    }

    /// Whether `len` bytes at `offset` may be used by one who needs these rights: none at all for
    /// the owner's own transfers and under a grant. Allows an access, but does not keep the region
    /// open for it: that takes a lease.
    ///
    /// # Errors
    /// In this order: [`Refusal::RegionClosed`], [`Refusal::NoRight`], [`Refusal::OutOfBounds`].
    pub fn check(&self, needed: Rights, offset: u64, len: u64) -> Result<(), Refusal> {
        if !self.gate.is_open() {
            return Err(Refusal::RegionClosed);
        }
        if !self.rights.contains(needed) {
            return Err(Refusal::NoRight);
        }
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(Refusal::OutOfBounds),
        }
    }

    /// What others need to reach it, its key among it.
    pub fn describe(&self) -> RegionDescription {
        RegionDescription {
            id: self.id,
            key: self.key.clone(),
            base: self.base(),
            len: self.len(),
            rights: self.rights,
            kind: self.memory.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::HostMemory;

    fn region(rights: Rights) -> Region {
        Region {
            id: RegionId::new(0, 1),
            memory: Arc::new(HostMemory::new(0x1000, 64).unwrap()),
            rights,
            key: RegionKey::new([7; 16]),
            gate: Gate::new(),
        }
    }

    #[test]
    fn a_span_must_lie_in_the_region() {
        let region = region(Rights::empty());
        let check = |offset, len| region.check(Rights::empty(), offset, len);
        for (offset, len) in [(0, 64), (0, 1), (63, 1), (64, 0)] {
            assert_eq!(check(offset, len), Ok(()));
        }
        for (offset, len) in [(0, 65), (63, 2), (64, 1), (65, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert_eq!(check(offset, len), Err(Refusal::OutOfBounds));
        }
        assert_eq!((region.base(), region.len()), (0x1000, 64));
    }

    #[test]
    fn every_needed_right_must_be_there() {
        let both = Rights::REMOTE_READ | Rights::REMOTE_WRITE;
        let readable = region(Rights::REMOTE_READ);
        assert_eq!(readable.check(Rights::REMOTE_READ, 0, 8), Ok(()));
        assert_eq!(readable.check(Rights::REMOTE_WRITE, 0, 8), Err(Refusal::NoRight));
        assert_eq!(readable.check(both, 0, 8), Err(Refusal::NoRight));
        assert_eq!(region(both).check(both, 0, 8), Ok(()));
        assert_eq!(region(Rights::empty()).check(Rights::REMOTE_READ, 0, 8), Err(Refusal::NoRight));
    }

    #[test]
    fn a_closed_region_allows_nothing_and_says_only_that() {
        let region = region(Rights::empty());
        region.gate.close();
        assert_eq!(region.check(Rights::REMOTE_WRITE, 99, 99), Err(Refusal::RegionClosed));
        assert_eq!(region.check(Rights::empty(), 0, 1), Err(Refusal::RegionClosed));
    }

    #[test]
    fn a_key_is_not_shown_in_logs() {
        let shown = format!("{:?}", region(Rights::empty()));
        assert!(shown.contains("key: RegionKey(..)"), "{shown}");
    }

    #[test]
    fn a_key_is_another_by_any_byte() {
        let key = RegionKey::new([7; 16]);
        assert!(key == RegionKey::new([7; 16]));
        for place in 0..16 {
            let mut bytes = [7; 16];
            bytes[place] ^= 0x80;
            assert!(key != RegionKey::new(bytes), "byte {place}");
        }
    }
}
