//! The memory of simulated engines as their users see it: cells that are used by one transfer at a
//! time, and regions that are deregistered and registered anew.

use std::sync::Arc;

use crate::plan::{Span, Spans};
use crate::region::{Region, RegionKey, Rights};
use crate::testing::memory::Segment;
use crate::testing::sim::ledger::{Cell, Holding};
use crate::testing::sim::sessions::Pool;
use crate::testing::sim::{Fault, World};

/// Bytes of a cell, the unit in which memory is used.
pub(crate) const CELL: u64 = 96;
/// Cells of an estate.
const CELLS: usize = 64;
/// Estates of an engine.
const ESTATES: usize = 3;
/// Bytes before and behind a region that nobody may touch.
pub(crate) const GUARD: u64 = 64;
/// The memory of one engine's life.
#[derive(Default)]
pub(crate) struct Belongings {
    pub(crate) estates: Vec<Estate>,
    /// Regions whose keys hostile engines are told.
    pub(crate) baits: Vec<Bait>,
    pub(crate) pool: Option<Pool>,
}

/// A region that hostile engines may use, as far as its rights go.
pub(crate) struct Bait {
    pub(crate) region: Arc<Region>,
    pub(crate) segment: Segment,
    /// What it held when it was last fenced; `None` while it is open.
    pub(crate) held: Option<Vec<u8>>,
}

impl Belongings {
    /// Whether this is a region that hostile engines may use so.
    pub(crate) fn is_bait(&self, region: &Arc<Region>, right: Rights) -> bool {
        let mut baits = self.baits.iter();
        baits.any(|bait| Arc::ptr_eq(&bait.region, region)) && region.rights.contains(right)
    }
}

/// A region cut in cells.
pub(crate) struct Estate {
    pub(crate) region: Arc<Region>,
    pub(crate) segment: Segment,
    /// What each cell holds while nobody uses it; `None` while a transfer does.
    pub(crate) cells: Vec<Option<Vec<u8>>>,
}

impl World {
    /// Gives an engine its memory.
    pub(crate) fn furnish(&mut self, index: usize) {
        for _ in 0..ESTATES {
            let len = CELL * CELLS as u64;
            let segment = self.engines[index].memory.allocate((len + 2 * GUARD) as usize, 0x11);
            let segment = Segment { base: segment.base + GUARD, len };
            let region = self.register(index, segment, Rights::all());
            let cells = vec![Some(vec![0x11; CELL as usize]); CELLS];
            self.engines[index].belongings.estates.push(Estate { region, segment, cells });
        }
        let pool = self.new_pool(index);
        self.engines[index].belongings.pool = Some(pool);
        if !self.setting.is_hostile(index) {
            self.lay_baits(index);
        }
    }

    pub(crate) fn register(
        &mut self,
        index: usize,
        segment: Segment,
        rights: Rights,
    ) -> Arc<Region> {
        let key = RegionKey::new(self.random.bytes());
        let registry = &self.engines[index].registry;
        registry.register(segment.provider(), rights, key).expect("room for a region")
    }
    pub(super) fn deregister_one(&mut self, engine: usize) {
        let estate = self.random.index(ESTATES);
        self.deregister_estate(engine, estate);
    }

    pub(crate) fn deregister_estate(&mut self, engine: usize, estate: usize) {
        let here = &self.engines[engine].belongings.estates[estate];
        let busy = here.cells.iter().any(Option::is_none);
        let region = Arc::clone(&here.region);
        if region.gate.is_open() {
            self.count(if busy { Fault::DeregisterBusy } else { Fault::DeregisterIdle });
            self.deregister(engine, &region, Holding::Estate(estate));
        }
    }

    pub(super) fn deregister_pool(&mut self, engine: usize) {
        let pool = self.engines[engine].belongings.pool.as_ref();
        let regions: Vec<Arc<Region>> = pool.map(|pool| pool.regions.clone()).unwrap_or_default();
        if regions.iter().all(|region| region.gate.is_open()) {
            self.count(Fault::DeregisterPool);
            for (index, region) in regions.iter().enumerate() {
                self.deregister(engine, region, Holding::Pool(index));
            }
        }
    }

    /// Deregisters a region. Once it is drained, its memory is registered anew.
    pub(crate) fn deregister(&mut self, engine: usize, region: &Arc<Region>, holding: Holding) {
        self.note(|| format!("{engine} deregisters {holding:?}"));
        let remotes: Vec<usize> = self.engines[engine].links.keys().copied().collect();
        let close = |world: &mut Self| {
            for remote in &remotes {
                if let Some(link) = world.engines[engine].links.get_mut(remote) {
                    link.peer.close_region(region.id);
                    world.attend(engine, *remote);
                }
            }
        };
        close(self);
        let registry = Arc::clone(&self.engines[engine].registry);
        registry.deregister(region.id).expect("it was registered");
        close(self);
        let life = self.engines[engine].life;
        self.ledger.drain_region(Arc::clone(region), (engine, life), holding);
    }

