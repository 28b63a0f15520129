//! Sessions as the peer state machine sees them: grants given to the peer, whose memory it may
//! write, and grants got from it. Which Sender or Receiver they belong to, the engine knows.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Cause, Invalid, Resource, Violation};
use crate::id::{Association, GrantId, SessionKey, Slot, TransferId};
use crate::layout::Layout;
use crate::plan::spans_of;
use crate::proto::budget::Budget;
use crate::proto::id_set::IdSet;
use crate::proto::inbound::Standing;
use crate::region::{Gate, GrantMap, Region, Slots};
use crate::wire::WireSpan;
use crate::wire::message::{Grant, MAX_GRANT_BLOCKS, Message};

/// Grants open at once, each way.
const MAX_GRANTS: usize = 16_384;
/// Announcements of layers under one grant.
const MAX_ANNOUNCED: u32 = 65_536;
/// Grants taken back that are remembered: as many as may end within one turn of events.
const MAX_TAKEN_BACK: usize = 256;
/// What one grant costs at least, for the budget.
const GRANT_COST: u64 = 512;

/// What a receiver lets one sender write, prepared apart from any peer: building the map of
/// allowed bytes takes a while for large prompts.
#[derive(Debug)]
pub struct GrantPlan {
    layout: Layout,
    regions: Vec<Arc<Region>>,
    tokens: u32,
    blocks: Vec<u32>,
    /// The allowed bytes, by the layout's region indices.
    map: GrantMap,
}

impl GrantPlan {
    /// Permission to write `blocks` (which stand for `tokens` tokens) of the pools that `layout`
    /// describes in `regions`.
    ///
    /// # Errors
    /// [`Invalid`] where layout, regions and blocks do not fit together.
    pub fn new(
        layout: Layout,
        regions: Vec<Arc<Region>>,
        tokens: u32,
        blocks: Vec<u32>,
    ) -> Result<Self, Cause> {
        let lens: Vec<u64> = regions.iter().map(|region| region.len()).collect();
        layout.validate(&lens)?;
        if tokens == 0 {
            return Err(Cause::Invalid(Invalid::Empty("the prompt")));
        }
        let needed = u64::from(tokens).div_ceil(u64::from(layout.block_tokens));
        if (blocks.len() as u64) < needed {
            let (left, right) = (blocks.len() as u64, needed);
            let what = "blocks granted against blocks needed for the tokens";
            return Err(Cause::Invalid(Invalid::Mismatch { what, left, right }));
        }
        let layers = layout.first_layer..layout.first_layer + layout.layers;
        let spans = spans_of(&layout, layers, &blocks)?;
        let map = GrantMap::build(spans.map(|span| (Slot(span.region), span.offset, span.len)))?;
        Ok(Self { layout, regions, tokens, blocks, map })
    }

    /// All layers, counted in the whole model.
    pub fn layers(&self) -> Range<u32> {
        self.layout.first_layer..self.layout.first_layer + self.layout.layers
    }
}

/// Grants of both directions.
#[derive(Debug)]
pub(crate) struct Grants {
    given: BTreeMap<GrantId, Given>,
    last_given: u64,
    got: BTreeMap<GrantId, Got>,
    /// Grants that the peer took back last, and why: who uses one before the event has reached it
    /// is told the same.
    taken_back: VecDeque<(GrantId, Cause)>,
}

/// A grant that the peer holds.
#[derive(Debug)]
pub(crate) struct Given {
    session: SessionKey,
    plan: Arc<GrantPlan>,
    /// Index into the layout's regions by slot; sorted.
    slots: Vec<(Slot, u32)>,
    /// Bytes land only while it is open.
    gate: Arc<Gate>,
    /// What each of the peer's transfers under it brings, until it is complete.
    expected: BTreeMap<TransferId, Vec<Range<u32>>>,
    /// How many times the sender has announced layers ahead of their transfer.
    announced: u32,
    /// Layers that have arrived.
    layers: IdSet,
    /// Transfers that have arrived.
    writes: u64,
    /// What the sender said at the end.
    end: Option<(u64, Bytes)>,
}

