//! Grants given to the peer: what it may write here, and what of it has arrived.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{GrantPlan, MAX_GRANTS};
use crate::error::{Cause, Refusal, Resource, Violation};
use crate::id::{Association, GrantId, SessionKey, Slot, TransferId};
use crate::proto::budget::Budget;
use crate::proto::inbound::Standing;
use crate::region::{Gate, Slots};
use crate::wire::WireSpan;
use crate::wire::message::{Grant, MAX_GRANT_BLOCKS, Message};

/// Announcements of layers under one grant.
const MAX_ANNOUNCED: u32 = 65_536;
/// What one of them costs while its transfer is not complete, for the budget.
const ANNOUNCED_COST: u64 = 128;

/// All grants that the peer holds.
#[derive(Debug)]
pub(crate) struct GivenGrants {
    open: BTreeMap<GrantId, Given>,
    last: u64,
}

/// A grant that the peer holds.
#[derive(Debug)]
pub(crate) struct Given {
    session: SessionKey,
    plan: Arc<GrantPlan>,
    /// Index into the layout's regions by slot; sorted, each slot once.
    slots: Vec<(Slot, u32)>,
    /// Bytes land only while it is open.
    gate: Arc<Gate>,
    /// What each of the peer's transfers under it brings, until it is complete.
    expected: BTreeMap<TransferId, Vec<Range<u32>>>,
    /// How many times the sender has announced layers ahead of their transfer.
    announced: u32,
    /// Transfers that have arrived.
    writes: u64,
    /// What the sender said at the end.
    end: Option<(u64, Bytes)>,
    /// What the sender has made this side keep, and was charged for.
    charged: u64,
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

impl GivenGrants {
    /// Ids are counted from another point for each association: a Sender that has not heard yet
    /// that the receiver forgot it must not write under a new grant of an old id.
    pub(crate) fn new(own: Association) -> Self {
        Self { open: BTreeMap::new(), last: own.0 << 32 }
    }

    pub(crate) fn get(&self, grant: GrantId) -> Option<&Given> {
        self.open.get(&grant)
    }

    /// Gives the peer a grant: the messages to be sent are returned.
    pub(crate) fn give(
        &mut self,
        session: SessionKey,
        plan: Arc<GrantPlan>,
        slots: &mut Slots,
    ) -> Result<(GrantId, Arc<Gate>, Vec<Message>), Cause> {
        if self.open.len() >= MAX_GRANTS {
            return Err(Cause::Busy(Resource::Grants));
        }
        let column: Vec<Slot> = plan
            .regions
            .iter()
            .map(|region| slots.offer(Arc::clone(region)))
            .collect::<Result<_, _>>()
            .map_err(|refusal| match refusal {
                Refusal::RegionClosed => Cause::RegionClosed,
                _ => Cause::Busy(Resource::Regions),
            })?;
        self.last += 1;
        let id = GrantId(self.last);
        let mut index: Vec<(Slot, u32)> = column.iter().copied().zip(0..).collect();
        index.sort_unstable();
        // The map knows a region by its first name.
        index.dedup_by_key(|(slot, _)| *slot);
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
        self.open.insert(
            id,
            Given {
                session,
                plan,
                slots: index,
                gate: Arc::clone(&gate),
                expected: BTreeMap::new(),
                announced: 0,
                writes: 0,
                end: None,
                charged: 0,
            },
        );
        Ok((id, gate, messages))
    }

    /// Ends a grant. Its gate is closed and returned; once drained, nothing lands any more.
    pub(crate) fn revoke(
        &mut self,
        grant: GrantId,
        budget: &mut Budget,
    ) -> Option<(SessionKey, Arc<Gate>)> {
        let given = self.open.remove(&grant)?;
        given.gate.close();
        budget.release(given.charged);
        Some((given.session, given.gate))
    }

    /// Takes all grants back: the peer is gone. Returns the gates, closed.
    pub(crate) fn revoke_all(
        &mut self,
        budget: &mut Budget,
    ) -> Vec<(GrantId, SessionKey, Arc<Gate>)> {
        let given = std::mem::take(&mut self.open);
        given
            .into_iter()
            .map(|(id, given)| {
                given.gate.close();
                budget.release(given.charged);
                (id, given.session, given.gate)
            })
            .collect()
    }

    /// A transfer under a grant is complete.
    pub(crate) fn write_completed(
        &mut self,
        grant: GrantId,
        transfer: TransferId,
        budget: &mut Budget,
    ) -> Vec<Progress> {
        let Some(given) = self.open.get_mut(&grant) else { return Vec::new() };
        given.writes += 1;
        let arrived = given.expected.remove(&transfer).unwrap_or_default();
        let charged = arrived.len() as u64 * ANNOUNCED_COST;
        given.charged -= charged;
        budget.release(charged);
        self.arrived(grant, arrived, budget)
    }

    /// The sender says which layers a transfer brings.
    pub(crate) fn expect_layers(
        &mut self,
        grant: GrantId,
        transfer: TransferId,
        layers: Range<u32>,
        standing: Standing,
        budget: &mut Budget,
    ) -> Result<Vec<Progress>, Violation> {
        let Some(given) = self.open.get_mut(&grant) else { return Ok(Vec::new()) };
        let all = given.plan.layers();
        if layers.is_empty() || layers.start < all.start || layers.end > all.end {
            let why = "the grant has no such layers";
            return Err(Violation::Unexpected { message: "Layers", why });
        }
        match standing {
            Standing::Complete => Ok(self.arrived(grant, vec![layers], budget)),
            Standing::Fenced => Ok(Vec::new()),
            Standing::Open if given.announced >= MAX_ANNOUNCED => {
                Err(Violation::Overrun(Resource::Transfers))
            }
            Standing::Open => {
                budget.charge(ANNOUNCED_COST)?;
                given.charged += ANNOUNCED_COST;
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
        budget: &mut Budget,
    ) -> Result<Vec<Progress>, Violation> {
        let Some(given) = self.open.get_mut(&grant) else { return Ok(Vec::new()) };
        if given.end.is_some() {
            let why = "the session has ended before";
            return Err(Violation::Unexpected { message: "SessionEnd", why });
        }
        budget.charge(payload.len() as u64)?;
        given.charged += payload.len() as u64;
        given.end = Some((writes, payload));
        Ok(self.arrived(grant, Vec::new(), budget))
    }

    /// Grants that have not ended.
    pub(crate) fn residue(&self) -> (&'static str, u64) {
        ("grants given", self.open.len() as u64)
    }

    /// Layers have arrived under a grant: says what is new, and whether all is there.
    fn arrived(
        &mut self,
        grant: GrantId,
        arrived: Vec<Range<u32>>,
        budget: &mut Budget,
    ) -> Vec<Progress> {
        let layers = |layers| Progress::Layers(grant, layers);
        let mut progress: Vec<Progress> = arrived.into_iter().map(layers).collect();
        if !self.open.get(&grant).is_some_and(Given::is_complete) {
            return progress;
        }
        let payload = self.open.get_mut(&grant).and_then(|given| given.end.take());
        if let Some((session, _)) = self.revoke(grant, budget) {
            let payload = payload.map(|(_, payload)| payload).unwrap_or_default();
            progress.push(Progress::Ended(grant, session, payload));
        }
        progress
    }
}