    /// A region that was deregistered is drained: its memory is its owner's, who registers it anew.
    pub(crate) fn register_again(&mut self, engine: usize, holding: Holding, rights: Rights) {
        if let Holding::Bait(index) = holding {
            return self.hold_bait(engine, index);
        }
        let segment = match holding {
            Holding::Estate(estate) => self.engines[engine].belongings.estates[estate].segment,
            Holding::Pool(index) => self.pool(engine).segments[index],
            Holding::Bait(index) => self.engines[engine].belongings.baits[index].segment,
        };
        let again = self.register(engine, segment, rights);
        match holding {
            Holding::Estate(estate) => {
                self.engines[engine].belongings.estates[estate].region = again;
            }
            Holding::Pool(index) => self.pool(engine).regions[index] = again,
            Holding::Bait(index) => self.engines[engine].belongings.baits[index].region = again,
        }
    }

    /// The regions of these cells, each once, and the cells as spans of them.
    pub(super) fn as_spans(&self, cells: &[Cell]) -> (Vec<Arc<Region>>, Spans) {
        let mut estates: Vec<usize> = cells.iter().map(|cell| cell.estate).collect();
        estates.sort_unstable();
        estates.dedup();
        let span = |cell: &Cell| Span {
            region: estates.partition_point(|estate| *estate < cell.estate) as u32,
            offset: cell.index as u64 * CELL,
            len: CELL,
        };
        let spans = cells.iter().map(span).collect();
        let owner = cells.first().map_or(0, |cell| cell.owner.0);
        let here = &self.engines[owner].belongings.estates;
        (estates.iter().map(|estate| Arc::clone(&here[*estate].region)).collect(), spans)
    }

    /// Some cells of an engine that nobody uses, which are used from here on. They must be as they
    /// were left.
    pub(super) fn take_cells(&mut self, engine: usize, count: usize) -> Option<Vec<Cell>> {
        let life = self.engines[engine].life;
        let estates = &self.engines[engine].belongings.estates;
        let mut free: Vec<Cell> = Vec::new();
        for (estate, here) in estates.iter().enumerate() {
            if here.region.gate.is_open() {
                let unused = |(_, held): &(usize, &Option<Vec<u8>>)| held.is_some();
                let cells = here.cells.iter().enumerate().filter(unused);
                free.extend(cells.map(|(index, _)| Cell { owner: (engine, life), estate, index }));
            }
        }
        if free.len() < count {
            return None;
        }
        let from = self.random.index(free.len() - count + 1);
        let mut taken: Vec<Cell> = if self.random.percent(50) {
            free[from..from + count].to_vec()
        } else {
            (0..count).map(|_| free.swap_remove(self.random.index(free.len()))).collect()
        };
        if self.random.percent(30) {
            taken.reverse();
        }
        for cell in &taken {
            self.check_untouched(*cell);
            self.engines[engine].belongings.estates[cell.estate].cells[cell.index] = None;
        }
        Some(taken)
    }

    /// Nobody uses these cells any more. What they hold now must stay, until someone does again.
    pub(crate) fn free_cells(&mut self, cells: &[Cell]) {
        for cell in cells {
            let (engine, life) = cell.owner;
            if self.engines[engine].life == life {
                let held = self.scribble_if(*cell);
                self.engines[engine].belongings.estates[cell.estate].cells[cell.index] = Some(held);
            }
        }
    }

    /// Half of the cells get other contents when they become free: whoever still sends from them
    /// sends that.
    fn scribble_if(&mut self, cell: Cell) -> Vec<u8> {
        if self.random.percent(50) {
            return self.scribble(cell);
        }
        let address = self.address(cell);
        self.engines[cell.owner.0].memory.bytes(address, CELL as usize).to_vec()
    }

    /// Fills a cell anew.
    pub(super) fn scribble(&mut self, cell: Cell) -> Vec<u8> {
        let address = self.address(cell);
        let mut random = self.random.fork();
        let bytes: Vec<u8> = (0..CELL).map(|_| random.bits() as u8).collect();
        self.engines[cell.owner.0].memory.bytes_mut(address, bytes.len()).copy_from_slice(&bytes);
        bytes
    }

    pub(crate) fn address(&self, cell: Cell) -> u64 {
        let estate = &self.engines[cell.owner.0].belongings.estates[cell.estate];
        estate.segment.base + cell.index as u64 * CELL
    }

    pub(crate) fn check_untouched(&self, cell: Cell) {
        let (engine, _) = cell.owner;
        if self.setting.is_hostile(engine) {
            return;
        }
        let held = &self.engines[engine].belongings.estates[cell.estate].cells[cell.index];
        if let Some(held) = held {
            let now = self.engines[engine].memory.bytes(self.address(cell), CELL as usize);
            assert!(now == &held[..], "memory that is its owner's alone was changed: {cell:?}");
        }
    }
}
