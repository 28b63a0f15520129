//! Frames that break the rules.

use zerocopy::IntoBytes;

use crate::id::{GrantId, Slot, TransferId};
use crate::plan::spans_of;
use crate::testing::sim::hostile::baits::BAIT;
use crate::testing::sim::hostile::{Stolen, remember};
use crate::testing::sim::network::{ConnId, LaneTicket};
use crate::testing::sim::sessions::LAYERS;
use crate::testing::sim::{Fault, World};
use crate::time::Time;
use crate::wire::frame::{FrameRuns, RawSpan};
use crate::wire::message::Message;
use crate::wire::{FrameHeader, FrameKind, WireSpan};

/// A lane of a hostile engine, and where it leads.
#[derive(Clone, Copy)]
struct Way {
    engine: usize,
    remote: usize,
    id: ConnId,
    end: usize,
    ticket: LaneTicket,
}

/// A WRITE to be made up.
struct Forged {
    transfer: TransferId,
    grant: Option<GrantId>,
    expiry: Time,
    runs: FrameRuns,
    spans: Vec<WireSpan>,
}

const ONE: FrameRuns = FrameRuns { first: 0, count: 1, total: 1 };

impl World {
    /// Sends one frame, or a few, that no honest engine sends.
    pub(super) fn forge_frame(&mut self, engine: usize, remote: usize) {
        let Some((id, end, ticket)) = self.quiet_lane(engine, remote) else { return };
        let way = Way { engine, remote, id, end, ticket };
        match self.random.within(0..27) {
            0 => self.forge_slot(way),
            1 => self.forge_span(way),
            2 | 18 | 20 => self.forge_grant(way),
            3 | 4 | 22 => self.leave_grant(way),
            5 | 19 | 21 => self.use_bare_slot(way),
            6 | 23 => self.replay_frame(way),
            7 | 8 => self.write_after_fence(way),
            9 => self.write_late(way),
            10 => self.acknowledge_falsely(way),
            11 | 12 => self.send_unasked(way),
            13 => self.read_forbidden(way),
            14 => self.contradict(way),
            15 => self.never_end(way),
            16 => self.send_garbage(way),
            _ => self.write_under_grant(way),
        }
    }

    fn forge_slot(&mut self, way: Way) {
        let slot = match self.random.index(3) {
            0 => Slot(self.random.bits() as u32),
            1 => Slot(u32::MAX),
            _ => Slot(self.random.within(0..64) as u32),
        };
        let known = self.loot(way.engine, way.remote).slots.contains(&slot);
        if !known {
            self.write(way, slot, self.random_offset(), 16);
            self.did(Fault::ForgedSlot, way.engine, way.remote);
        }
    }

    fn random_offset(&self) -> u64 {
        self.now % BAIT
    }

    /// Beyond a region that it may write, before it by wrapping around, and across its end.
    fn forge_span(&mut self, way: Way) {
        let Some(slot) = self.bait_slot(way) else { return };
        let (offset, len) = match self.random.index(4) {
            0 => (BAIT, 1),
            1 => (BAIT - 8, 16),
            2 => (u64::MAX - 7, 16),
            _ => (self.random.bits() | BAIT, 64),
        };
        self.write(way, slot, offset, len);
        self.did(Fault::ForgedSpan, way.engine, way.remote);
    }

    /// Under a grant that nobody gave, or that was given to another.
    fn forge_grant(&mut self, way: Way) {
        let others =
            self.engines[way.remote].links.iter().filter(|(other, _)| **other != way.engine);
        let links: Vec<u64> = others.map(|(_, link)| link.serial).collect();
        let stolen = self.ledger.grants_of(&links);
        let grant = match stolen.len() {
            0 => GrantId(self.random.bits() | 1),
            count => stolen[self.random.index(count)],
        };
        let Some(held) = self.stolen(way) else { return };
        let Some((slot, offset, len)) = self.granted_span(&held) else { return };
        let mut forged = self.forged(way, Slot(slot), offset, len);
        forged.grant = Some(grant);
        self.send_write(way, &forged);
        self.did(Fault::ForgedGrant, way.engine, way.remote);
    }

