//! One fixed specimen of everything that travels: what the golden vectors hold.

use std::net::SocketAddr;

use bytes::Bytes;
use kvx_core::error::{HandshakeError, Refusal};
use kvx_core::id::{
    Association, EngineId, GrantId, Incarnation, LaneId, RegionId, Room, SessionKey, Slot,
    TransferId,
};
use kvx_core::layout::{Attention, Dtype, HeadWindow, Layout, Pool};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::time::Time;
use kvx_core::transport::{MemoryKind, Operations, TransportOffer};
use kvx_core::wire::handshake::{
    AuthMethod, Confirm, Features, HandshakeMessage, Hello, Identity, LaneChallenge, LaneHello,
    LaneProof, Mark, Reject, Welcome,
};
use kvx_core::wire::message::{DirectoryEntry, Grant, Message, OpenRegion, RankKey, RegionOpened};
use kvx_core::wire::metadata::{Metadata, MetadataSecret, RegionDescription};
use kvx_core::wire::{FrameFlags, FrameHeader, FrameRuns, WireSpan};

use crate::format::Thing;

/// Every specimen, by the name of its file.
pub(crate) fn all() -> Vec<(String, Thing)> {
    let mut all = frames();
    all.extend(handshakes());
    all.extend(messages().into_iter().enumerate().map(|(index, message)| {
        let sequence = if message.is_sequenced() { 0x0102_0304_0506 + index as u64 } else { 0 };
        let name = format!("message-{:02}-{}", message.kind(), message.name());
        (name, Thing::Message { sequence, acknowledged: 0x1112_1314, message })
    }));
    let secret = Some(MetadataSecret::new([0xc3; MetadataSecret::LEN]));
    all.push(("blob-metadata".to_owned(), Thing::Blob(metadata())));
    all.push(("blob-metadata-secret".to_owned(), Thing::Blob(Metadata { secret, ..metadata() })));
    all
}

fn frames() -> Vec<(String, Thing)> {
    let runs = FrameRuns { first: 0x0001_0203, count: 2, total: 0x0010_0000 };
    let spans = vec![
        WireSpan { slot: Slot(7), len: 4096, offset: 0x0011_2233_4455_6677 },
        WireSpan { slot: Slot(0x0a0b_0c0d), len: 512, offset: 0 },
    ];
    let (transfer, expiry) = (TransferId(0x0102_0304_0506_0708), Time::from_nanos(1 << 50));
    let write = FrameHeader::write(transfer, Some(GrantId(0x99)), expiry, runs, 4608);
    let summed = FrameHeader {
        flags: FrameFlags::CHECKSUM | FrameFlags::DIGEST,
        table_crc: 0xaabb_ccdd,
        payload_crc: 0x1122_3344,
        digest: 0x5566_7788_99aa_bbcc,
        grant: None,
        ..write
    };
    let request = FrameHeader::read_request(transfer, expiry, runs);
    [
        ("frame-1-write", write, spans.clone()),
        ("frame-1-write-checksum-digest", summed, spans.clone()),
        ("frame-2-read-request", request, spans),
        ("frame-3-read-data", FrameHeader::read_data(&request, 4608), Vec::new()),
        ("frame-4-ack", FrameHeader::ack(0x0102_0304_0506, 3), Vec::new()),
    ]
    .map(|(name, header, spans)| (name.to_owned(), Thing::Frame(header, spans)))
    .into()
}

