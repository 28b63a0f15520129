//! The registry: the regions of one engine, by id and by address.
//!
//! It says which memory exists, not who may use it: keys and rights are checked by
//! [`Slots`](super::Slots) and [`Region::check`].

mod intervals;

use std::collections::{BTreeMap, TryReserveError};
use std::mem;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Gate, Region, RegionKey, Rights};
use crate::error::{Cause, Invalid, Resource};
use crate::id::RegionId;
use crate::transport::{MemoryKind, MemoryProvider};
use intervals::{Interval, Intervals};

/// The regions of one engine. Used from many threads; no call blocks on anything but the table's
/// lock, which is never held while foreign code runs.
///
/// [`Registry::get`] takes constant time. [`Registry::find`] takes O(log n) and once more for
/// each region that contains the range. Registering and deregistering move the interval table,
/// O(n): about 0.1 ms at the default limit, and rare.
#[derive(Debug)]
pub struct Registry {
    table: RwLock<Table>,
    /// Regions that may be registered at once.
    limit: usize,
}

impl Registry {
    /// Regions that may be registered at once, unless [`Registry::with_limit`] says otherwise.
    pub const DEFAULT_LIMIT: usize = 65_536;

    /// An empty registry.
    pub fn new() -> Self {
        Self::with_limit(Self::DEFAULT_LIMIT)
    }

    /// An empty registry for at most `limit` regions at once.
    pub fn with_limit(limit: usize) -> Self {
        Self { table: RwLock::default(), limit }
    }

    /// Registers memory. Regions may overlap.
    ///
    /// # Errors
    /// [`Cause::Busy`] at the limit, [`Cause::ShutDown`] after [`Registry::close_all`],
    /// [`Cause::OutOfMemory`], and [`Cause::Invalid`] for memory that is empty or wraps around.
    pub fn register(
        &self,
        memory: Arc<dyn MemoryProvider>,
        rights: Rights,
        key: RegionKey,
    ) -> Result<Arc<Region>, Cause> {
        // A provider is foreign code: asked before the lock is taken, and only once.
        let (kind, base, len) = (memory.kind(), memory.base(), memory.len());
        if len == 0 {
            return Err(Invalid::Empty("region").into());
        }
        let end = base.checked_add(len).ok_or_else(|| Invalid::Field {
            field: "region",
            why: format!("{len} bytes at {base:#x} reach beyond the address space"),
        })?;

        let mut table = self.write();
        if table.closed {
            return Err(Cause::ShutDown);
        }
        if table.live >= self.limit {
            return Err(Cause::Busy(Resource::Regions));
        }
        table.reserve(kind).map_err(|_| Cause::OutOfMemory { bytes: Table::BYTES_PER_REGION })?;
        let id = table.vacant_id().ok_or(Cause::Busy(Resource::Regions))?;
        let region = Arc::new(Region { id, memory, rights, key, gate: Gate::new() });
        table.insert(Arc::clone(&region), kind, base, end);
        Ok(region)
    }

    /// The region of this id, while it is registered.
    pub fn get(&self, id: RegionId) -> Option<Arc<Region>> {
        self.read().live(id).map(|live| Arc::clone(&live.region))
    }

    /// Takes the region out of the table and closes its gate: nobody finds it any more, and no new
    /// lease on it begins. The caller then waits until the gate has drained
    /// ([`Gate::on_drained`]); only then is the memory the caller's own again.
    ///
    /// # Errors
    /// The id names no region, or none any more.
    pub fn deregister(&self, id: RegionId) -> Result<Arc<Region>, Invalid> {
        let region = self.write().remove(id).ok_or(Invalid::UnknownRegion)?;
        // Without the lock, for closing an idle gate runs wakers.
        region.gate.close();
        Ok(region)
    }

    /// The region of this kind that contains all of `len` bytes at `address`, and the offset of
    /// `address` in it. Of several the smallest; of equally small ones the oldest. An empty range
    /// lies in no region.
    pub fn find(&self, kind: MemoryKind, address: u64, len: u64) -> Option<(Arc<Region>, u64)> {
        let last = address.checked_add(len.checked_sub(1)?)?;
        let table = self.read();
        let found = table.intervals.get(&kind)?.smallest_containing(address, last)?;
        let live = table.entries.get(found.index as usize)?.live.as_ref()?;
        Some((Arc::clone(&live.region), address - found.base))
    }

    /// The regions of this kind that share at least one byte with `len` bytes at `address`, by
    /// base address. A range that reaches beyond the address space is cut at its end.
    pub fn overlapping(&self, kind: MemoryKind, address: u64, len: u64) -> Vec<RegionId> {
        let table = self.read();
        let Some(intervals) = table.intervals.get(&kind) else { return Vec::new() };
        let mut ids: Vec<RegionId> = intervals
            .overlapping(address, address.saturating_add(len))
            .filter_map(|interval| table.entries.get(interval.index as usize)?.live.as_ref())
            .map(|live| live.region.id)
            .collect();
        ids.reverse();
        ids
    }