    /// Under a grant that it has or had, beside what that is for.
    fn leave_grant(&mut self, way: Way) {
        let Some(held) = self.stolen(way) else { return };
        let blocks = held.layout.blocks;
        let outside: Vec<u32> = (0..blocks).filter(|block| !held.blocks.contains(block)).collect();
        if outside.is_empty() {
            return;
        }
        let beside = vec![outside[self.random.index(outside.len())]];
        let wrong = Stolen { blocks: beside, ..held.clone() };
        let Some((slot, offset, len)) = self.granted_span(&wrong) else { return };
        let mut forged = self.forged(way, Slot(slot), offset, len);
        forged.grant = Some(held.grant);
        self.send_write(way, &forged);
        self.did(Fault::BeyondGrant, way.engine, way.remote);
    }

    /// Within a grant: allowed while it stands. Of one that is gone it is not.
    fn write_under_grant(&mut self, way: Way) {
        let Some(held) = self.stolen(way) else { return };
        let Some((slot, offset, len)) = self.granted_span(&held) else { return };
        let mut forged = self.forged(way, Slot(slot), offset, len);
        forged.grant = Some(held.grant);
        self.send_write(way, &forged);
        let link = self.engines[way.remote].links.get(&way.engine).map(|link| link.serial);
        if link.is_none_or(|link| !self.ledger.is_granted(link, held.grant)) {
            self.did(Fault::StaleGrant, way.engine, way.remote);
        }
    }

    /// A grant's slot, without the grant.
    fn use_bare_slot(&mut self, way: Way) {
        let Some(held) = self.stolen(way) else { return };
        let Some((slot, offset, len)) = self.granted_span(&held) else { return };
        self.write(way, Slot(slot), offset, len);
        self.did(Fault::BareGrantSlot, way.engine, way.remote);
    }

    fn replay_frame(&mut self, way: Way) {
        let frames = &self.loot(way.engine, way.remote).frames;
        let count = frames.len();
        if count > 0 {
            let index = self.random.index(count);
            let bytes = self.loot(way.engine, way.remote).frames[index].clone();
            self.inject(way, bytes);
            self.did(Fault::Replay, way.engine, way.remote);
        }
    }

    /// One run of two, a `Cancel`, and then both runs again and again.
    fn write_after_fence(&mut self, way: Way) {
        let Some(slot) = self.bait_slot(way) else { return };
        let fenced = self.loot(way.engine, way.remote).fenced.back().copied();
        let transfer = match fenced.filter(|_| self.random.percent(60)) {
            Some(transfer) => transfer,
            None => {
                let transfer = self.fresh_transfer(way.engine, way.remote);
                self.write_run(way, transfer, slot, 0);
                self.link(way.engine, way.remote).peer.say(Message::Cancel { transfer });
                remember(&mut self.loot(way.engine, way.remote).fenced, transfer);
                transfer
            }
        };
        self.write_run(way, transfer, slot, 1);
        self.write_run(way, transfer, slot, 0);
        self.did(Fault::AfterFence, way.engine, way.remote);
    }

    fn write_run(&mut self, way: Way, transfer: TransferId, slot: Slot, run: u32) {
        let mut forged = self.forged(way, slot, u64::from(run) * 64, 64);
        forged.transfer = transfer;
        forged.runs = FrameRuns { first: run, count: 1, total: 2 };
        self.send_write(way, &forged);
    }

    fn write_late(&mut self, way: Way) {
        let Some(slot) = self.bait_slot(way) else { return };
        let mut forged = self.forged(way, slot, 0, 32);
        let then = self.local(way.remote).as_nanos();
        let age = self.random.within(0..2 * crate::testing::sim::SECOND);
        forged.expiry = Time::from_nanos(then.saturating_sub(age));
        self.send_write(way, &forged);
        self.did(Fault::PastExpiry, way.engine, way.remote);
    }

