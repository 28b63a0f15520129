//! Control messages that break the rules, and some that only try the patience of who gets them.

use bytes::Bytes;

use crate::error::Refusal;
use crate::id::{Association, GrantId, LaneId, RegionId, Room, SessionKey, Slot, TransferId};
use crate::layout::{Dtype, HeadWindow, LayoutBuilder};
use crate::region::{RegionKey, Rights};
use crate::testing::sim::{Fault, World};
use crate::time::Time;
use crate::transport::MemoryKind;
use crate::wire::message::{
    Grant, MESSAGE_HEADER_LEN, Message, MessageHeader, OpenRegion, RegionOpened,
};
use crate::wire::metadata::RegionDescription;

impl World {
    /// Says something that no honest engine says.
    pub(super) fn forge_message(&mut self, engine: usize, remote: usize) {
        let (fault, said) = match self.random.within(0..19) {
            0 => (Fault::ForgedKey, self.forged_keys(remote)),
            1 | 2 => (Fault::FalseLane, self.false_lane(engine, remote)),
            3 => (Fault::FalseEnd, self.false_end(engine, remote)),
            4 => (Fault::FalseCredit, self.false_credit()),
            5 => (Fault::ForgedGrants, self.forged_grants()),
            6 | 7 => (Fault::FalseSession, self.false_session(engine, remote)),
            8 => (Fault::FalseSlots, self.false_slots()),
            9 => (Fault::BrokenNotification, self.broken_notification(engine, remote)),
            10 => (Fault::FalseDirectory, self.false_directory()),
            11 => (Fault::FalseList, self.false_list()),
            12 => return self.repeat_message(engine, remote),
            _ => return self.break_sequence(engine, remote),
        };
        if said.is_empty() {
            return;
        }
        let peer = &mut self.link(engine, remote).peer;
        said.into_iter().for_each(|message| peer.say(message));
        self.did(fault, engine, remote);
    }

    /// Keys of regions that exist, as far as one can guess, and of some that do not.
    fn forged_keys(&mut self, remote: usize) -> Vec<Message> {
        let regions = self.engines[remote].belongings.estates.iter().map(|here| here.region.id);
        let known: Vec<RegionId> = regions.collect();
        let mut guesses = Vec::new();
        for _ in 0..1 + self.random.index(4) {
            let region = match self.random.index(3) {
                0 => RegionId::from_bits(self.random.bits()),
                _ => known[self.random.index(known.len())],
            };
            guesses.push(OpenRegion { region, key: RegionKey::new(self.random.bytes()) });
        }
        vec![Message::OpenRegions(guesses)]
    }

    /// Lanes that never were, frames dealt with that were never sent, refusals of others.
    fn false_lane(&mut self, engine: usize, remote: usize) -> Vec<Message> {
        let link = self.link(engine, remote);
        let lanes: Vec<LaneId> = link.lanes.keys().copied().collect();
        let known = lanes.get(self.random.index(lanes.len().max(1))).copied();
        let lane = known.filter(|_| self.random.percent(70));
        let lane = lane.unwrap_or(LaneId(self.random.bits() as u32));
        let number = self.random.bits() >> self.random.within(1..64);
        let transfer = TransferId(1 + self.random.within(0..20));
        match self.random.index(3) {
            0 => vec![Message::LaneRetired { lane, processed: number }],
            1 => vec![Message::LaneRetired { lane, processed: 0 }; 2],
            _ => {
                let refusal = Refusal::ALL[self.random.index(Refusal::ALL.len())];
                vec![Message::Refused { lane, frame: number, transfer, refusal }]
            }
        }
    }

    /// Ends of transfers that were not asked for.
    fn false_end(&mut self, engine: usize, remote: usize) -> Vec<Message> {
        let known = self.loot(engine, remote).transfers.back().copied();
        let known = known.filter(|_| self.random.percent(60));
        let transfer = known.unwrap_or(TransferId(self.random.bits() | 1));
        match self.random.index(4) {
            0 => vec![Message::Fenced { transfer }],
            1 => vec![Message::ReadFailed { transfer, refusal: Refusal::NoRight }],
            2 => vec![Message::Cancel { transfer }, Message::Cancel { transfer }],
            _ => {
                let (first, count) =
                    (self.random.within(0..9) as u32, 1 + self.random.bits() as u32 % 9);
                vec![Message::ReadExpired { transfer, first, count }]
            }
        }
    }

