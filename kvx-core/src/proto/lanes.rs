//! The ledger of lanes: what was sent on each and not yet acknowledged, and what came on each.
//!
//! TCP delivers a lane's frames in order, so that one number, the count of frames dealt with,
//! says precisely which frames have landed (PROTOCOL 5.4). Nothing is sent again before the peer
//! has given that number in `LaneRetired` (PROTOCOL 5.5). Which runs a frame carried is all this
//! module knows of transfers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use crate::error::Violation;
use crate::id::{LaneId, Slot, TransferId};
use crate::proto::answers::Answer;
use crate::time::Time;
use crate::wire::FrameHeader;

/// Frames handed to a lane and not acknowledged, at most. A bound on memory, not on speed: at
/// 4 KiB a frame it is more than two sockets' buffers hold.
const MAX_UNACKNOWLEDGED: usize = 4096;

/// How long the ACK of a READ's frames may wait. A READ ends when its data has come: nobody waits
/// for these ACKs but the other side's memory of what it sent, and one for each frame would cost
/// either side a call, and the owner's thread a wake, for every READ.
const ACK_DELAY: Duration = Duration::from_millis(5);

/// Frames of READs for which one ACK waits, at most.
const ACK_FRAMES: u32 = 16;

/// As many make it go out with the next frame, lest it goes out alone.
const ACK_FRAMES_IN_COMPANY: u32 = ACK_FRAMES / 2;

/// All lanes of a peer, from their opening until both sides have retired them.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: BTreeMap<LaneId, Ledger>,
    /// No ACK is late before.
    next_late: Time,
}

/// One lane.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Frames handed over and not acknowledged, oldest first.
    sent: VecDeque<Sent>,
    /// Frames acknowledged since the lane opened: the number of `sent`'s first.
    acknowledged: u64,
    /// `Refused` messages of this lane.
    refusals: u64,
    /// An acknowledgement that waits for `Refused` messages: frames, refusals.
    held: Option<(u64, u64)>,
    /// Frames of the peer dealt with since the lane opened.
    processed: u64,
    /// How many of them were refused.
    refused: u64,
    /// Whether the peer is owed an ACK.
    owed: Owed,
    /// Whether this side has stopped: it sends nothing and touches no memory for the lane.
    closed: bool,
    /// What the peer said when it stopped.
    retired: bool,
}

/// An ACK that the peer is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Owed {
    #[default]
    Nothing,
    /// One for so many frames of READs, the first of which came at this time.
    Soon(Time, u32),
    /// One that goes out by itself.
    Now,
}

/// A frame that was handed over.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Runs of an own WRITE.
    Write(TransferId, Range<u32>),
    /// A request for runs of an own READ.
    Request(TransferId, Range<u32>),
    /// The answer to a peer's request, kept whole so that it can be sent again.
    Answer(Answer),
    /// A frame that was refused: dealt with when the refusal came.
    Void,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), next_late: Time::NEVER }
    }
}

impl Lanes {
    pub(crate) fn open(&mut self, lane: LaneId) {
        self.lanes.insert(lane, Ledger::default());
    }

    pub(crate) fn get(&mut self, lane: LaneId) -> Option<&mut Ledger> {
        self.lanes.get_mut(&lane)
    }

    /// The lanes that can carry frames.
    pub(crate) fn usable(&self) -> impl Iterator<Item = LaneId> + '_ {
        self.lanes.iter().filter(|(_, ledger)| ledger.is_usable()).map(|(lane, _)| *lane)
    }

    /// The lanes that this side has not stopped.
    pub(crate) fn running(&self) -> impl Iterator<Item = LaneId> + '_ {
        self.lanes.iter().filter(|(_, ledger)| !ledger.closed).map(|(lane, _)| *lane)
    }

    pub(crate) fn contains(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Forgets a lane that both sides have stopped.
    pub(crate) fn remove_if_ended(&mut self, lane: LaneId) {
        if self.lanes.get(&lane).is_some_and(|ledger| ledger.closed && ledger.retired) {
            self.lanes.remove(&lane);
        }
    }

    /// A frame of a READ was dealt with: its ACK can wait.
    pub(crate) fn count_read(&mut self, now: Time, lane: LaneId) {
        let Some(ledger) = self.lanes.get_mut(&lane) else { return };
        if let Owed::Soon(since, _) = ledger.count_read(now) {
            self.next_late = self.next_late.min(since + ACK_DELAY);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Time {
        self.next_late
    }

    /// ACKs that have waited long enough wait no more.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if now < self.next_late {
            return;
        }
        self.next_late = Time::NEVER;
        for ledger in self.lanes.values_mut() {
            match ledger.owed {
                Owed::Soon(since, _) if since + ACK_DELAY <= now => ledger.owed = Owed::Now,
                Owed::Soon(since, _) => self.next_late = self.next_late.min(since + ACK_DELAY),
                Owed::Nothing | Owed::Now => {}
            }
        }
    }

    /// Whether any lane owes an ACK that goes out by itself.
    pub(crate) fn owe_acks(&self) -> bool {
        self.lanes.values().any(Ledger::owes_ack)
    }

    /// Frames that were handed over and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u64 {
        self.lanes.values().map(|ledger| ledger.sent.len() as u64).sum()
    }

    /// Lanes of which not both sides have said that they have stopped.
    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Forgets all lanes. Returns the frames that were handed over and not acknowledged.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Sent> + use<> {
        self.next_late = Time::NEVER;
        std::mem::take(&mut self.lanes).into_values().flat_map(|ledger| ledger.sent)
    }
}

