//! Grants got from the peer: what this side may write there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::MAX_GRANTS;
use crate::error::{Cause, Invalid, Resource, Violation};
use crate::id::{GrantId, SessionKey, Slot};
use crate::layout::Layout;
use crate::proto::budget::Budget;
use crate::wire::WireError;
use crate::wire::message::Grant;

/// Grants taken back that are remembered: as many as may end within one turn of events.
const MAX_TAKEN_BACK: usize = 256;
/// What one grant costs at least, for the budget.
const GRANT_COST: u64 = 512;

/// All grants that this side holds.
#[derive(Debug, Default)]
pub(crate) struct GotGrants {
    open: BTreeMap<GrantId, Got>,
    /// Number of each SessionEnd of ours on the control stream that is not acknowledged, with its
    /// grant, in order. May name grants that have ended otherwise.
    ending: VecDeque<(u64, GrantId)>,
    /// Grants that the peer took back last, and why: who uses one before the event has reached it
    /// is told the same.
    taken_back: VecDeque<(GrantId, Cause)>,
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

impl GotGrants {
    /// A grant, or more of one, has come from the peer.
    pub(crate) fn receive(
        &mut self,
        mut message: Grant,
        budget: &mut Budget,
    ) -> Result<Option<GrantReceived>, Violation> {
        if self.open.contains_key(&message.grant) {
            let why = "the grant has come before";
            return Err(Violation::Unexpected { message: "Grant", why });
        }
        if self.open.len() >= MAX_GRANTS {
            return Err(Violation::Overrun(Resource::Grants));
        }
        let charged = GRANT_COST
            + u64::from(message.total_blocks) * 4
            + message.layout.pools.len() as u64 * 16
            + message.slots.len() as u64 * 4;
        budget.charge(charged)?;
        let id = message.grant;
        self.open.insert(
            id,
            Got {
                session: message.session,
                slots: Arc::from(std::mem::take(&mut message.slots)),
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
        let Some(got) = self.open.get_mut(&grant) else { return Ok(None) };
        let Some(partial) = &mut got.partial else {
            let why = "the grant is whole";
            return Err(Violation::Unexpected { message: "GrantBlocks", why });
        };
        let memory = WireError::Memory { what: "grant", bytes: blocks.len() * size_of::<u32>() };
        partial.blocks.try_reserve(blocks.len()).map_err(|_| Violation::from(memory))?;
        partial.blocks.extend(blocks);
        self.finish_grant(grant)
    }

    /// The slots to write to under a grant.
    ///
    /// # Errors
    /// Why the peer took it back; or it was never got, or is used up.
    pub(crate) fn slots_of(&self, grant: GrantId) -> Result<Arc<[Slot]>, Cause> {
        let standing = self.open.get(&grant).map(|got| Arc::clone(&got.slots));
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
        if let Some(got) = self.open.get_mut(&grant) {
            got.ending = Some(sequence);
            self.ending.push_back((sequence, grant));
        }
    }

    /// The grants whose end the peer has acknowledged: they are used up.
    pub(crate) fn settle(
        &mut self,
        acknowledged: u64,
        budget: &mut Budget,
    ) -> Vec<(GrantId, SessionKey)> {
        let mut settled = Vec::new();
        while let Some((sequence, id)) = self.ending.pop_front_if(|(end, _)| *end <= acknowledged) {
            if self.open.get(&id).is_some_and(|got| got.ending == Some(sequence)) {
                settled.extend(self.forget(id, budget).map(|session| (id, session)));
            }
        }
        settled
    }

    /// A grant got from the peer is used up, given up or taken back.
    pub(crate) fn forget(&mut self, grant: GrantId, budget: &mut Budget) -> Option<SessionKey> {
        let got = self.open.remove(&grant)?;
        budget.release(got.charged);
        Some(got.session)
    }

    /// Forgets all grants got: the peer is gone.
    pub(crate) fn forget_all(&mut self, budget: &mut Budget) -> Vec<(GrantId, SessionKey)> {
        self.ending.clear();
        let got = std::mem::take(&mut self.open);
        got.into_iter()
            .map(|(id, got)| {
                budget.release(got.charged);
                (id, got.session)
            })
            .collect()
    }

    /// Grants that have not ended.
    pub(crate) fn residue(&self) -> (&'static str, u64) {
        ("grants got", self.open.len() as u64)
    }

    fn finish_grant(&mut self, grant: GrantId) -> Result<Option<GrantReceived>, Violation> {
        let Some(got) = self.open.get_mut(&grant) else { return Ok(None) };
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