    fn false_credit(&mut self) -> Vec<Message> {
        let consumed = self.random.bits() >> self.random.within(0..60);
        vec![Message::NotificationCredit { consumed }]
    }

    /// Grants of layouts that this side has no use for, twice, in more parts than were announced.
    fn forged_grants(&mut self) -> Vec<Message> {
        let heads = HeadWindow { first: 0, count: 1, total: 1 };
        let layers = 1 + self.random.within(0..9) as u32;
        let layout = LayoutBuilder::key_value(layers, 4, heads, 2, Dtype::Fp8).build();
        let layout = layout.expect("a small layout");
        let slots = layout.region_lens().iter().map(|_| Slot(self.random.bits() as u32)).collect();
        let grant = GrantId(self.random.bits() | 1);
        let room = Room(self.random.within(0..self.ledger.sessions.len() as u64 + 2));
        let session = SessionKey { room, attempt: 0, sender_rank: 0, receiver_rank: 0 };
        let total_blocks = self.random.within(1..1000) as u32;
        let tokens = self.random.bits() as u32;
        let blocks = (0..total_blocks.min(4)).map(|_| self.random.bits() as u32).collect();
        let whole = Grant { grant, session, layout, slots, tokens, total_blocks, blocks };
        let first = Message::Grant(Box::new(whole));
        match self.random.index(3) {
            0 => vec![first],
            1 => vec![first.clone(), first],
            _ => vec![first, Message::GrantBlocks { grant, blocks: vec![7; 1000] }],
        }
    }

    /// Layers that no grant has, ends that come twice or too early, aborts of others' sessions.
    fn false_session(&mut self, engine: usize, remote: usize) -> Vec<Message> {
        let held = self.loot(engine, remote).grants.last().map(|held| (held.grant, held.session));
        let room = Room(self.random.within(0..self.ledger.sessions.len() as u64 + 2));
        let strange = SessionKey { room, attempt: 0, sender_rank: 0, receiver_rank: 0 };
        let guess = (GrantId(self.random.bits() | 1), strange);
        let (grant, session) = held.filter(|_| self.random.percent(70)).unwrap_or(guess);
        let transfer = TransferId(self.random.within(1..1 << 41));
        let payload = Bytes::from_static(b"not what was promised");
        match self.random.index(6) {
            0 => vec![Message::Layers { transfer, grant, first: u32::MAX - 9, count: 7 }],
            1 => vec![Message::Layers { transfer, grant, first: 0, count: 2 }],
            2 => vec![Message::SessionEnd { grant, writes: 0, payload }],
            3 => vec![Message::SessionEnd { grant, writes: self.random.bits(), payload }; 2],
            _ => {
                let by_receiver = self.random.percent(50);
                let grant = Some(grant).filter(|_| self.random.percent(70));
                let reason = "because".to_owned();
                vec![Message::SessionAbort {
                    session: strange_or(session, strange, by_receiver),
                    grant,
                    by_receiver,
                    reason,
                }]
            }
        }
    }

    /// Slots that were never given, and answers to what was not asked.
    fn false_slots(&mut self) -> Vec<Message> {
        if self.random.percent(60) {
            let slots = (0..4).map(|_| Slot(self.random.within(0..50) as u32)).collect();
            return vec![Message::SlotsClosed(slots)];
        }
        let region = RegionId::from_bits(self.random.bits());
        vec![Message::RegionsOpened(vec![RegionOpened { region, slot: Ok(Slot(3)) }])]
    }

    /// Regions that are not there, to who may not have asked; and questions without end.
    fn false_list(&mut self) -> Vec<Message> {
        let regions = (0..1 + self.random.index(9)).map(|index| RegionDescription {
            id: RegionId::new(index as u32, 1),
            key: RegionKey::new(self.random.bytes()),
            base: self.random.bits() >> 1,
            len: 1 + self.random.within(0..1 << 40),
            rights: Rights::all(),
            kind: MemoryKind::Host,
        });
        let regions: Vec<RegionDescription> = regions.collect();
        match self.random.index(3) {
            0 => vec![Message::RegionsListed { more: false, regions }],
            1 => vec![Message::RegionsListed { more: true, regions }; 200],
            _ => vec![Message::ListRegions; 3],
        }
    }

