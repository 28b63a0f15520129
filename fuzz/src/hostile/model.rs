//! What a puppet may touch: said from what the peer told it, in the dumbest way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvx_core::error::Refusal;
use kvx_core::id::{GrantId, RegionId, Slot, TransferId};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Placement};
use kvx_core::region::{Gate, Region, Rights};
use kvx_core::time::Time;
use kvx_core::wire::message::{Grant, RegionOpened};
use kvx_core::wire::metadata::RegionDescription;
use kvx_core::wire::{FrameHeader, WireSpan};

/// Bytes of every region.
pub(super) const LEN: u64 = 160;
/// Kinds of regions that there are from the start: by their rights.
pub(super) const KINDS: u8 = 4;

/// Everything that is known.
#[derive(Default)]
pub(super) struct Model {
    places: Vec<Place>,
    /// Slots that the peer gave out: the place, and whether its key was shown.
    slots: BTreeMap<u32, (usize, bool)>,
    grants: BTreeMap<GrantId, Given>,
    /// The puppet's WRITEs: runs that have landed.
    landed: BTreeMap<TransferId, BTreeSet<u32>>,
    /// Those that are complete, cancelled or refused.
    fenced: BTreeSet<TransferId>,
}

/// Registered memory, also after its end.
pub(super) struct Place {
    pub(super) region: Arc<Region>,
    pub(super) base: u64,
    /// Its bytes: what has landed is entered.
    pub(super) seen: Vec<u8>,
    pub(super) live: bool,
    published: bool,
}

/// A grant that the puppet has.
struct Given {
    gate: Arc<Gate>,
    /// The place that all pools lie in.
    place: usize,
    /// Every byte that it allows: slot and offset.
    bytes: BTreeSet<(u32, u64)>,
    open: bool,
}