impl Ledger {
    /// Whether frames may be handed over.
    pub(crate) fn is_usable(&self) -> bool {
        !self.closed && !self.retired
    }

    pub(crate) fn has_room(&self) -> bool {
        self.is_usable() && self.sent.len() < MAX_UNACKNOWLEDGED
    }

    pub(crate) fn record(&mut self, frame: Sent) {
        self.sent.push_back(frame);
    }

    /// The ACK that the peer is owed, if any; `in_company`, if another frame follows it.
    pub(crate) fn take_ack(&mut self, in_company: bool) -> Option<FrameHeader> {
        let due = match self.owed {
            Owed::Nothing => false,
            Owed::Soon(_, frames) => in_company && frames >= ACK_FRAMES_IN_COMPANY,
            Owed::Now => true,
        };
        due.then(|| {
            self.owed = Owed::Nothing;
            FrameHeader::ack(self.processed, self.refused)
        })
    }

    /// Whether the peer is owed an ACK that goes out by itself.
    pub(crate) fn owes_ack(&self) -> bool {
        self.owed == Owed::Now && self.is_usable()
    }

    /// A frame of the peer was dealt with; returns its number.
    pub(crate) fn count_processed(&mut self, refused: bool) -> u64 {
        let number = self.processed;
        self.processed += 1;
        self.refused += u64::from(refused);
        self.owed = Owed::Now;
        number
    }

    fn count_read(&mut self, now: Time) -> Owed {
        self.processed += 1;
        self.owed = match self.owed {
            Owed::Nothing => Owed::Soon(now, 1),
            Owed::Soon(since, frames) if frames + 1 < ACK_FRAMES => Owed::Soon(since, frames + 1),
            Owed::Soon(..) | Owed::Now => Owed::Now,
        };
        self.owed
    }

    /// Whether a frame has been dealt with on either side.
    pub(crate) fn has_carried(&self) -> bool {
        self.processed > 0 || self.acknowledged > 0
    }

    pub(crate) fn processed(&self) -> u64 {
        self.processed
    }

    /// An ACK came. Returns the frames that are now known to have landed.
    pub(crate) fn acknowledge(
        &mut self,
        processed: u64,
        refused: u64,
    ) -> Result<Vec<Sent>, Violation> {
        let sent = self.acknowledged + self.sent.len() as u64;
        if processed > sent {
            return Err(Violation::Acknowledged { sent, got: processed });
        }
        if refused > processed {
            return Err(Violation::Acknowledged { sent: processed, got: refused });
        }
        // ACKs are cumulative: the newest one says all.
        self.held = Some((processed, refused));
        Ok(self.release_held())
    }

    /// A `Refused` message came. Returns the refused frame, and those that its coming released.
    pub(crate) fn refuse(&mut self, number: u64) -> Result<(Sent, Vec<Sent>), Violation> {
        let index = number.checked_sub(self.acknowledged).map(|index| index as usize);
        let Some(entry) = index.and_then(|index| self.sent.get_mut(index)) else {
            let sent = self.acknowledged + self.sent.len() as u64;
            return Err(Violation::Acknowledged { sent, got: number });
        };
        if matches!(entry, Sent::Void) {
            return Err(Violation::Unexpected {
                message: "Refused",
                why: "the frame was refused before",
            });
        }
        let frame = std::mem::replace(entry, Sent::Void);
        self.refusals += 1;
        Ok((frame, self.release_held()))
    }

    /// The peer has stopped, having dealt with `processed` frames. Returns the frames that landed
    /// and those that must be sent again.
    pub(crate) fn retire(&mut self, processed: u64) -> Result<(Vec<Sent>, Vec<Sent>), Violation> {
        if self.retired {
            return Err(Violation::Unexpected {
                message: "LaneRetired",
                why: "the lane is retired",
            });
        }
        let sent = self.acknowledged + self.sent.len() as u64;
        if processed > sent || processed < self.acknowledged {
            return Err(Violation::Acknowledged { sent, got: processed });
        }
        self.retired = true;
        self.held = None;
        // Every `Refused` message of the lane came before, for control keeps its order.
        let landed = self.take_front((processed - self.acknowledged) as usize);
        let lost = self.take_front(self.sent.len());
        Ok((landed, lost))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn set_closed(&mut self) {
        self.closed = true;
    }

    fn release_held(&mut self) -> Vec<Sent> {
        match self.held {
            Some((processed, refused)) if refused <= self.refusals => {
                self.held = None;
                self.take_front(processed.saturating_sub(self.acknowledged) as usize)
            }
            _ => Vec::new(),
        }
    }

    fn take_front(&mut self, count: usize) -> Vec<Sent> {
        self.acknowledged += count as u64;
        self.sent.drain(..count).filter(|frame| !matches!(frame, Sent::Void)).collect()
    }
}

/// Slots of a plan's remote regions, once they are known.
pub(crate) type SlotColumn = std::sync::Arc<[Slot]>;