/// A grant that this side may write under.
#[derive(Debug)]
struct Got {
    session: SessionKey,
    slots: Arc<[Slot]>,
    /// Until all block ids are here.
    partial: Option<Box<Grant>>,
    /// Number of our SessionEnd on the control stream, once it is sent.
    ending: Option<u64>,
    charged: u64,
}

/// A grant that has come from the peer whole.
#[derive(Clone, Debug)]
pub struct GrantReceived {
    /// Its id.
    pub grant: GrantId,
    /// Whose session it is.
    pub session: SessionKey,
    /// How the receiver's pools lie.
    pub layout: Layout,
    /// Tokens that the blocks stand for.
    pub tokens: u32,
    /// The receiver's blocks.
    pub blocks: Vec<u32>,
}

/// What a message or a completed transfer changed for a session of this side as receiver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// These layers have arrived.
    Layers(GrantId, Range<u32>),
    /// Everything has.
    Ended(GrantId, SessionKey, Bytes),
}

impl Given {
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether the grant allows these bytes.
    pub(crate) fn covers(&self, span: &WireSpan) -> bool {
        let known = self.slots.binary_search_by_key(&span.slot, |(slot, _)| *slot);
        known.is_ok_and(|index| {
            let region = Slot(self.slots[index].1);
            self.plan.map.covers(region, span.offset, u64::from(span.len))
        })
    }

    fn is_complete(&self) -> bool {
        self.end.as_ref().is_some_and(|(writes, _)| self.writes == *writes)
            && self.expected.is_empty()
    }
}

impl Grants {
    /// Ids are counted from another point for each association: a Sender that has not heard yet
    /// that the receiver forgot it must not write under a new grant of an old id.
    pub(crate) fn new(own: Association) -> Self {
        Self {
            given: BTreeMap::new(),
            last_given: own.0 << 32,
            got: BTreeMap::new(),
            taken_back: VecDeque::new(),
        }
    }

    pub(crate) fn given(&self, grant: GrantId) -> Option<&Given> {
        self.given.get(&grant)
    }

    /// Gives the peer a grant: the messages to be sent are returned.
    pub(crate) fn give(
        &mut self,
        session: SessionKey,
        plan: Arc<GrantPlan>,
        slots: &mut Slots,
    ) -> Result<(GrantId, Arc<Gate>, Vec<Message>), Cause> {
        if self.given.len() >= MAX_GRANTS {
            return Err(Cause::Busy(Resource::Grants));
        }
        let column: Vec<Slot> = plan
            .regions
            .iter()
            .map(|region| slots.offer(Arc::clone(region)))
            .collect::<Result<_, _>>()
            .map_err(|_| Cause::Busy(Resource::Regions))?;
        self.last_given += 1;
        let id = GrantId(self.last_given);
        let mut index: Vec<(Slot, u32)> = column.iter().copied().zip(0..).collect();
        index.sort_unstable();
        let mut parts = plan.blocks.chunks(MAX_GRANT_BLOCKS);
        let first = parts.next().unwrap_or_default().to_vec();
        let mut messages = vec![Message::Grant(Box::new(Grant {
            grant: id,
            session,
            layout: plan.layout.clone(),
            slots: column,
            tokens: plan.tokens,
            total_blocks: plan.blocks.len() as u32,
            blocks: first,
        }))];
        messages
            .extend(parts.map(|part| Message::GrantBlocks { grant: id, blocks: part.to_vec() }));
        let gate = Arc::new(Gate::new());
        self.given.insert(
            id,
            Given {
                session,
                plan,
                slots: index,
                gate: Arc::clone(&gate),
                expected: BTreeMap::new(),
                announced: 0,
                layers: IdSet::new(usize::MAX),
                writes: 0,
                end: None,
            },
        );
        Ok((id, gate, messages))
    }

    /// Takes a grant back. Its gate is closed and returned; once drained, nothing lands any more.
    pub(crate) fn revoke(&mut self, grant: GrantId) -> Option<(SessionKey, Arc<Gate>)> {
        let given = self.given.remove(&grant)?;
        given.gate.close();
        Some((given.session, given.gate))
    }