    /// A notification whose parts do not belong together, or of which the rest never comes.
    fn broken_notification(&mut self, engine: usize, remote: usize) -> Vec<Message> {
        let after = Some(self.fresh_transfer(engine, remote));
        let bytes = Bytes::from(vec![1; 1 + self.random.index(3000)]);
        let begun = Message::Notify { after, more: true, bytes: bytes.clone() };
        match self.random.index(3) {
            0 => vec![begun],
            1 => vec![begun, Message::Notify { after: None, more: false, bytes }],
            _ => vec![begun, Message::Notify { after, more: false, bytes: Bytes::new() }],
        }
    }

    fn false_directory(&mut self) -> Vec<Message> {
        vec![Message::DirectoryAnswer { request: self.random.bits(), entry: None }; 3]
    }

    /// Answers a heartbeat, before its peer does, with a clock that shows anything at all.
    pub(super) fn lie_about_time(&mut self, engine: usize, remote: usize, echo: Time) {
        if self.random.percent(50) {
            return;
        }
        let time = match self.random.index(3) {
            0 => Time::ZERO,
            1 => Time::from_nanos(u64::MAX),
            _ => Time::from_nanos(self.random.bits()),
        };
        self.link(engine, remote).peer.say(Message::HeartbeatReply { echo, time });
        self.did(Fault::ClockLie, engine, remote);
    }

    /// A message of before, which changes nothing.
    fn repeat_message(&mut self, engine: usize, remote: usize) {
        let messages = &self.loot(engine, remote).messages;
        let count = messages.len();
        if count > 0 {
            let index = self.random.index(count);
            let bytes = self.loot(engine, remote).messages[index].clone();
            self.send_raw(engine, remote, bytes);
            self.did(Fault::OldMessage, engine, remote);
        }
    }

    /// Bytes that are no message, or one that is not due.
    fn break_sequence(&mut self, engine: usize, remote: usize) {
        let far = 1 << self.random.within(20..60);
        let (fault, kind, sequence, acknowledged) = match self.random.index(5) {
            0 => (Fault::SequenceGap, 22, far, 0),
            1 => (Fault::FutureAcknowledgement, 4, 0, far),
            2 => (Fault::UnknownMessage, 15 - self.random.within(0..9) as u16, 0, 0),
            3 => return self.resume_again(engine, remote),
            _ => (Fault::HugeMessage, 4, 0, 0),
        };
        let body_len = match fault {
            Fault::SequenceGap => 8,
            Fault::HugeMessage => u32::MAX >> self.random.within(0..8),
            _ => 0,
        };
        let header = MessageHeader { body_len, kind, sequence, acknowledged };
        let mut bytes = header.encode().to_vec();
        bytes.extend([1; 8]);
        self.send_raw(engine, remote, bytes);
        self.did(fault, engine, remote);
    }

    /// Another Resume, of this association or of one that never was.
    fn resume_again(&mut self, engine: usize, remote: usize) {
        let own = Association(self.random.bits() | 1);
        let message = Message::Resume { own, peer: None };
        let mut bytes = vec![0; MESSAGE_HEADER_LEN];
        message.encode_body(&mut bytes).expect("two numbers");
        let body_len = (bytes.len() - MESSAGE_HEADER_LEN) as u32;
        let header = MessageHeader { body_len, kind: message.kind(), sequence: 0, acknowledged: 0 };
        bytes[..MESSAGE_HEADER_LEN].copy_from_slice(&header.encode());
        self.send_raw(engine, remote, bytes);
        self.did(Fault::SecondResume, engine, remote);
    }

    fn send_raw(&mut self, engine: usize, remote: usize, bytes: Vec<u8>) {
        let link = self.link(engine, remote);
        let end = if link.dialed_here { 0 } else { 1 };
        if let Some(control) = link.control {
            self.send(control, end, bytes);
        }
    }
}

/// A receiver's abort may name any session; a sender's is for one that it holds.
fn strange_or(known: SessionKey, strange: SessionKey, by_receiver: bool) -> SessionKey {
    if by_receiver { strange } else { known }
}
