//! Pools of the other side's memory: what its engine has allocated to be shared, mapped here to be
//! read. Not the copying.
//!
//! The other side offers a pool the first time that a message names memory of it, in a slot of a small
//! table, and takes it back when it has deregistered the memory. In between, messages name the slot
//! beside the address. A pool that cannot be mapped is memory like all other.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kvx_core::error::Violation;
use kvx_core::transport::HostSpan;

use crate::message::Offer;
use crate::setup::{Attached, descriptor};
use crate::shared::Bytes;

/// Pools that one side of a lane may offer at a time: more than engines have regions.
pub(crate) const MAX_POOLS: u32 = 1024;

/// Pools that are mapped, by device and inode of their memfds, for all lanes of a transport.
#[derive(Debug, Default)]
pub(crate) struct Mapped(Mutex<HashMap<(u64, u64), Weak<Bytes>>>);

impl Mapped {
    /// Maps a pool of at least so many bytes, unless it is mapped already.
    fn map(&self, memfd: &OwnedFd, least: u64, user: u32) -> io::Result<Arc<Bytes>> {
        let stat = rustix::fs::fstat(memfd)?;
        let key = (stat.st_dev, stat.st_ino);
        // Every step leaves the map whole.
        let mut mapped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // While it is mapped, no other file has its inode.
        let known = mapped.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.len() >= least) {
            return Ok(known);
        }
        let bytes = Arc::new(Bytes::attach(memfd, least, user)?);
        mapped.retain(|_, bytes| bytes.strong_count() > 0);
        mapped.insert(key, Arc::downgrade(&bytes));
        Ok(bytes)
    }
}

/// The other side's pools on one lane.
#[derive(Debug)]
pub(crate) struct Pools {
    slots: Vec<Option<Pool>>,
    mapped: Arc<Mapped>,
}

/// One that was offered.
#[derive(Debug)]
struct Pool {
    /// The address of its first byte over there.
    base: u64,
    /// `None` if it cannot be mapped.
    bytes: Option<Arc<Bytes>>,
}

impl Pools {
    pub(crate) fn new(mapped: Arc<Mapped>) -> Self {
        Self { slots: Vec::new(), mapped }
    }

    /// The other side offers a pool.
    ///
    /// # Errors
    /// In a slot that is taken, or that there is not.
    pub(crate) fn accept(&mut self, offer: &Offer, from: &Attached) -> Result<(), Violation> {
        let slot = offer.slot as usize;
        if offer.slot >= MAX_POOLS || self.slots.get(slot).is_some_and(Option::is_some) {
            return Err(odd("a pool's slot"));
        }
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        let bytes = descriptor(&from.process, offer.memfd)
            .and_then(|memfd| self.mapped.map(&memfd, offer.len, from.user));
        self.slots[slot] = Some(Pool { base: offer.base, bytes: bytes.ok() });
        Ok(())
    }

    /// The other side takes a pool back.
    ///
    /// # Errors
    /// There is none in this slot.
    pub(crate) fn give_back(&mut self, slot: u32) -> Result<(), Violation> {
        let taken = self.slots.get_mut(slot as usize).and_then(Option::take);
        taken.map(drop).ok_or_else(|| odd("a pool's slot"))
    }

    /// Where `span` of the other side's memory is mapped here, if it is.
    ///
    /// # Errors
    /// There is no such pool, or no such memory in it.
    pub(crate) fn find(&self, slot: u32, span: HostSpan) -> Result<Option<NonNull<u8>>, Violation> {
        let pool = self.slots.get(slot as usize).and_then(Option::as_ref);
        let pool = pool.ok_or_else(|| odd("a pool's slot"))?;
        let Some(bytes) = &pool.bytes else {
            return Ok(None);
        };
        let at = span.address.checked_sub(pool.base).and_then(|offset| bytes.at(offset, span.len));
        at.map(Some).ok_or_else(|| odd("memory of a pool"))
    }

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.slots = Vec::new();
    }
}

/// The slots of the pools that this side offers.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    free: Vec<u32>,
    /// How many were ever taken.
    used: u32,
}

impl Slots {
    /// A slot that is free, unless all are taken.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let next = Some(self.used).filter(|used| *used < MAX_POOLS)?;
            self.used += 1;
            Some(next)
        })
    }

    /// The pool in this slot was taken back.
    pub(crate) fn free(&mut self, slot: u32) {
        self.free.push(slot);
    }
}

fn odd(message: &'static str) -> Violation {
    Violation::Unexpected { message, why: "it was not offered" }
}

#[cfg(test)]
pub(crate) mod tests;
