//! The peer's WRITEs: which of its frames may touch this engine's memory. Its READs are
//! [`answers`](super::answers)'.
//!
//! Every WRITE frame is checked against live regions, rights, slots and, in sessions, the grant,
//! before a byte lands (promise 3). What was finished, cancelled or refused stays so: later frames
//! of it are refused (promise 2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::Waker;

use crate::error::{Refusal, Resource, Violation};
use crate::id::{GrantId, TransferId};
use crate::proto::budget::Budget;
use crate::proto::grants::GivenGrants;
use crate::proto::id_set::IdSet;
use crate::region::{Gate, Rights, Slots};
use crate::time::Time;
use crate::transport::Landing;
use crate::wire::{FrameHeader, WireSpan};

/// What one open transfer costs at least, for the budget.
pub(super) const TRANSFER_COST: u64 = 256;
/// Refused transfers whose initiator has not answered with `Cancel`, at most: it does so at once.
const MAX_REFUSED: usize = 65_536;
/// Gaps in the counting of ended transfers, at most: a transfer open for long leaves one.
const MAX_GAPS: usize = 65_536;

/// All WRITEs of one peer.
#[derive(Debug)]
pub(crate) struct Inbound {
    writes: BTreeMap<TransferId, Write>,
    /// Ended WRITEs: complete, cancelled or refused.
    ended: IdSet,
    /// Those among them that were refused and not yet cancelled: until its `Cancel`, messages that
    /// speak of a transfer may still come.
    fenced: BTreeSet<TransferId>,
    /// Cancelled transfers whose last lease has not left yet.
    fencing: Vec<(TransferId, Arc<Gate>)>,
}

/// What the peer may touch: regions whose keys it has shown, and blocks that it was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed<'a> {
    pub(crate) slots: &'a Slots,
    pub(crate) grants: &'a GivenGrants,
}

/// A WRITE of which runs have come.
#[derive(Debug)]
struct Write {
    total_runs: u32,
    landed: IdSet,
    grant: Option<GrantId>,
    /// Bytes land only while it is open.
    gate: Arc<Gate>,
    /// What it was charged.
    charged: u64,
}

/// A WRITE that is complete: every byte is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) transfer: TransferId,
    pub(crate) grant: Option<GrantId>,
}