    /// All regions as they are now, oldest first.
    pub fn snapshot(&self) -> Vec<Arc<Region>> {
        self.select(|_| true)
    }

    /// Publishes a region: from now on, and as long as it is registered, whoever asks is told of it,
    /// and of its key. Once more does nothing.
    ///
    /// # Errors
    /// The id names no region, or none any more.
    pub fn publish(&self, id: RegionId) -> Result<(), Invalid> {
        let mut table = self.write();
        let live = table.live_mut(id).ok_or(Invalid::UnknownRegion)?;
        live.published = true;
        Ok(())
    }

    /// The regions that are published now, oldest first.
    pub fn published(&self) -> Vec<Arc<Region>> {
        self.select(|live| live.published)
    }

    fn select(&self, wanted: impl Fn(&Live) -> bool) -> Vec<Arc<Region>> {
        let table = self.read();
        let live = table.entries.iter().filter_map(|entry| entry.live.as_ref());
        let mut live: Vec<&Live> = live.filter(|live| wanted(live)).collect();
        live.sort_unstable_by_key(|live| live.age);
        live.into_iter().map(|live| Arc::clone(&live.region)).collect()
    }

    /// Deregisters everything, for ever: later calls to [`Registry::register`] fail. The caller
    /// waits for the gates of the regions returned.
    pub fn close_all(&self) -> Vec<Arc<Region>> {
        let regions = self.write().close();
        regions.iter().for_each(|region| region.gate.close());
        regions
    }

    // A panic while the lock is held would be one of this file's own code, between two steps that
    // leave the table whole: the lock's poison says nothing worth failing for.

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default)]
struct Table {
    /// By the index of the region's id.
    entries: Vec<Entry>,
    /// Entries without a region, but for those whose generations are used up. Its capacity is
    /// that of `entries`, so that deregistering never allocates.
    free: Vec<u32>,
    /// Entries with a region.
    live: usize,
    /// The address ranges of the live regions.
    intervals: BTreeMap<MemoryKind, Intervals>,
    /// Regions registered since the beginning: the age of the next.
    registered: u64,
    /// Whether the registry was closed for ever.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    /// The generation of the region that is here, or comes next.
    generation: u32,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    region: Arc<Region>,
    kind: MemoryKind,
    base: u64,
    /// How many regions had been registered before.
    age: u64,
    /// Whether whoever asks is told of it.
    published: bool,
}

impl Table {
    /// What one more region costs at least, for an error's text.
    const BYTES_PER_REGION: u64 =
        (size_of::<Entry>() + size_of::<u32>() + size_of::<Region>() + Intervals::BYTES_EACH)
            as u64;

    /// Makes room for one more region, so that nothing after this can fail.
    fn reserve(&mut self, kind: MemoryKind) -> Result<(), TryReserveError> {
        self.entries.try_reserve(1)?;
        self.free.try_reserve(self.entries.len() + 1 - self.free.len())?;
        self.intervals.entry(kind).or_default().try_reserve_one()
    }

    /// The id that the next region gets; `None` if all 2^32 indices are used up.
    fn vacant_id(&self) -> Option<RegionId> {
        match self.free.last() {
            Some(&index) => {
                Some(RegionId::new(index, self.entries.get(index as usize)?.generation))
            }
            None => Some(RegionId::new(u32::try_from(self.entries.len()).ok()?, 1)),
        }
    }

    /// Puts a region in that bears the vacant id.
    fn insert(&mut self, region: Arc<Region>, kind: MemoryKind, base: u64, end: u64) {
        let (index, generation) = (region.id.index(), region.id.generation());
        let age = self.registered;
        let live = Some(Live { region, kind, base, age, published: false });
        match self.free.pop().and_then(|index| self.entries.get_mut(index as usize)) {
            Some(entry) => entry.live = live,
            None => self.entries.push(Entry { generation, live }),
        }
        self.intervals.entry(kind).or_default().insert(Interval { base, end, age, index });
        self.registered += 1;
        self.live += 1;
    }

    fn live(&self, id: RegionId) -> Option<&Live> {
        let entry = self.entries.get(id.index() as usize)?;
        entry.live.as_ref().filter(|_| entry.generation == id.generation())
    }

    fn live_mut(&mut self, id: RegionId) -> Option<&mut Live> {
        let entry = self.entries.get_mut(id.index() as usize)?;
        entry.live.as_mut().filter(|_| entry.generation == id.generation())
    }

    fn remove(&mut self, id: RegionId) -> Option<Arc<Region>> {
        let entry = self.entries.get_mut(id.index() as usize)?;
        let live = entry.live.take_if(|_| entry.generation == id.generation())?;
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            self.free.push(id.index());
        }
        if let Some(intervals) = self.intervals.get_mut(&live.kind) {
            intervals.remove(live.base, live.age);
        }
        self.live -= 1;
        Some(live.region)
    }

    fn close(&mut self) -> Vec<Arc<Region>> {
        let table = mem::replace(self, Self { closed: true, ..Self::default() });
        table.entries.into_iter().filter_map(|entry| Some(entry.live?.region)).collect()
    }
}

#[cfg(test)]
mod tests;