    /// Frames dealt with that were never sent, or refused ones that were not.
    fn acknowledge_falsely(&mut self, way: Way) {
        let far = self.random.bits() >> self.random.within(1..60);
        let header = match self.random.index(3) {
            0 => FrameHeader::ack(far, 0),
            1 => FrameHeader::ack(u64::MAX, u64::MAX),
            _ => FrameHeader::ack(far, far),
        };
        self.inject(way, header.encode().to_vec());
        self.did(Fault::FalseAck, way.engine, way.remote);
    }

    /// READ data: for a READ of which there is none, for one of the peer's, with runs or lengths
    /// that it has not, or twice.
    fn send_unasked(&mut self, way: Way) {
        let known = self.loot(way.engine, way.remote).transfers.back().copied();
        let transfer = known.filter(|_| self.random.percent(80));
        let transfer = transfer.unwrap_or(TransferId(self.random.bits() | 1 << 63));
        let first = self.random.within(0..4) as u32;
        let count = 1 + self.random.within(0..3) as u32;
        let total = first + count + self.random.within(0..40) as u32;
        let runs = FrameRuns { first, count, total };
        let request = FrameHeader::read_request(transfer, Time::ZERO, runs);
        let len = self.random.within(1..300) as u32;
        let header = FrameHeader::read_data(&request, len);
        self.send_forged(way, &header, &[]);
        self.did(Fault::UnaskedData, way.engine, way.remote);
    }

    /// Regions that were not opened to it, that may only be written, and beyond those that it may
    /// read.
    fn read_forbidden(&mut self, way: Way) {
        let slot = match self.bait_slot(way).filter(|_| self.random.percent(70)) {
            Some(slot) => slot,
            None => Slot(self.random.within(0..100) as u32),
        };
        let transfer = TransferId(self.random.bits() | 1 << 63);
        let offset = if self.random.percent(50) { BAIT - 4 } else { 0 };
        let spans = vec![WireSpan { slot, len: 8, offset }];
        let header = FrameHeader::read_request(transfer, self.far_expiry(), ONE);
        self.send_forged(way, &header, &spans);
        self.did(Fault::ForbiddenRead, way.engine, way.remote);
    }

    /// Frames of one transfer that do not agree on how many runs it has, or under which grant.
    fn contradict(&mut self, way: Way) {
        let Some(slot) = self.bait_slot(way) else { return };
        let transfer = self.fresh_transfer(way.engine, way.remote);
        for total in [3, 2, 1] {
            let mut forged = self.forged(way, slot, 0, 16);
            forged.transfer = transfer;
            forged.runs = FrameRuns { first: 0, count: 1, total };
            self.send_write(way, &forged);
        }
        self.did(Fault::Contradiction, way.engine, way.remote);
    }

    /// A frame that announces much and brings little.
    fn never_end(&mut self, way: Way) {
        let Some(slot) = self.bait_slot(way) else { return };
        let forged = self.forged(way, slot, 0, BAIT as u32);
        let mut bytes = self.encode(&forged);
        bytes.truncate(self.random.within(1..bytes.len() as u64) as usize);
        self.send(way.id, way.end, bytes);
        self.did(Fault::EndlessFrame, way.engine, way.remote);
    }

    fn send_garbage(&mut self, way: Way) {
        let mut bytes = vec![0; self.random.within(1..200) as usize];
        bytes.iter_mut().for_each(|byte| *byte = self.random.bits() as u8);
        self.send(way.id, way.end, bytes);
        self.did(Fault::GarbageFrame, way.engine, way.remote);
    }

    /// A grant of the peer's, which may be gone by now.
    fn stolen(&mut self, way: Way) -> Option<Stolen> {
        let grants = &self.loot(way.engine, way.remote).grants;
        let count = grants.len();
        if count == 0 {
            return None;
        }
        // One of the last may still stand.
        let from = if self.random.percent(50) { count.saturating_sub(3) } else { 0 };
        let index = from + self.random.index(count - from);
        self.loot(way.engine, way.remote).grants.get(index).cloned()
    }

    /// Slot, offset and length of some bytes of these blocks.
    fn granted_span(&mut self, held: &Stolen) -> Option<(u32, u64, u32)> {
        let spans: Vec<_> = spans_of(&held.layout, 0..LAYERS, &held.blocks).ok()?.collect();
        let span = *spans.get(self.random.index(spans.len().max(1)))?;
        let slot = held.slots.get(span.region as usize)?.0;
        let skip = self.random.within(0..span.len);
        let len = 1 + self.random.within(0..span.len - skip);
        Some((slot, span.offset + skip, len as u32))
    }

