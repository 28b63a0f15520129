//! Arbitrary valid values of every type that travels.

use std::net::{IpAddr, SocketAddr};

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
use kvx_core::wire::{
    FrameFlags, FrameHeader, FrameRuns, MAX_FRAME_PAYLOAD, MAX_FRAME_SPANS, MAX_RUNS, WireSpan,
};
use proptest::array::{uniform16, uniform32};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::format::Thing;
use crate::samples;

pub(crate) fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        frame(),
        handshake().prop_map(Thing::Handshake),
        (message(), 1..=u64::MAX, any::<u64>()).prop_map(|(message, number, acknowledged)| {
            let sequence = if message.is_sequenced() { number } else { 0 };
            Thing::Message { sequence, acknowledged, message }
        }),
        metadata().prop_map(Thing::Blob),
    ]
}

fn frame() -> impl Strategy<Value = Thing> {
    let span = (any::<u32>(), 1..=MAX_FRAME_PAYLOAD / MAX_FRAME_SPANS as u32, any::<u64>())
        .prop_map(|(slot, len, offset)| WireSpan { slot: Slot(slot), len, offset });
    let count = prop_oneof![9 => 1..20usize, 1 => Just(MAX_FRAME_SPANS)];
    let spans = count.prop_flat_map(move |count| vec(span.clone(), count));
    let sums = (any::<bool>(), any::<bool>(), any::<u32>(), any::<u32>(), any::<u64>());
    let rest = (0..4u8, 0..MAX_RUNS, 0..MAX_RUNS, any::<u64>(), any::<u64>());
    (spans, transfer(), option::of(grant_id()), time(), sums, rest).prop_map(
        |(
            spans,
            transfer,
            grant,
            expiry,
            (checksum, digest, table_crc, payload_crc, sum),
            rest,
        )| {
            let (kind, first, behind, processed, refused) = rest;
            let count = spans.len() as u32;
            let first = first.min(MAX_RUNS - count);
            let total = (first + count).saturating_add(behind).min(MAX_RUNS);
            let runs = FrameRuns { first, count, total };
            let payload_len = spans.iter().map(|span| span.len).sum();
            let request = FrameHeader::read_request(transfer, expiry, runs);
            let mut header = match kind {
                0 => FrameHeader::write(transfer, grant, expiry, runs, payload_len),
                1 => request,
                2 => FrameHeader::read_data(&request, payload_len),
                _ => {
                    let ack = FrameHeader::ack(processed.max(refused), processed.min(refused));
                    return Thing::Frame(ack, Vec::new());
                }
            };
            if checksum {
                header.flags |= FrameFlags::CHECKSUM;
                header.table_crc = if header.kind.has_table() { table_crc } else { 0 };
                header.payload_crc = if header.kind.has_payload() { payload_crc } else { 0 };
            }
            if digest && header.kind.has_payload() {
                header.flags |= FrameFlags::DIGEST;
                header.digest = sum;
            }
            let spans = if header.kind.has_table() { spans } else { Vec::new() };
            Thing::Frame(header, spans)
        },
    )
}

fn handshake() -> impl Strategy<Value = HandshakeMessage> {
    let features = any::<u64>().prop_map(Features::from_bits_retain).boxed();
    let auth = select(vec![AuthMethod::Insecure, AuthMethod::SharedKey, AuthMethod::Metadata]);
    let hello = (
        (1..=u16::MAX, 1..=u16::MAX, features.clone(), auth, identity()),
        (option::of(engine()), nonce()),
    )
        .prop_map(|((one, other, features, auth, identity), (expected, nonce))| Hello {
            version_min: one.min(other),
            version_max: one.max(other),
            features,
            auth,
            identity,
            expected,
            nonce,
        });
    let welcome = (any::<u16>(), features, identity(), nonce(), nonce()).prop_map(
        |(version, features, identity, nonce, mac)| Welcome {
            version,
            features,
            identity,
            nonce,
            mac,
        },
    );
    let lane_hello = (engine(), association(), association(), lane(), any::<u8>(), nonce())
        .prop_map(|(engine, association, peer_association, lane, transport, nonce)| LaneHello {
            engine,
            association,
            peer_association,
            lane,
            transport,
            nonce,
        });
    prop_oneof![
        hello.prop_map(HandshakeMessage::Hello),
        welcome.prop_map(HandshakeMessage::Welcome),
        (time(), option::of(mark()), nonce()).prop_map(|(time, mark, mac)| {
            HandshakeMessage::Confirm(Confirm { time, mark, mac })
        }),
        lane_hello.prop_map(HandshakeMessage::LaneHello),
        (nonce(), nonce()).prop_map(|(nonce, mac)| {
            HandshakeMessage::LaneChallenge(LaneChallenge { nonce, mac })
        }),
        nonce().prop_map(|mac| HandshakeMessage::LaneProof(LaneProof { mac })),
        reason().prop_map(|reason| HandshakeMessage::Reject(Reject { reason })),
    ]
}

fn mark() -> impl Strategy<Value = Mark> {
    (option::of(association()), nonce()).prop_map(|(association, own)| Mark { association, own })
}