impl Model {
    pub(super) fn add(&mut self, region: Arc<Region>, base: u64, seen: Vec<u8>) {
        self.places.push(Place { region, base, seen, live: true, published: false });
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    pub(super) fn place_of(&mut self, region: &Region) -> &mut Place {
        let place = self.places.iter_mut().find(|place| place.region.id == region.id);
        place.expect("a region that was registered")
    }

    /// Places in use, of which a number chooses one.
    pub(super) fn live(&self, which: u8) -> Option<usize> {
        let live = self.places.iter().zip(0..).filter(|(place, _)| place.live);
        let live: Vec<usize> = live.map(|(_, index)| index).collect();
        live.get(usize::from(which) % live.len().max(1)).copied()
    }

    pub(super) fn deregistered(&mut self, index: usize) {
        self.places[index].live = false;
    }

    pub(super) fn published(&mut self, index: usize) {
        self.places[index].published = true;
    }

    /// The peer tells what it publishes: all of that, as it was when it was asked. What was
    /// deregistered since may be told.
    pub(super) fn listed(&self, told: &[RegionDescription]) {
        let mut published = self.places.iter().filter(|place| place.published);
        let mut told = told.iter();
        let mut next = told.next();
        for place in published.by_ref() {
            if next.is_some_and(|told| *told == place.region.describe()) {
                next = told.next();
            } else {
                assert!(!place.live, "a published region is not told of");
            }
        }
        assert_eq!(next, None, "a region is told of that is not published");
    }

    pub(super) fn granted(&mut self, id: GrantId, gate: Arc<Gate>) {
        let given = Given { gate, place: self.pool(), bytes: BTreeSet::new(), open: true };
        assert!(self.grants.insert(id, given).is_none(), "an id was given twice");
    }

    /// The first message of a grant shows its slots; all blocks of ours fit in it.
    pub(super) fn showed_grant(&mut self, grant: &Grant) {
        let given = self.grants.get_mut(&grant.grant).expect("a grant that was given");
        for slot in &grant.slots {
            self.slots.entry(slot.0).or_insert((given.place, false));
        }
        let layout = &grant.layout;
        for pool in &layout.pools {
            for block in &grant.blocks {
                let start = pool.offset + u64::from(*block) * layout.block_stride;
                let slot = grant.slots[pool.region as usize].0;
                given.bytes.extend((start..start + layout.block_bytes()).map(|at| (slot, at)));
            }
        }
    }

    pub(super) fn grant_over(&mut self, id: GrantId) {
        let given = self.grants.get_mut(&id).expect("a grant that was given");
        assert!(std::mem::replace(&mut given.open, false), "a session ended twice");
        assert!(given.gate.is_drained(), "a session is over and its bytes may land");
    }

    /// A grant that stands, which a number chooses.
    pub(super) fn standing_grant(&self, which: u8) -> Option<GrantId> {
        let standing = self.grants.iter().filter(|(_, given)| given.open).map(|(id, _)| *id);
        let standing: Vec<GrantId> = standing.collect();
        standing.get(usize::from(which) % standing.len().max(1)).copied()
    }

    /// A grant that was ever given, which a number chooses.
    pub(super) fn any_grant(&self, which: u8) -> GrantId {
        let index = usize::from(which) % (self.grants.len() + 1);
        self.grants.keys().nth(index).copied().unwrap_or(GrantId(u64::from(which) + 1))
    }

    pub(super) fn opened(&mut self, answers: &[RegionOpened]) {
        for RegionOpened { region, slot } in answers {
            if let Ok(slot) = slot {
                let place = self.index_of(*region);
                let known = self.slots.entry(slot.0).or_insert((place, true));
                assert_eq!(known.0, place, "a slot names two regions");
                known.1 = true;
            }
        }
    }

    pub(super) fn refused(&mut self, transfer: TransferId, refusal: Refusal) {
        if refusal != Refusal::Expired && !transfer.is_read() {
            self.fenced.insert(transfer);
        }
    }

    pub(super) fn cancelled(&mut self, transfer: TransferId) {
        self.fenced.insert(transfer);
    }

    /// Both sides have begun anew: nothing of what was holds, but grants are told to be over.
    pub(super) fn restart(&mut self) {
        self.slots.clear();
        self.landed.clear();
        self.fenced.clear();
    }

    /// Whether all of a WRITE frame may land now.
    pub(super) fn allows(&self, header: &FrameHeader, table: &[WireSpan], now: Time) -> bool {
        let known = |span: &WireSpan| {
            let (place, shown) = self.slots.get(&span.slot.0)?;
            Some((&self.places[*place], *shown))
        };
        let span_allowed = |span: &WireSpan| {
            let Some((place, shown)) = known(span) else { return false };
            let end = span.offset.checked_add(span.len.into());
            let Some(end) = end.filter(|end| *end <= LEN && place.live) else { return false };
            match header.grant.map(|grant| self.grants.get(&grant)) {
                None => shown && place.region.rights.contains(Rights::REMOTE_WRITE),
                Some(None) => false,
                Some(Some(given)) => {
                    let byte = |at| given.bytes.contains(&(span.slot.0, at));
                    given.open && (span.offset..end).all(byte)
                }
            }
        };
        now < header.expiry
            && !self.fenced.contains(&header.transfer)
            && table.iter().all(span_allowed)
    }

    /// A WRITE frame has landed. Says whether its transfer is complete thereby.
    pub(super) fn has_landed(&mut self, header: &FrameHeader) {
        let runs = self.landed.entry(header.transfer).or_default();
        runs.extend(header.first_run..header.first_run + header.runs);
        if runs.len() == header.total_runs as usize {
            self.fenced.insert(header.transfer);
        }
    }

    /// The place behind a slot, for READs: what the peer hands out must be readable.
    pub(super) fn may_read(&self, region: &Region) -> bool {
        let place = self.places.iter().find(|place| place.region.id == region.id);
        place.is_some_and(|place| place.live && region.rights.contains(Rights::REMOTE_READ))
    }

    /// A region of the victim, and its key or another.
    pub(super) fn name(&self, which: u8) -> Option<&Arc<Region>> {
        let index = usize::from(which) % (self.places.len() + 1);
        self.places.get(index).map(|place| &place.region)
    }

    pub(super) fn region(&self, index: usize) -> &Arc<Region> {
        &self.places[index].region
    }

    /// Where grants lie: the newest pool.
    pub(super) fn pool(&self) -> usize {
        let pool = self.places.iter().rposition(|place| place.region.rights.is_empty());
        pool.expect("a pool")
    }

    fn index_of(&self, region: RegionId) -> usize {
        let known = self.places.iter().position(|place| place.region.id == region);
        known.expect("a region that was registered")
    }
}

/// Two layers of keys and values, four blocks of two tokens of four bytes: 128 bytes.
pub(super) fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 1, total: 1 };
    let layout = LayoutBuilder::key_value(2, 4, heads, 4, Dtype::Fp8).block_tokens(2);
    layout.placement(Placement::OneRegion).build().expect("a layout that makes sense")
}

/// The rights of a kind of region.
pub(super) fn rights(kind: u8) -> Rights {
    match kind % KINDS {
        0 => Rights::all(),
        1 => Rights::REMOTE_READ,
        2 => Rights::REMOTE_WRITE,
        _ => Rights::empty(),
    }
}

/// A slot that a number chooses.
pub(super) fn slot(number: u8) -> Slot {
    Slot(u32::from(number % 6))
}
