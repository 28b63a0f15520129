//! The peer's regions as this side knows them: their keys, and the slots that showing a key gave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Cause, Invalid, Refusal, Resource, Violation};
use crate::id::{RegionId, Slot, TransferId};
use crate::proto::lanes::SlotColumn;
use crate::region::RegionKey;
use crate::wire::message::{MAX_OPEN_REGIONS, Message, OpenRegion, RegionOpened};
use crate::wire::metadata::{MAX_REGIONS, RegionDescription};

/// All regions of one peer whose keys are known here.
#[derive(Debug, Default)]
pub(crate) struct RemoteRegions {
    regions: HashMap<RegionId, Remote>,
    /// Regions by slot, to find the one that a closed slot belonged to.
    by_slot: HashMap<Slot, RegionId>,
    /// Transfers that wait for slots.
    waiting: BTreeMap<TransferId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// All regions of the transfer.
    ids: Arc<[RegionId]>,
    /// How many of them have no slot yet: those in whose `awaited_by` the transfer stands.
    missing: usize,
}

#[derive(Debug)]
struct Remote {
    key: RegionKey,
    /// Whether nobody but the owner's list tells of it: then it goes with the list that does not.
    listed: bool,
    state: State,
    /// Questions that are not answered. More than one where another key was learned meanwhile: then
    /// only the last answer counts.
    asked: u32,
    /// Transfers that wait for the answer. May name ended ones.
    awaited_by: Vec<TransferId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known,
    Asked,
    Open(Slot),
    Refused(Refusal),
}

/// A transfer whose waiting for slots is over.
pub(crate) type Settled = (TransferId, Result<SlotColumn, Refusal>);

impl RemoteRegions {
    /// Learns a region's key, from who may keep as many as they like. A key known before stays, with
    /// its slot, if it is the same.
    pub(crate) fn learn(&mut self, id: RegionId, key: RegionKey) {
        self.learn_from(id, key, false).listed = false;
    }

    /// Takes in the owner's list, which is whole. What an earlier one told of and this one does not is
    /// forgotten, so that no more is kept than one list holds, and what is asked for.
    pub(crate) fn listed(&mut self, list: &[RegionDescription]) -> Result<(), Resource> {
        let now: HashSet<RegionId> = list.iter().map(|region| region.id).collect();
        let (regions, by_slot) = (&mut self.regions, &mut self.by_slot);
        let mut left = 0;
        regions.retain(|id, remote| {
            if !remote.listed || now.contains(id) {
                return true;
            }
            // Its answer is still to come, or to be told.
            if remote.asked > 0 || !remote.awaited_by.is_empty() {
                left += 1;
                return true;
            }
            if let State::Open(slot) = remote.state {
                by_slot.remove(&slot);
            }
            false
        });
        if left > MAX_REGIONS {
            return Err(Resource::Regions);
        }
        for region in list {
            self.learn_from(region.id, region.key.clone(), true);
        }
        Ok(())
    }

    fn learn_from(&mut self, id: RegionId, key: RegionKey, listed: bool) -> &mut Remote {
        let remote = self.regions.entry(id).or_insert_with(|| Remote {
            key: key.clone(),
            listed,
            state: State::Known,
            asked: 0,
            awaited_by: Vec::new(),
        });
        if remote.key != key {
            // The slot that the other key gave is nothing to this one.
            if let State::Open(slot) = remote.state {
                self.by_slot.remove(&slot);
            }
            (remote.key, remote.state) = (key, State::Known);
        }
        remote
    }

    /// The slots of these regions, where all are open. Otherwise asks for those that are not.
    pub(crate) fn open(
        &mut self,
        ids: &[RegionId],
        send: &mut impl FnMut(Message),
    ) -> Result<Option<SlotColumn>, Cause> {
        // All are looked up before any is asked for: an error leaves nothing half asked.
        for id in ids {
            match self.regions.get(id).ok_or(Invalid::UnknownRegion)?.state {
                State::Refused(refusal) if !refusal.is_retryable() => {
                    return Err(Cause::Refused(refusal));
                }
                State::Known | State::Asked | State::Open(_) | State::Refused(_) => {}
            }
        }
        let mut ask = Vec::new();
        for id in ids {
            let remote = self.regions.get_mut(id).ok_or(Invalid::UnknownRegion)?;
            if matches!(remote.state, State::Known | State::Refused(_)) {
                remote.state = State::Asked;
                remote.asked += 1;
                ask.push(OpenRegion { region: *id, key: remote.key.clone() });
            }
        }
        for part in ask.chunks(MAX_OPEN_REGIONS) {
            send(Message::OpenRegions(part.to_vec()));
        }
        Ok(self.column(ids))
    }