fn reason() -> impl Strategy<Value = HandshakeError> {
    prop_oneof![
        select(samples::rejects().map(|(_, reason)| reason).to_vec()),
        any::<[u16; 4]>().prop_map(|[ours_min, ours_max, theirs_min, theirs_max]| {
            HandshakeError::Version { ours_min, ours_max, theirs_min, theirs_max }
        }),
        (engine(), engine())
            .prop_map(|(expected, found)| HandshakeError::WrongEngine { expected, found }),
    ]
}

fn identity() -> impl Strategy<Value = Identity> {
    let offer = any::<(u8, u16)>().prop_map(|(code, bits)| TransportOffer {
        code,
        operations: Operations::from_bits_retain(bits),
    });
    ((engine(), incarnation(), time(), name()), (addresses(), vec(offer, 0..=16), any::<u64>()))
        .prop_map(
            |((engine, incarnation, time, name), (addresses, transports, notification_window))| {
                Identity {
                    engine,
                    incarnation,
                    time,
                    name: name.into(),
                    addresses,
                    transports,
                    notification_window,
                }
            },
        )
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![unsequenced(), memory(), transfers(), sessions(), directory()]
}

fn unsequenced() -> impl Strategy<Value = Message> {
    prop_oneof![
        (association(), option::of(association()))
            .prop_map(|(own, peer)| Message::Resume { own, peer }),
        Just(Message::Acknowledge),
        Just(Message::Goodbye),
        time().prop_map(|time| Message::Heartbeat { time }),
        (time(), time()).prop_map(|(echo, time)| Message::HeartbeatReply { echo, time }),
    ]
}

fn memory() -> impl Strategy<Value = Message> {
    let open = (region(), region_key()).prop_map(|(region, key)| OpenRegion { region, key });
    let slot = prop_oneof![slot_id().prop_map(Ok), refusal().prop_map(Err)];
    let opened = (region(), slot).prop_map(|(region, slot)| RegionOpened { region, slot });
    prop_oneof![
        vec(open, 0..50).prop_map(Message::OpenRegions),
        vec(opened, 0..50).prop_map(Message::RegionsOpened),
        vec(slot_id(), 0..50).prop_map(Message::SlotsClosed),
        Just(Message::ListRegions),
        (any::<bool>(), vec(description(), 0..50)).prop_map(|(more, regions)| {
            let more = more && !regions.is_empty();
            Message::RegionsListed { more, regions }
        }),
    ]
}

fn transfers() -> impl Strategy<Value = Message> {
    prop_oneof![
        (lane(), any::<u64>())
            .prop_map(|(lane, processed)| Message::LaneRetired { lane, processed }),
        (lane(), any::<u64>(), transfer(), refusal()).prop_map(
            |(lane, frame, transfer, refusal)| Message::Refused { lane, frame, transfer, refusal }
        ),
        (transfer(), refusal())
            .prop_map(|(transfer, refusal)| Message::ReadFailed { transfer, refusal }),
        transfer().prop_map(|transfer| Message::Cancel { transfer }),
        transfer().prop_map(|transfer| Message::Fenced { transfer }),
        (option::of(transfer()), any::<bool>(), bytes()).prop_map(|(after, more, bytes)| {
            let more = more && !bytes.is_empty();
            Message::Notify { after, more, bytes }
        }),
        any::<u64>().prop_map(|consumed| Message::NotificationCredit { consumed }),
    ]
}

fn sessions() -> impl Strategy<Value = Message> {
    let grant = (grant_id(), session(), layout(), vec(slot_id(), 80..90), any::<u32>(), blocks())
        .prop_map(|(grant, session, layout, slots, number, blocks)| {
            Message::Grant(Box::new(Grant {
                grant,
                session,
                layout,
                slots,
                tokens: number,
                total_blocks: number.max(blocks.len() as u32),
                blocks,
            }))
        });
    let layers = (transfer(), grant_id(), 0..=u32::MAX - 1, any::<u32>()).prop_map(
        |(transfer, grant, first, count)| {
            let count = count.clamp(1, u32::MAX - first);
            Message::Layers { transfer, grant, first, count }
        },
    );
    let expired =
        (transfer(), 0..=u32::MAX - 1, any::<u32>()).prop_map(|(transfer, first, count)| {
            let count = count.clamp(1, u32::MAX - first);
            Message::ReadExpired { transfer, first, count }
        });
    let abort = (session(), option::of(grant_id()), any::<bool>(), "\\PC{0,200}").prop_map(
        |(session, grant, by_receiver, reason)| Message::SessionAbort {
            session,
            grant,
            by_receiver,
            reason,
        },
    );
    prop_oneof![
        grant,
        (grant_id(), blocks()).prop_map(|(grant, blocks)| Message::GrantBlocks { grant, blocks }),
        layers,
        expired,
        (grant_id(), any::<u64>(), bytes()).prop_map(|(grant, writes, payload)| {
            Message::SessionEnd { grant, writes, payload }
        }),
        abort,
    ]
}

