//! Faults of the roads between engines.

use crate::testing::sim::network::Scope;
use crate::testing::sim::{Fault, Happening, MS, SECOND, World};

impl World {
    pub(super) fn cut_one(&mut self, fault: Fault) {
        let Some(id) = self.pick_conn(fault) else { return };
        self.note(|| format!("{}: {id:?}", fault.name()));
        self.count(fault);
        self.cut(id);
    }

    /// Parts two engines, wholly, one way or for lanes only.
    pub(super) fn part(&mut self, fault: Fault) {
        let Some((a, b)) = self.pick_pair() else { return };
        let until = self.fault_until(5 * SECOND);
        self.note(|| format!("{}: {a} and {b} until {until}", fault.name()));
        self.count(fault);
        let mut part = |from, to, scope| self.network.part(from, to, scope, until);
        part(a, b, Scope::Lanes);
        if fault != Fault::OneWayPartition {
            part(b, a, Scope::Lanes);
        }
        if fault != Fault::LanesPartition {
            part(a, b, Scope::Control);
        }
        if fault == Fault::Partition {
            part(b, a, Scope::Control);
            if self.random.percent(40) {
                // It lasts long enough for their kernels to give up.
                self.cut_all_between(a, b);
            }
        }
    }

    pub(super) fn part_one_lane(&mut self) {
        let Some(id) = self.pick_conn(Fault::OneLanePartition) else { return };
        let pause = self.fault_until(4 * SECOND) - self.now;
        self.note(|| format!("nothing passes on {id:?} for {pause} ns"));
        self.count(Fault::OneLanePartition);
        self.block(id, 0, pause);
        self.block(id, 1, pause);
    }

    pub(super) fn delay_two(&mut self) {
        let Some((a, b)) = self.pick_pair() else { return };
        let until = self.fault_until(3 * SECOND);
        let extra = self.random.within(20..1500) * MS;
        self.note(|| format!("{a} and {b} are {extra} ns further apart until {until}"));
        self.count(Fault::Delay);
        self.network.slow(a, b, extra, until);
    }

    pub(super) fn garble_one(&mut self, fault: Fault) {
        let Some(id) = self.pick_conn(fault) else { return };
        let to = self.random.index(2);
        self.arm_garbling(id, to);
    }

    /// Two engines lose their connection, and both dial at once.
    pub(super) fn cross_dials(&mut self) {
        let Some((a, b)) = self.pick_pair() else { return };
        self.cut_all_between(a, b);
        for (engine, remote) in [(a, b), (b, a)] {
            let life = self.engines[engine].life;
            if self.engines[engine].links.contains_key(&remote) {
                self.after(2 * SECOND, Happening::Redial(engine, life, remote));
            }
        }
    }

    fn cut_all_between(&mut self, a: usize, b: usize) {
        for (id, _) in self.conns_of(a) {
            if self.conns.get(&id).is_some_and(|conn| conn.engines.contains(&b)) {
                self.cut(id);
            }
        }
    }

    /// One end of a connection is not read from for a while, while its kernel acknowledges.
    pub(super) fn stall_one(&mut self) {
        let Some(id) = self.pick_conn(Fault::Stall) else { return };
        let end = self.random.index(2);
        let Some(conn) = self.conns.get(&id) else { return };
        if self.setting.is_spared(conn.engines[end]) {
            return;
        }
        let pause = self.fault_until(4 * SECOND) - self.now;
        self.note(|| format!("end {end} of {id:?} is not read from for {pause} ns"));
        self.count(Fault::Stall);
        self.stall(id, end, pause);
    }
}