    /// Takes all grants back: the peer is gone.
    pub(crate) fn revoke_all(&mut self) -> Vec<(GrantId, SessionKey)> {
        let given = std::mem::take(&mut self.given);
        given
            .into_iter()
            .map(|(id, given)| {
                given.gate.close();
                (id, given.session)
            })
            .collect()
    }

    /// A transfer under a grant is complete.
    pub(crate) fn write_completed(
        &mut self,
        grant: GrantId,
        transfer: TransferId,
    ) -> Vec<Progress> {
        let Some(given) = self.given.get_mut(&grant) else { return Vec::new() };
        given.writes += 1;
        let arrived = given.expected.remove(&transfer).unwrap_or_default();
        self.arrived(grant, arrived)
    }

    /// The sender says which layers a transfer brings.
    pub(crate) fn expect_layers(
        &mut self,
        grant: GrantId,
        transfer: TransferId,
        layers: Range<u32>,
        standing: Standing,
    ) -> Result<Vec<Progress>, Violation> {
        let Some(given) = self.given.get_mut(&grant) else { return Ok(Vec::new()) };
        let all = given.plan.layers();
        if layers.is_empty() || layers.start < all.start || layers.end > all.end {
            let why = "the grant has no such layers";
            return Err(Violation::Unexpected { message: "Layers", why });
        }
        match standing {
            Standing::Complete => Ok(self.arrived(grant, vec![layers])),
            Standing::Fenced => Ok(Vec::new()),
            Standing::Open if given.announced >= MAX_ANNOUNCED => {
                Err(Violation::Overrun(Resource::Transfers))
            }
            Standing::Open => {
                given.announced += 1;
                given.expected.entry(transfer).or_default().push(layers);
                Ok(Vec::new())
            }
        }
    }

    /// The sender says that all has been sent.
    pub(crate) fn expect_end(
        &mut self,
        grant: GrantId,
        writes: u64,
        payload: Bytes,
    ) -> Result<Vec<Progress>, Violation> {
        let Some(given) = self.given.get_mut(&grant) else { return Ok(Vec::new()) };
        if given.end.is_some() {
            let why = "the session has ended before";
            return Err(Violation::Unexpected { message: "SessionEnd", why });
        }
        given.end = Some((writes, payload));
        Ok(self.arrived(grant, Vec::new()))
    }

    /// A grant, or more of one, has come from the peer.
    pub(crate) fn receive(
        &mut self,
        message: Grant,
        budget: &mut Budget,
    ) -> Result<Option<GrantReceived>, Violation> {
        if self.got.contains_key(&message.grant) {
            let why = "the grant has come before";
            return Err(Violation::Unexpected { message: "Grant", why });
        }
        if self.got.len() >= MAX_GRANTS {
            return Err(Violation::Overrun(Resource::Grants));
        }
        let charged = GRANT_COST
            + u64::from(message.total_blocks) * 4
            + message.layout.pools.len() as u64 * 16;
        budget.charge(charged)?;
        let id = message.grant;
        self.got.insert(
            id,
            Got {
                session: message.session,
                slots: Arc::from(&message.slots[..]),
                partial: Some(Box::new(message)),
                ending: None,
                charged,
            },
        );
        self.finish_grant(id)
    }

    /// More block ids of a grant.
    pub(crate) fn receive_blocks(
        &mut self,
        grant: GrantId,
        blocks: Vec<u32>,
    ) -> Result<Option<GrantReceived>, Violation> {
        // A grant may have been given up here meanwhile.
        let Some(got) = self.got.get_mut(&grant) else { return Ok(None) };
        let Some(partial) = &mut got.partial else {
            let why = "the grant is whole";
            return Err(Violation::Unexpected { message: "GrantBlocks", why });
        };
        partial.blocks.extend(blocks);
        self.finish_grant(grant)
    }