fn directory() -> impl Strategy<Value = Message> {
    let entry = (engine(), addresses())
        .prop_map(|(engine, addresses)| DirectoryEntry { engine, addresses })
        .boxed();
    let rank = (name(), any::<[u32; 3]>())
        .prop_map(|(instance, [dp, pp, tp])| RankKey { instance, dp, pp, tp })
        .boxed();
    prop_oneof![
        (rank.clone(), entry.clone())
            .prop_map(|(rank, entry)| Message::DirectoryPut { rank, entry }),
        (any::<u64>(), rank, any::<u32>()).prop_map(|(request, rank, wait_ms)| {
            Message::DirectoryGet { request, rank, wait_ms }
        }),
        (any::<u64>(), option::of(entry))
            .prop_map(|(request, entry)| Message::DirectoryAnswer { request, entry }),
    ]
}

/// Pools back to back, a region each; any number of layers, tokens and heads.
fn layout() -> impl Strategy<Value = Layout> {
    let dtype = select(vec![Dtype::Fp8, Dtype::Bf16, Dtype::Fp16, Dtype::Fp32, Dtype::Int8]);
    let sizes = (1..40u32, 1..70u32, 1..1_000_000u32, 1..20u32, 1..600u32);
    let pads = (0..100u32, 0..3u32, 0..3u32, 0..10_000u64, 0..64u64);
    (any::<bool>(), dtype, sizes, pads).prop_map(
        |(latent, dtype, (layers, block_tokens, blocks, count, head_size), pads)| {
            let (first_layer, before, after, offset, padding) = pads;
            let heads = if latent {
                HeadWindow { first: 0, count: 1, total: 1 }
            } else {
                HeadWindow { first: before, count, total: before + count + after }
            };
            let head_stride = u64::from(head_size) * 4 + padding * 4;
            let token_stride = head_stride * u64::from(heads.count);
            let pools = layers * if latent { 1 } else { 2 };
            Layout {
                first_layer,
                layers,
                attention: if latent { Attention::Latent } else { Attention::KeyValue },
                block_tokens,
                blocks,
                heads,
                head_size,
                dtype,
                block_stride: token_stride * u64::from(block_tokens),
                token_stride,
                head_stride,
                pools: (0..pools).map(|region| Pool { region, offset: offset * 4 }).collect(),
            }
        },
    )
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    let secret = option::of(nonce().prop_map(MetadataSecret::new));
    (engine(), incarnation(), name(), addresses(), vec(description(), 0..20), secret).prop_map(
        |(engine, incarnation, name, addresses, regions, secret)| Metadata {
            engine,
            incarnation,
            name: name.into(),
            addresses,
            regions,
            secret,
        },
    )
}

fn description() -> impl Strategy<Value = RegionDescription> {
    let kind = prop_oneof![Just(MemoryKind::Host), any::<u32>().prop_map(MemoryKind::Cuda)];
    let rights = (0..4u8).prop_map(Rights::from_bits_truncate);
    (region(), region_key(), any::<u64>(), 1..=u64::MAX, rights, kind).prop_map(
        |(id, key, base, len, rights, kind)| RegionDescription {
            id,
            key,
            base: base.min(u64::MAX - len),
            len,
            rights,
            kind,
        },
    )
}

fn addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    vec((ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port)), 0..=16)
}

/// At most 255 bytes, in characters of any width.
fn name() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

fn blocks() -> impl Strategy<Value = Vec<u32>> {
    vec(any::<u32>(), 0..300)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn engine() -> impl Strategy<Value = EngineId> {
    uniform16(any::<u8>()).prop_map(EngineId)
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    uniform16(any::<u8>()).prop_map(Incarnation)
}

fn nonce() -> impl Strategy<Value = [u8; 32]> {
    uniform32(any::<u8>())
}

fn region_key() -> impl Strategy<Value = RegionKey> {
    uniform16(any::<u8>()).prop_map(RegionKey::new)
}

fn association() -> impl Strategy<Value = Association> {
    (1..=u64::MAX).prop_map(Association)
}

fn transfer() -> impl Strategy<Value = TransferId> {
    (1..=u64::MAX).prop_map(TransferId)
}

fn grant_id() -> impl Strategy<Value = GrantId> {
    (1..=u64::MAX).prop_map(GrantId)
}

fn lane() -> impl Strategy<Value = LaneId> {
    any::<u32>().prop_map(LaneId)
}

fn slot_id() -> impl Strategy<Value = Slot> {
    any::<u32>().prop_map(Slot)
}

fn region() -> impl Strategy<Value = RegionId> {
    any::<u64>().prop_map(RegionId::from_bits)
}

fn time() -> impl Strategy<Value = Time> {
    any::<u64>().prop_map(Time::from_nanos)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    select(Refusal::ALL.to_vec())
}

fn session() -> impl Strategy<Value = SessionKey> {
    any::<(u64, [u32; 3])>().prop_map(|(room, [attempt, sender_rank, receiver_rank])| SessionKey {
        room: Room(room),
        attempt,
        sender_rank,
        receiver_rank,
    })
}
