//! Which engines a run has, who talks to whom, and what may befall them: drawn from the seed.

use std::fmt;

use crate::testing::random::Random;
use crate::testing::sim::{Instant, MS, SECOND};

/// A run, by what tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Everything random comes from it.
    pub seed: u64,
    /// Many engines, each with a few peers; `None`: a few that all talk to each other.
    pub engines: Option<usize>,
}

/// As environment variables that run it again.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KVX_SIM_SEED={}", self.seed)?;
        self.engines.map_or(Ok(()), |engines| write!(f, " KVX_SIM_ENGINES={engines}"))
    }
}

/// What an engine is, and what may befall it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Keeps the rules; anything may befall it.
    Honest,
    /// Keeps the rules, and nothing befalls it: what it does with its like must go well, whatever
    /// befalls others.
    Spared,
    /// Speaks the protocol and breaks its rules.
    Hostile,
}

/// A scenario's particulars.
pub(crate) struct Setting {
    pub(crate) natures: Vec<Nature>,
    /// Whom each engine's user talks to, ascending.
    pub(crate) partners: Vec<Vec<usize>>,
    /// When faults and new work end.
    pub(crate) calm_at: Instant,
    /// Between two things that a user does, at most.
    pub(crate) user_pause: Instant,
    /// Between two faults, at most.
    pub(crate) fault_pause: Instant,
    /// Whether clocks jump. What expiries promise rests on clocks that do not.
    pub(crate) jumps: bool,
    /// Whether engines let in who holds their metadata, instead of who holds a key of all.
    pub(crate) by_metadata: bool,
}

impl Setting {
    pub(crate) fn new(scenario: Scenario, random: &mut Random) -> Self {
        let setting = match scenario.engines {
            Some(engines) => Self::large(engines.max(2), random),
            None => Self::small(random),
        };
        Self { by_metadata: scenario.seed % 4 == 3, ..setting }
    }

    /// A few engines that all talk to each other: honest ones alone, or with hostile ones, or with
    /// some that are spared.
    fn small(random: &mut Random) -> Self {
        use Nature::{Honest, Hostile, Spared};
        let mut natures = match random.within(0..4) {
            0 | 1 => vec![Honest; 2 + random.index(3)],
            2 => [vec![Honest; 1 + random.index(3)], vec![Hostile; 1 + random.index(2)]].concat(),
            _ => vec![Spared, Spared, Honest, Hostile],
        };
        // Ids decide which of two connections stays: every kind is to have high and low ones.
        for last in (1..natures.len()).rev() {
            natures.swap(last, random.index(last + 1));
        }
        let engines = natures.len();
        let others = |engine| (0..engines).filter(|other| *other != engine).collect();
        Self {
            partners: (0..engines).map(others).collect(),
            natures,
            calm_at: random.within(4..12) * SECOND,
            user_pause: 300 * MS,
            fault_pause: 200 * MS,
            jumps: random.percent(30),
            by_metadata: false,
        }
    }

    /// Prefill and decode engines in equal number, each decode engine with a few prefill engines.
    /// Every twentieth is hostile, every tenth spared.
    fn large(engines: usize, random: &mut Random) -> Self {
        let nature = |index: usize| match index % 20 {
            7 => Nature::Hostile,
            0 | 1 => Nature::Spared,
            _ => Nature::Honest,
        };
        let mut partners = vec![Vec::new(); engines];
        for decode in (1..engines).step_by(2) {
            let prefills = engines.div_ceil(2);
            // Neighbours first, so that spared ones have spared ones.
            let mut mine = vec![decode - 1];
            for _ in 0..1 + random.index(3) {
                mine.push(2 * random.index(prefills));
            }
            mine.sort_unstable();
            mine.dedup();
            for prefill in mine {
                partners[prefill].push(decode);
                partners[decode].push(prefill);
            }
        }
        // An odd one out, which nobody chose.
        if partners[engines - 1].is_empty() {
            partners[engines - 1].push(1);
            partners[1].push(engines - 1);
        }
        partners.iter_mut().for_each(|partners| {
            partners.sort_unstable();
            partners.dedup();
        });
        Self {
            natures: (0..engines).map(nature).collect(),
            partners,
            calm_at: random.within(6..10) * SECOND,
            user_pause: 600 * MS,
            fault_pause: (800 * MS / engines as u64).max(1),
            jumps: random.percent(20),
            by_metadata: false,
        }
    }

    pub(crate) fn is_hostile(&self, engine: usize) -> bool {
        self.natures[engine] == Nature::Hostile
    }

    pub(crate) fn is_spared(&self, engine: usize) -> bool {
        self.natures[engine] == Nature::Spared
    }
}
