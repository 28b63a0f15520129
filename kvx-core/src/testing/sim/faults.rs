//! What breaks, and when: which faults befall whom. What users and hostile engines do is theirs.

mod engines;
mod landing;
mod roads;

use crate::testing::sim::network::ConnId;
use crate::testing::sim::{Fault, Happening, Instant, MS, World};

impl World {
    /// Breaks something and asks for the next fault; heals everything when the time for faults is
    /// over.
    pub(crate) fn break_something(&mut self) {
        if self.is_calm() {
            return self.heal();
        }
        match self.random.within(0..100) {
            0..7 => self.cut_one(Fault::ControlCut),
            7..16 => self.cut_one(Fault::LaneCut),
            16..20 => self.network.cut_dials += 1,
            20..24 => self.part(Fault::Partition),
            24..28 => self.part(Fault::OneWayPartition),
            28..32 => self.part(Fault::LanesPartition),
            32..38 => self.part_one_lane(),
            38..41 => self.delay_two(),
            41..48 => self.garble_one(Fault::GarbledControl),
            48..59 => self.garble_one(Fault::GarbledFrame),
            59..62 => self.network.garbled_dials += 1,
            62..66 => self.cross_dials(),
            66..73 => self.stall_one(),
            73..78 => self.stop_one(),
            78..82 => self.slow_one(),
            82..86 => self.crash_one(),
            86..89 => self.lose_host(),
            89..93 => self.shut_one_down(),
            93..97 if self.setting.jumps => self.jump_one_clock(),
            _ => self.remove_one(),
        }
        let pause = self.random.within(0..self.setting.fault_pause);
        self.after(pause, Happening::Fault);
    }

    fn heal(&mut self) {
        self.network.heal();
        for engine in 0..self.engines.len() {
            self.go_on(engine);
        }
    }

    /// An engine that something may befall.
    fn pick_engine(&mut self) -> Option<usize> {
        let engine = self.random.index(self.engines.len());
        (!self.setting.is_spared(engine)).then_some(engine)
    }

    /// Two engines that talk to each other, one of which something may befall.
    fn pick_pair(&mut self) -> Option<(usize, usize)> {
        let engine = self.random.index(self.engines.len());
        let partners = &self.setting.partners[engine];
        let other = partners[self.random.index(partners.len())];
        (!self.are_both_spared(engine, other)).then_some((engine, other))
    }

    /// A connection for this kind of fault.
    fn pick_conn(&mut self, fault: Fault) -> Option<ConnId> {
        let (engine, remote) = self.pick_pair()?;
        let link = self.engines[engine].links.get(&remote)?;
        let lanes: Vec<ConnId> = link.lanes.values().map(|(id, _)| *id).collect();
        match fault {
            Fault::ControlCut | Fault::GarbledControl => link.control,
            Fault::Stall if self.random.percent(30) => link.control,
            _ if lanes.is_empty() => None,
            _ => Some(lanes[self.random.index(lanes.len())]),
        }
    }

    fn are_both_spared(&self, a: usize, b: usize) -> bool {
        self.setting.is_spared(a) && self.setting.is_spared(b)
    }

    /// Until when a fault lasts that begins now.
    fn fault_until(&mut self, at_most: Instant) -> Instant {
        let until = self.now + self.random.within(50 * MS..at_most);
        until.min(self.setting.calm_at)
    }
}
