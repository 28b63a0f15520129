//! The puppet's side of the control connection: a handshake, messages of its making, and ears.

use bytes::Bytes;
use kvx_core::error::{Cause, Refusal};
use kvx_core::id::{
    Association, EngineId, GrantId, Incarnation, LaneId, RegionId, Room, SessionKey, TransferId,
};
use kvx_core::proto::{Auth, Dialer, Established, Listener, LocalIdentity};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::time::Time;
use kvx_core::transport::MemoryKind;
use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage};
use kvx_core::wire::message::{
    DirectoryEntry, Grant, MESSAGE_HEADER_LEN, Message, MessageHeader, OpenRegion, RankKey,
    RegionOpened,
};
use kvx_core::wire::metadata::RegionDescription;

use super::World;
use super::model::{self, Model};
use super::operation::{Id, Number, What};

/// The victim's association.
pub(super) const VICTIM: u64 = 7;

/// Where the puppet is in the two sequences.
#[derive(Default)]
pub(super) struct Puppet {
    /// Of its own messages, the last.
    said: u64,
    /// Of the victim's, the last.
    heard: u64,
    /// The association under which it spoke last.
    own: u64,
    connected: bool,
}

impl Puppet {
    pub(super) fn connect(&mut self) {
        self.connected = true;
    }

    pub(super) fn disconnect(&mut self) {
        self.connected = false;
    }
}

impl World {
    /// The puppet's first words. Another association than before begins anew.
    pub(super) fn resume(&mut self, own: u8, knows: u8) -> Option<()> {
        let own = u64::from(own % 3) + 1;
        let peer = match knows % 4 {
            0 => None,
            1 => Some(Association(VICTIM + 1)),
            _ => Some(Association(VICTIM)),
        };
        if self.puppet.own != 0 && self.puppet.own != own {
            // The stream counts anew on both sides, where the peer takes it for a new one.
            (self.puppet.said, self.puppet.heard) = (0, 0);
            self.model.restart();
        }
        self.puppet.own = own;
        let resume = Message::Resume { own: Association(own), peer };
        self.say(&resume, Number::Next, None)
    }

    pub(super) fn say(
        &mut self,
        message: &Message,
        number: Number,
        acknowledges: Option<u8>,
    ) -> Option<()> {
        let mut body = Vec::new();
        message.encode_body(&mut body).ok()?;
        // The model hears it first: what the peer does then, it does knowing of it.
        if let Message::Cancel { transfer } = message
            && matches!(number, Number::Next | Number::AlsoNext)
        {
            self.model.cancelled(*transfer);
        }
        self.say_bytes(message.kind(), body, number, acknowledges)
    }

    /// Bytes as a connection's reader gives them to the peer: where they break the protocol, the
    /// peer is over.
    pub(super) fn say_bytes(
        &mut self,
        kind: u16,
        body: Vec<u8>,
        number: Number,
        acknowledges: Option<u8>,
    ) -> Option<()> {
        if !self.puppet.connected {
            return None;
        }
        let sequenced = kind >= kvx_core::wire::message::FIRST_SEQUENCED;
        let sequence = match number {
            _ if !sequenced => 0,
            Number::Next | Number::AlsoNext => self.puppet.said + 1,
            Number::Again => self.puppet.said,
            Number::Any(number) => number.into(),
        };
        self.puppet.said = self.puppet.said.max(sequence);
        let acknowledged = acknowledges.map_or(self.puppet.heard, u64::from);
        let header = MessageHeader { body_len: body.len() as u32, kind, sequence, acknowledged };
        let parsed = MessageHeader::decode(&header.encode());
        let done = match parsed {
            Ok(header) => self.peer.handle_message(self.now, &header, Bytes::from(body)),
            Err(error) => Err(error.into()),
        };
        if let Err(violation) = done {
            self.peer.kill(Cause::PeerMisbehaved(violation));
        }
        Some(())
    }