    fn bait_slot(&mut self, way: Way) -> Option<Slot> {
        let count = self.loot(way.engine, way.remote).slots.len();
        let index = self.random.index(count.max(1));
        let slot = self.loot(way.engine, way.remote).slots.get(index).copied();
        if slot.is_none() {
            self.post_to(way.engine, way.remote);
        }
        slot
    }

    /// As late as the peer could be asked to take it.
    fn far_expiry(&self) -> Time {
        Time::from_nanos(u64::MAX - self.now % 2)
    }

    fn forged(&mut self, way: Way, slot: Slot, offset: u64, len: u32) -> Forged {
        Forged {
            transfer: self.fresh_transfer(way.engine, way.remote),
            grant: None,
            expiry: self.far_expiry(),
            runs: ONE,
            spans: vec![WireSpan { slot, len, offset }],
        }
    }

    fn write(&mut self, way: Way, slot: Slot, offset: u64, len: u32) {
        let forged = self.forged(way, slot, offset, len);
        self.send_write(way, &forged);
    }

    fn send_write(&mut self, way: Way, forged: &Forged) {
        let bytes = self.encode(forged);
        remember(&mut self.loot(way.engine, way.remote).frames, bytes.clone());
        self.inject(way, bytes);
    }

    fn encode(&mut self, forged: &Forged) -> Vec<u8> {
        let len = forged.spans.iter().map(|span| span.len).sum();
        let Forged { transfer, grant, expiry, runs, spans } = forged;
        let header = FrameHeader::write(*transfer, *grant, *expiry, *runs, len);
        self.encode_with(&header, spans)
    }

    fn encode_with(&mut self, header: &FrameHeader, spans: &[WireSpan]) -> Vec<u8> {
        let mut bytes = header.encode().to_vec();
        spans.iter().for_each(|span| bytes.extend(RawSpan::from(*span).as_bytes()));
        if matches!(header.kind, FrameKind::Write | FrameKind::ReadData) {
            bytes.extend((0..header.payload_len).map(|_| self.random.bits() as u8));
        }
        bytes
    }

    fn send_forged(&mut self, way: Way, header: &FrameHeader, spans: &[WireSpan]) {
        let bytes = self.encode_with(header, spans);
        self.inject(way, bytes);
    }

    /// Puts a whole frame on a lane between two of its peer's.
    fn inject(&mut self, way: Way, bytes: Vec<u8>) {
        let acknowledges = bytes.get(4) == Some(&FrameKind::Ack.code());
        if !acknowledges && let Some(link) = self.link_of(way.engine, way.remote, way.ticket.link) {
            link.peer.count_forged(way.ticket.lane);
        }
        self.send(way.id, way.end, bytes);
    }

    /// Many WRITEs that are begun and never ended, or many READs asked for at once: more than the
    /// peer keeps.
    pub(super) fn flood_frames(&mut self, engine: usize, remote: usize) {
        let Some((id, end, ticket)) = self.quiet_lane(engine, remote) else { return };
        let way = Way { engine, remote, id, end, ticket };
        let Some(slot) = self.bait_slot(way) else { return };
        let reads = self.random.percent(50);
        for _ in 0..if reads { 50 } else { 300 } {
            if reads {
                let runs = FrameRuns { first: 0, count: 100, total: 100 };
                let transfer = TransferId(self.random.bits() | 1 << 63);
                let header = FrameHeader::read_request(transfer, self.far_expiry(), runs);
                let spans = vec![WireSpan { slot, len: 4, offset: 0 }; 100];
                self.send_forged(way, &header, &spans);
            } else {
                let mut forged = self.forged(way, slot, 0, 1);
                forged.runs = FrameRuns { first: 5, count: 1, total: 9 };
                self.send_write(way, &forged);
            }
        }
        self.did(if reads { Fault::ReadFlood } else { Fault::TransferFlood }, engine, remote);
    }
}