fn handshakes() -> Vec<(String, Thing)> {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        features: Features::CHECKSUM,
        auth: AuthMethod::SharedKey,
        identity: identity("prefill-0"),
        expected: Some(EngineId([0xee; 16])),
        nonce: [0x11; 32],
    };
    let time = Time::from_nanos(77);
    let mark = Mark { association: Some(Association(0x0102_0304_0506_0708)), own: [0x99; 32] };
    let mut all = vec![
        ("hello", HandshakeMessage::Hello(hello.clone())),
        (
            "hello-metadata",
            HandshakeMessage::Hello(Hello { auth: AuthMethod::Metadata, expected: None, ..hello }),
        ),
        (
            "welcome",
            HandshakeMessage::Welcome(Welcome {
                version: 1,
                features: Features::empty(),
                identity: identity("decode-0"),
                nonce: [0x22; 32],
                mac: [0x33; 32],
            }),
        ),
        ("confirm", HandshakeMessage::Confirm(Confirm { time, mark: None, mac: [0x44; 32] })),
        (
            "confirm-mark",
            HandshakeMessage::Confirm(Confirm { time, mark: Some(mark), mac: [0x44; 32] }),
        ),
        (
            "lane-hello",
            HandshakeMessage::LaneHello(LaneHello {
                engine: EngineId([0xe1; 16]),
                association: Association(5),
                peer_association: Association(6),
                lane: LaneId(3),
                transport: 1,
                nonce: [0x55; 32],
            }),
        ),
        (
            "lane-challenge",
            HandshakeMessage::LaneChallenge(LaneChallenge { nonce: [0x66; 32], mac: [0x77; 32] }),
        ),
        ("lane-proof", HandshakeMessage::LaneProof(LaneProof { mac: [0x88; 32] })),
    ];
    all.extend(rejects().map(|(name, reason)| (name, HandshakeMessage::Reject(Reject { reason }))));
    all.into_iter()
        .map(|(name, message)| {
            let name = format!("handshake-{}-{name}", message.kind().code());
            (name, Thing::Handshake(message))
        })
        .collect()
}