    /// Remembers a transfer that waits for these regions.
    pub(crate) fn wait(&mut self, transfer: TransferId, ids: Arc<[RegionId]>) {
        let mut missing = 0;
        for id in ids.iter() {
            let remote = self.regions.get_mut(id);
            if let Some(remote) = remote.filter(|remote| !matches!(remote.state, State::Open(_))) {
                remote.awaited_by.push(transfer);
                missing += 1;
            }
        }
        self.waiting.insert(transfer, Waiting { ids, missing });
    }

    /// The number of transfers that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// The owner has answered.
    pub(crate) fn opened(&mut self, answers: &[RegionOpened]) -> Result<Vec<Settled>, Violation> {
        let mut settled = Vec::new();
        for answer in answers {
            let remote = self.regions.get_mut(&answer.region);
            let Some(remote) = remote.filter(|remote| remote.asked > 0) else {
                let why = "the region was not asked for";
                return Err(Violation::Unexpected { message: "RegionsOpened", why });
            };
            remote.asked -= 1;
            if remote.asked > 0 || remote.state != State::Asked {
                continue;
            }
            remote.state = match answer.slot {
                Ok(slot) => {
                    self.by_slot.insert(slot, answer.region);
                    State::Open(slot)
                }
                Err(refusal) => State::Refused(refusal),
            };
            self.settle(answer.region, &mut settled);
        }
        Ok(settled)
    }

    /// The owner has deregistered these.
    pub(crate) fn closed(&mut self, slots: &[Slot]) -> Vec<Settled> {
        let mut settled = Vec::new();
        for slot in slots {
            let Some(id) = self.by_slot.remove(slot) else { continue };
            if let Some(remote) = self.regions.get_mut(&id) {
                remote.state = State::Refused(Refusal::RegionClosed);
            }
            self.settle(id, &mut settled);
        }
        settled
    }

    /// The peer knows nothing of slots any more: keys must be shown anew.
    pub(crate) fn restart(&mut self) {
        self.by_slot.clear();
        self.waiting.clear();
        for remote in self.regions.values_mut() {
            (remote.state, remote.asked) = (State::Known, 0);
            remote.awaited_by.clear();
        }
    }

    /// It is known what becomes of a region: of those who waited for it, those settle that wait for
    /// no other, and all that it is refused to.
    fn settle(&mut self, region: RegionId, settled: &mut Vec<Settled>) {
        let Some(remote) = self.regions.get_mut(&region) else { return };
        let is_open = matches!(remote.state, State::Open(_));
        for transfer in std::mem::take(&mut remote.awaited_by) {
            let Some(waiting) = self.waiting.get_mut(&transfer) else { continue };
            waiting.missing -= 1;
            if is_open && waiting.missing > 0 {
                continue;
            }
            let Some(Waiting { ids, .. }) = self.waiting.remove(&transfer) else { continue };
            // One of its other regions may have been closed since it was opened.
            let refused = self.refusal(&ids).map(Err);
            match refused.or_else(|| self.column(&ids).map(Ok)) {
                Some(outcome) => settled.push((transfer, outcome)),
                // Another key was learned for one of them meanwhile.
                None => self.wait(transfer, ids),
            }
        }
    }

    fn refusal(&self, ids: &[RegionId]) -> Option<Refusal> {
        ids.iter().find_map(|id| match self.regions.get(id)?.state {
            State::Refused(refusal) => Some(refusal),
            _ => None,
        })
    }

    fn column(&self, ids: &[RegionId]) -> Option<SlotColumn> {
        ids.iter()
            .map(|id| match self.regions.get(id)?.state {
                State::Open(slot) => Some(slot),
                _ => None,
            })
            .collect()
    }
}