    /// Hears what the peer says: all of it parses, and is in sequence.
    pub(super) fn listen(&mut self) {
        while let Some(bytes) = self.peer.poll_message().expect("a message that fits") {
            let (header, body) = bytes.split_first_chunk::<MESSAGE_HEADER_LEN>().expect("a header");
            let header = MessageHeader::decode(header).expect("a header of ours");
            assert_eq!(header.body_len as usize, body.len());
            let body = Bytes::copy_from_slice(body);
            let message = Message::decode(header.kind, body).expect("a message of ours");
            if message.is_sequenced() {
                // On a new connection those that were not acknowledged come again.
                assert!(header.sequence <= self.puppet.heard + 1, "a gap");
                if header.sequence <= self.puppet.heard {
                    continue;
                }
                self.puppet.heard = header.sequence;
            }
            match message {
                Message::RegionsOpened(answers) => self.model.opened(&answers),
                Message::Refused { transfer, refusal, .. } => {
                    self.model.refused(transfer, refusal);
                }
                Message::Grant(grant) => self.model.showed_grant(&grant),
                Message::RegionsListed { more, regions } => {
                    assert!(!more, "so few regions fit in one part");
                    self.model.listed(&regions);
                }
                _ => {}
            }
        }
    }
}

/// A message that parses, with names that mean something.
pub(super) fn message(what: What, model: &Model, now: Time) -> Option<Message> {
    Some(match what {
        What::Heartbeat => Message::Heartbeat { time: now },
        What::HeartbeatReply { back, time } => {
            let echo = now.as_nanos().saturating_sub(u64::from(back) * 1_000_000);
            Message::HeartbeatReply { echo: Time::from_nanos(echo), time: Time::from_nanos(time) }
        }
        What::Acknowledge => Message::Acknowledge,
        What::Goodbye => Message::Goodbye,
        What::OpenRegions(list) => {
            let open = |(which, right): (u8, bool)| {
                let (id, key) = match model.name(which) {
                    Some(region) => (region.id, region.key.clone()),
                    None => region(which.into()),
                };
                OpenRegion { region: id, key: if right { key } else { RegionKey::new([0; 16]) } }
            };
            Message::OpenRegions(list.into_iter().map(open).collect())
        }
        What::RegionsOpened(list) => {
            let opened = |(which, slot): (u8, Option<u8>)| RegionOpened {
                region: region(u32::from(which % 4)).0,
                slot: slot.map(model::slot).ok_or(Refusal::WrongKey),
            };
            Message::RegionsOpened(list.into_iter().map(opened).collect())
        }
        What::SlotsClosed(list) => {
            Message::SlotsClosed(list.into_iter().map(model::slot).collect())
        }
        What::LaneRetired { lane, processed } => {
            Message::LaneRetired { lane: LaneId(lane.into()), processed: processed.into() }
        }
        What::Refused { lane, frame, transfer, refusal } => Message::Refused {
            lane: LaneId(lane.into()),
            frame: frame.into(),
            transfer: transfer.id(),
            refusal: refusal_of(refusal),
        },
        What::ReadFailed { transfer, refusal } => {
            Message::ReadFailed { transfer: transfer.id(), refusal: refusal_of(refusal) }
        }
        What::ReadExpired { transfer, first, count } => Message::ReadExpired {
            transfer: transfer.id(),
            first: first.into(),
            count: count.into(),
        },
        What::Cancel { transfer } => Message::Cancel { transfer: transfer.id() },
        What::Fenced { transfer } => Message::Fenced { transfer: transfer.id() },
        What::Notify { after, more, len } => {
            Message::Notify { after: after.map(Id::id), more, bytes: vec![1; len.into()].into() }
        }
        What::NotificationCredit { consumed } => {
            Message::NotificationCredit { consumed: consumed.into() }
        }
        What::Grant { grant, blocks, more, slots } => Message::Grant(Box::new(Grant {
            grant: GrantId(u64::from(grant) + 1),
            session: session(grant.into()),
            layout: model::layout(),
            slots: (0..slots % 4).map(model::slot).collect(),
            tokens: 4,
            total_blocks: blocks.len() as u32 + u32::from(more),
            blocks: blocks.into_iter().map(u32::from).collect(),
        })),
        What::GrantBlocks { grant, blocks } => Message::GrantBlocks {
            grant: GrantId(u64::from(grant) + 1),
            blocks: blocks.into_iter().map(u32::from).collect(),
        },
        What::Layers { transfer, grant, first, count } => Message::Layers {
            transfer: transfer.id(),
            grant: model.any_grant(grant),
            first: first.into(),
            count: count.into(),
        },
        What::SessionEnd { grant, writes, len } => Message::SessionEnd {
            grant: model.any_grant(grant),
            writes: writes.into(),
            payload: vec![2; len.into()].into(),
        },
        What::SessionAbort { grant, by_receiver } => Message::SessionAbort {
            session: session(0),
            grant: grant.map(|grant| match by_receiver {
                true => GrantId(u64::from(grant) + 1),
                false => model.any_grant(grant),
            }),
            by_receiver,
            reason: "the puppet wants it so".to_owned(),
        },
        What::DirectoryPut => Message::DirectoryPut { rank: rank(), entry: entry() },
        What::DirectoryGet { wait } => {
            Message::DirectoryGet { request: 1, rank: rank(), wait_ms: wait.into() }
        }
        What::DirectoryAnswer { known } => {
            Message::DirectoryAnswer { request: 1, entry: known.then(entry) }
        }
        What::ListRegions => Message::ListRegions,
        What::RegionsListed { more, regions } => {
            let described = |(which, right): (u8, bool)| {
                let (id, key) = region(u32::from(which % 6));
                let key = if right { key } else { RegionKey::new([which; 16]) };
                let base = u64::from(which) << 12;
                let (rights, kind) = (Rights::all(), MemoryKind::Host);
                RegionDescription { id, key, base, len: model::LEN, rights, kind }
            };
            let regions = regions.into_iter().map(described).collect();
            Message::RegionsListed { more, regions }
        }
    })
}