/// What is known of a transfer that a message refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not complete yet.
    Open,
    /// Complete.
    Complete,
    /// Cancelled or refused.
    Fenced,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self {
            writes: BTreeMap::new(),
            ended: IdSet::new(MAX_GAPS),
            fenced: BTreeSet::new(),
            fencing: Vec::new(),
        }
    }

    /// Checks a WRITE frame and lists where it lands. `Ok(false)`: its runs are here already.
    pub(crate) fn admit(
        &mut self,
        now: Time,
        header: &FrameHeader,
        table: &[WireSpan],
        allowed: Allowed<'_>,
        budget: &mut Budget,
        landing: &mut Landing,
    ) -> Result<bool, Refusal> {
        if self.ended.contains(header.transfer.0) {
            return Err(Refusal::Fenced);
        }
        if now >= header.expiry {
            return Err(Refusal::Expired);
        }
        place(header, table, allowed, landing)?;
        let write = match self.writes.entry(header.transfer) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                budget.charge(TRANSFER_COST).map_err(|_| Refusal::Busy)?;
                entry.insert(Write {
                    total_runs: header.total_runs,
                    landed: IdSet::new(usize::MAX),
                    grant: header.grant,
                    gate: Arc::new(Gate::new()),
                    charged: TRANSFER_COST,
                })
            }
        };
        if write.total_runs != header.total_runs || write.grant != header.grant {
            return Err(Refusal::Inconsistent);
        }
        landing.gates.push(Arc::clone(&write.gate));
        landing.expiry = header.expiry;
        Ok(!write.landed.contains_range(u64::from(header.first_run), u64::from(header.runs)))
    }

    /// The frame's bytes are in memory; says whether its transfer is complete thereby.
    pub(crate) fn landed(
        &mut self,
        header: &FrameHeader,
        budget: &mut Budget,
    ) -> Result<Option<Completed>, Refusal> {
        let Some(write) = self.writes.get_mut(&header.transfer) else {
            return Err(Refusal::Fenced);
        };
        let before = write.landed.intervals();
        write
            .landed
            .insert(u64::from(header.first_run), u64::from(header.runs))
            .map_err(|_| Refusal::Busy)?;
        let grown = write.landed.intervals().saturating_sub(before) as u64;
        budget.charge(grown * IdSet::BYTES_EACH).map_err(|_| Refusal::Busy)?;
        write.charged += grown * IdSet::BYTES_EACH;
        if write.landed.count() < u64::from(write.total_runs) {
            return Ok(None);
        }
        let grant = write.grant;
        self.end(header.transfer, budget);
        Ok(Some(Completed { transfer: header.transfer, grant }))
    }

    /// A frame was refused for another reason than its expiry: the transfer is over, and what of
    /// it is on the way lands no more.
    pub(crate) fn refuse(
        &mut self,
        transfer: TransferId,
        budget: &mut Budget,
    ) -> Result<(), Resource> {
        if !self.ended.contains(transfer.0) {
            if self.fenced.len() >= MAX_REFUSED {
                return Err(Resource::Transfers);
            }
            self.fenced.insert(transfer);
        }
        self.close(transfer, budget).map(drop)
    }

    /// The initiator gives its transfer up. Returns whether nothing can land any more already;
    /// otherwise [`Self::poll_fenced`] says when.
    pub(crate) fn cancel(
        &mut self,
        transfer: TransferId,
        budget: &mut Budget,
        waker: &Waker,
    ) -> Result<bool, Resource> {
        self.fenced.remove(&transfer);
        let Some(gate) = self.close(transfer, budget)? else { return Ok(true) };
        if gate.is_drained() {
            return Ok(true);
        }
        gate.on_drained(waker);
        self.fencing.push((transfer, gate));
        Ok(false)
    }

    /// Cancelled transfers that are fenced by now.
    pub(crate) fn poll_fenced(&mut self) -> Vec<TransferId> {
        let (drained, waiting) =
            std::mem::take(&mut self.fencing).into_iter().partition(|(_, gate)| gate.is_drained());
        self.fencing = waiting;
        let drained: Vec<(TransferId, Arc<Gate>)> = drained;
        drained.into_iter().map(|(transfer, _)| transfer).collect()
    }

    /// What has become of one of the peer's WRITEs.
    pub(crate) fn standing(&self, transfer: TransferId) -> Standing {
        if self.fenced.contains(&transfer) {
            Standing::Fenced
        } else if self.ended.contains(transfer.0) {
            Standing::Complete
        } else {
            Standing::Open
        }
    }

    /// Ends everything: the peer is gone. Returns the gates, closed.
    pub(crate) fn close_all(&mut self, budget: &mut Budget) -> Vec<Arc<Gate>> {
        let over = std::mem::replace(self, Self::new());
        let mut gates: Vec<_> = over.fencing.into_iter().map(|(_, gate)| gate).collect();
        gates.extend(over.writes.into_values().map(|write| {
            write.gate.close();
            budget.release(write.charged);
            write.gate
        }));
        gates
    }

    /// What is kept for the peer's transfers that have not ended.
    pub(crate) fn residue(&self) -> [(&'static str, u64); 3] {
        [
            ("WRITEs of the peer", self.writes.len() as u64),
            ("refused WRITEs of the peer", self.fenced.len() as u64),
            ("WRITEs being fenced", self.fencing.len() as u64),
        ]
    }

    fn close(
        &mut self,
        transfer: TransferId,
        budget: &mut Budget,
    ) -> Result<Option<Arc<Gate>>, Resource> {
        if self.ended.contains(transfer.0) {
            let fencing = self.fencing.iter().find(|(id, _)| *id == transfer);
            return Ok(fencing.map(|(_, gate)| Arc::clone(gate)));
        }
        self.end_checked(transfer, budget)
    }

    fn end(&mut self, transfer: TransferId, budget: &mut Budget) {
        // A full set of gaps was refused when the transfer was admitted late; an id that cannot
        // be remembered as complete only weakens the guard against replays by its own initiator.
        let _ = self.end_checked(transfer, budget);
    }

    fn end_checked(
        &mut self,
        transfer: TransferId,
        budget: &mut Budget,
    ) -> Result<Option<Arc<Gate>>, Resource> {
        let gate = self.writes.remove(&transfer).map(|write| {
            budget.release(write.charged);
            write.gate.close();
            write.gate
        });
        self.ended.insert(transfer.0, 1)?;
        Ok(gate)
    }
}

/// Checks the places of a WRITE frame, and lists them.
fn place(
    header: &FrameHeader,
    table: &[WireSpan],
    Allowed { slots, grants }: Allowed<'_>,
    landing: &mut Landing,
) -> Result<(), Refusal> {
    let Some(grant) = header.grant else {
        return table
            .iter()
            .try_for_each(|span| place_span(span, Rights::REMOTE_WRITE, true, slots, landing));
    };
    let grant = grants.get(grant).ok_or(Refusal::NotGranted)?;
    for span in table {
        if !grant.covers(span) {
            return Err(Refusal::NotGranted);
        }
        place_span(span, Rights::empty(), false, slots, landing)?;
    }
    landing.gates.push(Arc::clone(grant.gate()));
    Ok(())
}

/// Checks one span and lists it.
pub(super) fn place_span(
    span: &WireSpan,
    rights: Rights,
    one_sided: bool,
    slots: &Slots,
    landing: &mut Landing,
) -> Result<(), Refusal> {
    let region = slots.resolve(span.slot, one_sided)?;
    region.check(rights, span.offset, u64::from(span.len))?;
    landing.push(region, span.offset, span.len);
    Ok(())
}

impl From<Resource> for Violation {
    fn from(resource: Resource) -> Self {
        Self::Overrun(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_life_of_cancelled_and_refused_transfers_leaves_nothing_behind() {
        let (mut inbound, mut budget) = (Inbound::new(), Budget::new(1 << 20));
        for number in 1..3 * MAX_GAPS as u64 {
            let transfer = TransferId(number);
            match number % 3 {
                0 => inbound.end(transfer, &mut budget),
                1 => inbound.refuse(transfer, &mut budget).unwrap(),
                _ => {}
            }
            if number % 3 > 0 {
                assert!(inbound.cancel(transfer, &mut budget, Waker::noop()).unwrap());
                // A frame that was under way when the transfer was cancelled.
                inbound.refuse(transfer, &mut budget).unwrap();
            }
        }
        assert!(inbound.residue().iter().all(|(_, count)| *count == 0));
        assert_eq!(inbound.ended.intervals(), 1);
    }
}
