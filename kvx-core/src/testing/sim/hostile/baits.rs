//! Regions of honest engines whose keys hostile ones know, for they are published: what they may do
//! there, and that it ends when the owner says so.

use crate::region::Rights;
use crate::testing::memory::Segment;
use crate::testing::sim::ledger::Holding;
use crate::testing::sim::user::{Bait, GUARD};
use crate::testing::sim::{Fault, Happening, MS, World};

/// Bytes of a bait.
pub(crate) const BAIT: u64 = 512;
/// What baits hold at first.
const FILL: u8 = 0x33;

impl World {
    /// Gives an engine baits, if it knows any hostile one: for both uses, to be read, to be
    /// written.
    pub(crate) fn lay_baits(&mut self, engine: usize) {
        let mut partners = self.setting.partners[engine].iter();
        if !partners.any(|partner| self.setting.is_hostile(*partner)) {
            return;
        }
        for rights in [Rights::all(), Rights::REMOTE_READ, Rights::REMOTE_WRITE] {
            let whole = self.engines[engine].memory.allocate((BAIT + 2 * GUARD) as usize, FILL);
            let segment = Segment { base: whole.base + GUARD, len: BAIT };
            let region = self.register(engine, segment, rights);
            self.publish(engine, &region);
            self.engines[engine].belongings.baits.push(Bait { region, segment, held: None });
        }
    }

    /// An owner takes one of its baits back.
    pub(crate) fn take_bait(&mut self, engine: usize) {
        let baits = &self.engines[engine].belongings.baits;
        if baits.is_empty() {
            return;
        }
        let index = self.random.index(baits.len());
        let region = self.engines[engine].belongings.baits[index].region.clone();
        if region.gate.is_open() {
            self.count(Fault::DeregisterBait);
            self.deregister(engine, &region, Holding::Bait(index));
        }
    }

    /// A bait is fenced: from here on it changes no more, until it is laid again.
    pub(crate) fn hold_bait(&mut self, engine: usize, index: usize) {
        let segment = self.engines[engine].belongings.baits[index].segment;
        let held = self.engines[engine].memory.bytes(segment.base, BAIT as usize).to_vec();
        self.engines[engine].belongings.baits[index].held = Some(held);
        let pause = self.random.within(20..800) * MS;
        self.after(pause, Happening::LayBait(engine, self.engines[engine].life, index));
    }

    pub(crate) fn lay_bait(&mut self, engine: usize, life: u32, index: usize) {
        let here = &self.engines[engine];
        if here.life != life || !here.is_alive() {
            return;
        }
        self.check_bait(engine, index);
        let Bait { segment, region, .. } = &self.engines[engine].belongings.baits[index];
        let (segment, rights) = (*segment, region.rights);
        let region = self.register(engine, segment, rights);
        self.publish(engine, &region);
        self.engines[engine].belongings.baits[index] = Bait { region, segment, held: None };
    }

    /// What may not be written was not, and around baits nothing was.
    pub(crate) fn check_bait(&self, engine: usize, index: usize) {
        let Bait { region, segment, held } = &self.engines[engine].belongings.baits[index];
        let bytes = |address, len| self.engines[engine].memory.bytes(address, len as usize);
        let fill = |bytes: &[u8]| bytes.iter().all(|byte| *byte == FILL);
        let now = bytes(segment.base, BAIT);
        assert!(held.as_ref().is_none_or(|held| held == now), "a fenced bait changed");
        let writable = region.rights.contains(Rights::REMOTE_WRITE);
        assert!(writable || fill(now), "a bait that is to be read only changed");
        let edges = [segment.base - GUARD, segment.base + BAIT];
        assert!(edges.iter().all(|edge| fill(bytes(*edge, GUARD))), "bytes beside a bait changed");
    }
}