impl Id {
    pub(super) fn id(self) -> TransferId {
        let kind = if self.read { 1 << 63 } else { 0 };
        TransferId(kind | u64::from(self.number % 6 + 1))
    }
}

/// Region `number` of the puppet's.
pub(super) fn region(number: u32) -> (RegionId, RegionKey) {
    (RegionId::new(number, 1), RegionKey::new([0xbb; 16]))
}

pub(super) fn session(room: u64) -> SessionKey {
    SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 }
}

pub(super) fn rank() -> RankKey {
    RankKey { instance: "prefill".to_owned(), dp: 0, pp: 0, tp: 0 }
}

pub(super) fn entry() -> DirectoryEntry {
    DirectoryEntry { engine: EngineId([3; 16]), addresses: Vec::new() }
}

/// What the victim holds of the puppet once their handshake is done.
pub(super) fn handshake(now: Time) -> Established {
    let [victim, puppet] = [1, 2].map(|number| LocalIdentity {
        engine: EngineId([number; 16]),
        incarnation: Incarnation([number; 16]),
        name: format!("engine {number}").into(),
        addresses: Vec::new(),
        transports: Vec::new(),
        notification_window: 1 << 20,
    });
    let auth = Auth::Insecure;
    let (dialer, hello) = Dialer::new(&victim, &auth, None, [1; 32], now).expect("a Hello");
    let HandshakeMessage::Hello(heard) = parse(&hello) else { unreachable!("a Hello") };
    let reply = Listener::answer(&puppet, &[auth], &hello, heard, [2; 32], now).expect("a Welcome");
    let welcomed = dialer.handle_welcome(now, &reply.bytes, parse(&reply.bytes));
    welcomed.expect("the same auth").0
}

fn parse(bytes: &[u8]) -> HandshakeMessage {
    let (prefix, body) = bytes.split_first_chunk::<HANDSHAKE_PREFIX_LEN>().expect("a prefix");
    let (kind, _) = HandshakeMessage::decode_prefix(prefix).expect("a prefix of ours");
    HandshakeMessage::decode(kind, body).expect("a message of ours")
}

fn refusal_of(number: u8) -> Refusal {
    Refusal::ALL[usize::from(number) % Refusal::ALL.len()]
}