    /// The slots to write to under a grant.
    ///
    /// # Errors
    /// Why the peer took it back; or it was never got, or is used up.
    pub(crate) fn slots_of(&self, grant: GrantId) -> Result<Arc<[Slot]>, Cause> {
        let standing = self.got.get(&grant).map(|got| Arc::clone(&got.slots));
        standing.ok_or_else(|| {
            let taken = self.taken_back.iter().find(|(taken, _)| *taken == grant);
            taken.map_or(Invalid::UnknownHandle.into(), |(_, cause)| cause.clone())
        })
    }

    /// The peer takes a grant back.
    pub(crate) fn take_back(&mut self, grant: GrantId, cause: &Cause, budget: &mut Budget) {
        if self.forget(grant, budget).is_some() {
            if self.taken_back.len() >= MAX_TAKEN_BACK {
                self.taken_back.pop_front();
            }
            self.taken_back.push_back((grant, cause.clone()));
        }
    }

    /// All that was to be written under a grant is posted, and this message said so.
    pub(crate) fn set_ending(&mut self, grant: GrantId, sequence: u64) {
        if let Some(got) = self.got.get_mut(&grant) {
            got.ending = Some(sequence);
        }
    }

    /// The grants whose end the peer has acknowledged: they are used up.
    pub(crate) fn settle(
        &mut self,
        acknowledged: u64,
        budget: &mut Budget,
    ) -> Vec<(GrantId, SessionKey)> {
        let settled: Vec<GrantId> = self
            .got
            .iter()
            .filter(|(_, got)| got.ending.is_some_and(|sequence| sequence <= acknowledged))
            .map(|(id, _)| *id)
            .collect();
        settled.into_iter().filter_map(|id| Some((id, self.forget(id, budget)?))).collect()
    }

    /// A grant got from the peer is used up, given up or taken back.
    pub(crate) fn forget(&mut self, grant: GrantId, budget: &mut Budget) -> Option<SessionKey> {
        let got = self.got.remove(&grant)?;
        budget.release(got.charged);
        Some(got.session)
    }

    /// Forgets all grants got: the peer is gone.
    pub(crate) fn forget_all(&mut self, budget: &mut Budget) -> Vec<(GrantId, SessionKey)> {
        let got = std::mem::take(&mut self.got);
        got.into_iter()
            .map(|(id, got)| {
                budget.release(got.charged);
                (id, got.session)
            })
            .collect()
    }

    /// Grants that have not ended.
    pub(crate) fn residue(&self) -> [(&'static str, u64); 2] {
        [("grants given", self.given.len() as u64), ("grants got", self.got.len() as u64)]
    }

    /// Layers have arrived under a grant: says what is new, and whether all is there.
    fn arrived(&mut self, grant: GrantId, arrived: Vec<Range<u32>>) -> Vec<Progress> {
        let Some(given) = self.given.get_mut(&grant) else { return Vec::new() };
        let mut progress: Vec<Progress> = Vec::new();
        for layers in arrived {
            // An unbounded set never refuses.
            let _ = given.layers.insert(u64::from(layers.start), layers.len() as u64);
            progress.push(Progress::Layers(grant, layers));
        }
        if given.is_complete() {
            let session = given.session;
            let payload = given.end.take().map(|(_, payload)| payload).unwrap_or_default();
            given.gate.close();
            self.given.remove(&grant);
            progress.push(Progress::Ended(grant, session, payload));
        }
        progress
    }

    fn finish_grant(&mut self, grant: GrantId) -> Result<Option<GrantReceived>, Violation> {
        let Some(got) = self.got.get_mut(&grant) else { return Ok(None) };
        let Some(partial) = &got.partial else { return Ok(None) };
        let (have, total) = (partial.blocks.len(), partial.total_blocks as usize);
        if have > total {
            let why = "more block ids than announced";
            return Err(Violation::Unexpected { message: "GrantBlocks", why });
        }
        if have < total {
            return Ok(None);
        }
        let whole = got.partial.take().map(|grant| GrantReceived {
            grant: grant.grant,
            session: grant.session,
            layout: grant.layout,
            tokens: grant.tokens,
            blocks: grant.blocks,
        });
        Ok(whole)
    }
}
