//! The lanes between the two, frame by frame and step by step.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::{Cause, LaneError, Refusal, Violation};
use crate::id::LaneId;
use crate::proto::{Event, Peer};
use crate::region::Region;
use crate::testing::lane::{LaneReceiver, LaneSender, Place};
use crate::testing::memory::Memory;
use crate::testing::pair::{Pair, Side};
use crate::time::Time;
use crate::transport::{Admission, Landing, LocalSpan};
use crate::wire::{FrameHeader, WireSpan};

/// Bytes of a simulated system call.
const CALL: usize = 64;

/// One side's end of a lane.
#[derive(Debug, Default)]
pub(super) struct LaneEnd {
    receiver: LaneReceiver,
    sender: LaneSender,
    /// Bytes on their way here.
    inbox: VecDeque<u8>,
    /// The other end has gone: once the inbox is empty, so does this one.
    ends: bool,
}

impl Pair {
    /// The lanes that are open at side `side`.
    pub fn lanes(&self, side: usize) -> Vec<LaneId> {
        self.sides[side].lanes.keys().copied().collect()
    }

    /// Side `from` puts the next frame it has for a lane on its way, whole.
    pub fn transmit(&mut self, from: usize, lane: LaneId) -> bool {
        let side = &mut self.sides[from];
        let Some(end) = side.lanes.get_mut(&lane) else { return false };
        let Some(frame) = side.peer.next_frame(self.now, lane) else { return false };
        end.sender.begin(frame);
        let mut sent = Vec::new();
        while end.sender.is_busy() {
            let read =
                |region: &Region, span: LocalSpan| side.memory.span(&*region.memory, span).to_vec();
            match end.sender.step(CALL, read) {
                Ok(bytes) => sent.extend(bytes),
                Err(cause) => {
                    self.close(from, lane, cause);
                    return true;
                }
            }
        }
        if let Some(other) = self.sides[1 - from].lanes.get_mut(&lane) {
            other.inbox.extend(sent);
        }
        true
    }

    /// Side `to` takes one step with what has arrived on a lane: a header, a table, or a system
    /// call's worth of payload.
    pub fn receive(&mut self, to: usize, lane: LaneId) -> bool {
        let side = &mut self.sides[to];
        let Some(mut end) = side.lanes.remove(&lane) else { return false };
        let mut place = Here {
            now: self.now,
            lane,
            peer: &mut side.peer,
            memory: &mut side.memory,
            inbox: &mut end.inbox,
        };
        let stepped = end.receiver.step(&mut place, CALL);
        let ended = end.ends && end.inbox.is_empty();
        side.lanes.insert(lane, end);
        let moved = match stepped {
            Ok(false) if ended => {
                self.close(to, lane, LaneError::Closed);
                true
            }
            Ok(moved) => moved,
            Err(violation) => {
                self.sides[to].violation = Some(violation.clone());
                self.sides[to].peer.kill(Cause::PeerMisbehaved(violation));
                true
            }
        };
        self.collect();
        moved
    }

    /// Side `side` ends a lane. Bytes on their way to it are lost, those to the other arrive.
    pub fn close(&mut self, side: usize, lane: LaneId, cause: LaneError) {
        if self.sides[side].lanes.remove(&lane).is_some() {
            if let Some(other) = self.sides[1 - side].lanes.get_mut(&lane) {
                other.ends = true;
            }
            self.sides[side].peer.handle_lane_closed(self.now, lane, cause);
        }
        self.collect();
    }

    /// A lane breaks: both sides see it, and all but `kept` bytes on their way to side `to` (and
    /// all on their way to the other) are lost.
    pub fn cut(&mut self, lane: LaneId, to: usize, kept: usize) {
        for side in 0..2 {
            if let Some(end) = self.sides[side].lanes.get_mut(&lane) {
                end.inbox.truncate(if side == to { kept } else { 0 });
            }
        }
        while self.receive(to, lane) {}
        for side in 0..2 {
            self.close(side, lane, LaneError::Closed);
        }
    }

    /// Opens the lanes that are wanted, but for those of a side that holds them.
    pub fn open_lanes(&mut self) -> bool {
        let mut any = false;
        for side in 0..2 {
            if !self.sides[side].hold_lanes {
                for lane in std::mem::take(&mut self.sides[side].wanted) {
                    self.open(side, lane);
                    any = true;
                }
            }
        }
        self.collect();
        any
    }

    /// Moves what there is on all lanes towards side `to`.
    pub(super) fn carry(&mut self, to: usize) -> bool {
        let mut moved = false;
        for lane in self.lanes(1 - to) {
            moved |= self.transmit(1 - to, lane);
        }
        for lane in self.lanes(to) {
            while self.receive(to, lane) {
                moved = true;
            }
        }
        moved
    }

    /// Takes the peers' events, and obeys those that are for whoever drives them. The other calls
    /// do it by themselves; a test that calls a peer directly does it with this one.
    pub fn collect(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.sides[side].peer.poll_event() {
                match event {
                    Event::OpenLane(lane) => self.sides[side].wanted.push(lane),
                    Event::CloseLane(lane) => self.close(side, lane, LaneError::Closed),
                    other => self.sides[side].events.push(other),
                }
            }
        }
    }

    fn open(&mut self, dialer: usize, lane: LaneId) {
        let now = self.now;
        let (ours, theirs) = match self.sides[dialer].peer.associations() {
            Some(known) => known,
            None => return self.sides[dialer].peer.handle_lane_failed(now, lane),
        };
        let listener = &mut self.sides[1 - dialer];
        if listener.peer.check_lane(ours, theirs, lane).is_err() {
            return self.sides[dialer].peer.handle_lane_failed(now, lane);
        }
        if self.sides[dialer].peer.handle_lane_opened(lane).is_ok() {
            self.sides[dialer].lanes.insert(lane, LaneEnd::default());
        }
        if self.sides[1 - dialer].peer.handle_lane_opened(lane).is_ok() {
            self.sides[1 - dialer].lanes.insert(lane, LaneEnd::default());
        }
    }
}

/// The world of one lane's receiving half.
struct Here<'a> {
    now: Time,
    lane: LaneId,
    peer: &'a mut Peer,
    memory: &'a mut Memory,
    inbox: &'a mut VecDeque<u8>,
}

impl Place for Here<'_> {
    fn now(&self) -> Time {
        self.now
    }

    fn receive(&mut self, limit: usize) -> Vec<u8> {
        let count = limit.min(self.inbox.len());
        self.inbox.drain(..count).collect()
    }

    fn frame_arrived(
        &mut self,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        self.peer.handle_frame(self.now, self.lane, header, table, landing)
    }

    fn frame_finished(&mut self, header: &FrameHeader, outcome: Result<(), Refusal>) {
        self.peer.handle_frame_finished(self.now, self.lane, header, outcome);
    }

    fn acknowledged(&mut self, ack: &FrameHeader) -> Result<(), Violation> {
        self.peer.handle_ack(self.now, self.lane, ack)
    }

    fn call_begins(&mut self, _: &FrameHeader, _: &Landing) -> Result<(), Refusal> {
        Ok(())
    }

    fn scatter(&mut self, _: &FrameHeader, region: &Arc<Region>, offset: u64, bytes: &[u8]) {
        self.memory.bytes_mut(region.base() + offset, bytes.len()).copy_from_slice(bytes);
    }
}

impl Side {
    /// Bytes that are on their way here on a lane.
    pub fn arriving(&self, lane: LaneId) -> usize {
        self.lanes.get(&lane).map_or(0, |end| end.inbox.len())
    }
}
