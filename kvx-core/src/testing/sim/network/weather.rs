//! What the network is like: delays, losses, partitions.

use std::collections::BTreeMap;

use crate::testing::random::Random;
use crate::testing::sim::network::ConnId;
use crate::testing::sim::{Fault, Happening, Instant, MS, World};

/// How long TCP waits before it sends a lost packet again, at least.
const RETRANSMISSION: Instant = 200 * MS;

/// What passes or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Control connections and what is not verified yet.
    Control,
    /// Lanes.
    Lanes,
}

/// What the network is like in this run.
pub(crate) struct Network {
    pub(super) made: u64,
    /// Usual one-way delay, at most.
    delay: Instant,
    /// Packets lost, in a thousand.
    loss_permille: u64,
    /// From whom, to whom and what does not pass, and until when.
    parted: BTreeMap<(usize, usize, Scope), Instant>,
    /// Pairs of engines, lower first, between which everything takes this much longer until then.
    slowed: BTreeMap<(usize, usize), (Instant, Instant)>,
    /// Dials that are still to be cut, and to be damaged.
    pub(crate) cut_dials: u32,
    pub(crate) garbled_dials: u32,
}

impl Network {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            made: 0,
            delay: [MS / 10, MS, 10 * MS, 100 * MS][random.index(4)],
            loss_permille: random.within(0..8),
            parted: BTreeMap::new(),
            slowed: BTreeMap::new(),
            cut_dials: 0,
            garbled_dials: 0,
        }
    }

    /// Nothing of this scope passes from one engine to another until then.
    pub(crate) fn part(&mut self, from: usize, to: usize, scope: Scope, until: Instant) {
        self.parted.insert((from, to, scope), until);
    }

    /// Everything between two engines takes longer until then.
    pub(crate) fn slow(&mut self, a: usize, b: usize, extra: Instant, until: Instant) {
        self.slowed.insert((a.min(b), a.max(b)), (extra, until));
    }

    pub(crate) fn heal(&mut self) {
        self.parted.clear();
        self.slowed.clear();
        (self.cut_dials, self.garbled_dials) = (0, 0);
    }

    pub(super) fn parted_until(&self, from: usize, to: usize, scope: Scope) -> Instant {
        self.parted.get(&(from, to, scope)).copied().unwrap_or(0)
    }
}

impl World {
    /// How long bytes take from one engine to another.
    pub(super) fn delay(&mut self, from: usize, to: usize) -> Instant {
        let usual = self.random.within(1..self.network.delay.max(2));
        let pair = (from.min(to), from.max(to));
        let slowed = self.network.slowed.get(&pair).filter(|(_, until)| *until > self.now);
        let extra = slowed.map_or(0, |(extra, _)| *extra);
        let calm = self.is_calm() || (self.setting.is_spared(from) && self.setting.is_spared(to));
        if !calm && self.random.within(0..1000) < self.network.loss_permille {
            self.count(Fault::Loss);
            return usual + extra + RETRANSMISSION + self.random.within(0..200) * MS;
        }
        usual + extra
    }

    /// A connection that has just been dialed may be one that breaks, or is damaged, at once.
    pub(super) fn trouble_dial(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.engines.iter().all(|engine| self.setting.is_spared(*engine)) {
            return;
        }
        if self.network.cut_dials > 0 {
            self.network.cut_dials -= 1;
            self.count(Fault::HandshakeCut);
            let soon = self.random.within(0..4 * self.network.delay);
            self.after(soon, Happening::Cut(id));
        } else if self.network.garbled_dials > 0 {
            self.network.garbled_dials -= 1;
            let to = self.random.index(2);
            self.arm_garbling(id, to);
        }
    }
}