/// Every reason as the listener gives it.
pub(crate) fn rejects() -> [(&'static str, HandshakeError); 14] {
    [
        ("reject-not-kvx", HandshakeError::NotKvx),
        (
            "reject-malformed",
            HandshakeError::Malformed(kvx_core::wire::WireError::Utf8 { what: "name" }),
        ),
        (
            "reject-version",
            HandshakeError::Version { ours_min: 3, ours_max: 4, theirs_min: 1, theirs_max: 2 },
        ),
        (
            "reject-method",
            HandshakeError::Method {
                ours: AuthMethod::SharedKey.name(),
                theirs: AuthMethod::Insecure.name(),
            },
        ),
        ("reject-wrong-key", HandshakeError::WrongKey),
        (
            "reject-wrong-engine",
            HandshakeError::WrongEngine { expected: EngineId([1; 16]), found: EngineId([2; 16]) },
        ),
        ("reject-same-engine", HandshakeError::SameEngine),
        ("reject-duplicate", HandshakeError::Duplicate),
        ("reject-name-taken", HandshakeError::NameTaken),
        ("reject-no-control", HandshakeError::NoControl),
        ("reject-busy", HandshakeError::Busy),
        ("reject-shutting-down", HandshakeError::ShuttingDown),
        ("reject-ended", HandshakeError::Ended),
        ("reject-timeout", HandshakeError::Timeout),
    ]
}

fn identity(name: &str) -> Identity {
    Identity {
        engine: EngineId([0xa1; 16]),
        incarnation: Incarnation([0xb2; 16]),
        time: Time::from_nanos(0x0011_2233_4455_6677),
        name: name.into(),
        addresses: addresses(),
        transports: vec![
            TransportOffer { code: 1, operations: Operations::WRITE | Operations::READ },
            TransportOffer { code: 200, operations: Operations::from_bits_retain(0x8001) },
        ],
        notification_window: 1 << 20,
    }
}

fn addresses() -> Vec<SocketAddr> {
    vec!["192.0.2.7:8998".parse().unwrap(), "[2001:db8::7]:8998".parse().unwrap()]
}

/// Two K/V layers of four heads of a model's eight.
pub(crate) fn layout() -> Layout {
    Layout {
        first_layer: 2,
        layers: 2,
        attention: Attention::KeyValue,
        block_tokens: 16,
        blocks: 64,
        heads: HeadWindow { first: 4, count: 4, total: 8 },
        head_size: 128,
        dtype: Dtype::Bf16,
        block_stride: 16 * 1024,
        token_stride: 1024,
        head_stride: 256,
        pools: (0..4).map(|region| Pool { region, offset: 4096 }).collect(),
    }
}

fn session() -> SessionKey {
    SessionKey { room: Room(0x00c0_ffee), attempt: 1, sender_rank: 2, receiver_rank: 3 }
}

fn rank() -> RankKey {
    RankKey { instance: "prefill".to_owned(), dp: 1, pp: 2, tp: 3 }
}

fn entry() -> DirectoryEntry {
    DirectoryEntry { engine: EngineId([0xe3; 16]), addresses: addresses() }
}

/// One message of every type, in the order of the numbers.
pub(crate) fn messages() -> Vec<Message> {
    let (transfer, grant, lane) = (TransferId(9), GrantId(0x0203), LaneId(4));
    let region = RegionId::new(5, 6);
    vec![
        Message::Resume { own: Association(0x0102_0304), peer: Some(Association(0x0506_0708)) },
        Message::Heartbeat { time: Time::from_nanos(0x0102) },
        Message::HeartbeatReply { echo: Time::from_nanos(0x0102), time: Time::from_nanos(0x0304) },
        Message::Acknowledge,
        Message::Goodbye,
        Message::OpenRegions(vec![
            OpenRegion { region, key: RegionKey::new([0x5a; 16]) },
            OpenRegion { region: RegionId::new(7, 1), key: RegionKey::new([0xa5; 16]) },
        ]),
        Message::RegionsOpened(vec![
            RegionOpened { region, slot: Ok(Slot(0x0708)) },
            RegionOpened { region: RegionId::new(7, 1), slot: Err(Refusal::WrongKey) },
        ]),
        Message::SlotsClosed(vec![Slot(1), Slot(0x0a0b_0c0d)]),
        Message::LaneRetired { lane, processed: 0x0102_0304_0506 },
        Message::Refused { lane, frame: 8, transfer, refusal: Refusal::Expired },
        Message::ReadFailed { transfer, refusal: Refusal::MemoryFault },
        Message::Cancel { transfer },
        Message::Fenced { transfer },
        Message::Notify {
            after: Some(transfer),
            more: true,
            bytes: Bytes::from_static(b"first token 42"),
        },
        Message::NotificationCredit { consumed: 0x0001_0000_0000 },
        Message::Grant(Box::new(Grant {
            grant,
            session: session(),
            layout: layout(),
            slots: (10..14).map(Slot).collect(),
            tokens: 33,
            total_blocks: 3,
            blocks: vec![17, 5],
        })),
        Message::GrantBlocks { grant, blocks: vec![0x0102_0304] },
        Message::Layers { transfer, grant, first: 2, count: 2 },
        Message::SessionEnd { grant, writes: 2, payload: Bytes::from_static(b"\x00\xff") },
        Message::SessionAbort {
            session: session(),
            grant: None,
            by_receiver: true,
            reason: "request cancelled \u{2014} by the user".to_owned(),
        },
        Message::DirectoryPut { rank: rank(), entry: entry() },
        Message::DirectoryGet { request: 12, rank: rank(), wait_ms: 30_000 },
        Message::DirectoryAnswer { request: 12, entry: Some(entry()) },
        Message::ReadExpired { transfer, first: 1024, count: 1024 },
        Message::ListRegions,
        Message::RegionsListed { more: true, regions: metadata().regions },
    ]
}

/// An engine with one host region and one on a device.
pub(crate) fn metadata() -> Metadata {
    Metadata {
        engine: EngineId([0xa1; 16]),
        incarnation: Incarnation([0xb2; 16]),
        name: "decode-0".into(),
        addresses: addresses(),
        regions: vec![
            RegionDescription {
                id: RegionId::new(0, 1),
                key: RegionKey::new([0x5a; 16]),
                base: 0x7f00_0000_1000,
                len: 1 << 30,
                rights: Rights::REMOTE_WRITE,
                kind: MemoryKind::Host,
            },
            RegionDescription {
                id: RegionId::new(1, 2),
                key: RegionKey::new([0xa5; 16]),
                base: 0,
                len: u64::MAX,
                rights: Rights::REMOTE_READ | Rights::REMOTE_WRITE,
                kind: MemoryKind::Cuda(3),
            },
        ],
        secret: None,
    }
}
