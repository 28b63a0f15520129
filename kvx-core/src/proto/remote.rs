//! The peer's regions as this side knows them: their keys, and the slots that showing a key gave.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Cause, Invalid, Refusal, Violation};
use crate::id::{RegionId, Slot, TransferId};
use crate::proto::lanes::SlotColumn;
use crate::region::RegionKey;
use crate::wire::message::{MAX_OPEN_REGIONS, Message, OpenRegion, RegionOpened};

/// All regions of one peer whose keys are known here.
#[derive(Debug, Default)]
pub(crate) struct RemoteRegions {
    regions: HashMap<RegionId, Remote>,
    /// Regions by slot, to find the one that a closed slot belonged to.
    by_slot: HashMap<Slot, RegionId>,
    /// Transfers that wait for slots.
    waiting: Vec<(TransferId, Arc<[RegionId]>)>,
}

#[derive(Debug)]
struct Remote {
    key: RegionKey,
    state: State,
    /// Questions that are not answered. More than one where another key was learned meanwhile: then
    /// only the last answer counts.
    asked: u32,
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
    /// Learns a region's key. A key known before stays, with its slot, if it is the same.
    pub(crate) fn learn(&mut self, id: RegionId, key: RegionKey) {
        let known = self.regions.get(&id);
        if known.is_none_or(|remote| remote.key != key) {
            let asked = known.map_or(0, |remote| remote.asked);
            self.regions.insert(id, Remote { key, state: State::Known, asked });
        }
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
        self.waiting.push((transfer, ids));
    }

    /// The number of transfers that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// The owner has answered.
    pub(crate) fn opened(&mut self, answers: &[RegionOpened]) -> Result<Vec<Settled>, Violation> {
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
        }
        Ok(self.settle())
    }

    /// The owner has deregistered these.
    pub(crate) fn closed(&mut self, slots: &[Slot]) -> Vec<Settled> {
        for slot in slots {
            let remote = self.by_slot.remove(slot).and_then(|id| self.regions.get_mut(&id));
            if let Some(remote) = remote {
                remote.state = State::Refused(Refusal::RegionClosed);
            }
        }
        self.settle()
    }

    /// The peer knows nothing of slots any more: keys must be shown anew.
    pub(crate) fn restart(&mut self) {
        self.by_slot.clear();
        self.waiting.clear();
        for remote in self.regions.values_mut() {
            (remote.state, remote.asked) = (State::Known, 0);
        }
    }

    fn settle(&mut self) -> Vec<Settled> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut settled = Vec::new();
        for (transfer, ids) in waiting {
            match self.refusal(&ids) {
                Some(refusal) => settled.push((transfer, Err(refusal))),
                None => match self.column(&ids) {
                    Some(column) => settled.push((transfer, Ok(column))),
                    None => self.waiting.push((transfer, ids)),
                },
            }
        }
        settled
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
