//! What the benchmarks encode and decode: a full frame head, one control message of each size that
//! a transfer or a session sends, and a metadata blob. Nothing is timed here.

use bytes::Bytes;
use kvx_core::error::Refusal;
use kvx_core::id::{
    EngineId, GrantId, Incarnation, LaneId, RegionId, Room, SessionKey, Slot, TransferId,
};
use kvx_core::layout::{Placement, Preset};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::time::Time;
use kvx_core::transport::MemoryKind;
use kvx_core::wire::message::{Grant, Message};
use kvx_core::wire::metadata::{Metadata, RegionDescription};
use kvx_core::wire::{FRAME_HEADER_LEN, FrameHeader, FrameRuns, RawSpan, WireSpan};

/// A WRITE frame's head: the header, and the largest table there is.
pub(crate) struct Head {
    pub(crate) header: FrameHeader,
    pub(crate) spans: Vec<WireSpan>,
}

/// 1,024 runs of 1 KiB in 128 slots: a frame of the token workload.
pub(crate) fn head() -> Head {
    let span = |i: u32| WireSpan { slot: Slot(i / 8), len: 1024, offset: u64::from(i) * 4096 };
    let runs = FrameRuns { first: 2048, count: 1024, total: 65_536 };
    let (transfer, expiry) = (TransferId(7), Time::from_nanos(1 << 50));
    Head {
        header: FrameHeader::write(transfer, Some(GrantId(9)), expiry, runs, 1 << 20),
        spans: (0..1024).map(span).collect(),
    }
}

impl Head {
    /// The head as a lane sends it.
    pub(crate) fn encode(&self) -> ([u8; FRAME_HEADER_LEN], Vec<RawSpan>) {
        (self.header.encode(), self.spans.iter().copied().map(RawSpan::from).collect())
    }
}

/// Small messages as they go to and fro around transfers, a hundred of them.
pub(crate) fn small_messages() -> Vec<Message> {
    let transfer = TransferId(7);
    let each = [
        Message::Heartbeat { time: Time::from_nanos(1 << 40) },
        Message::LaneRetired { lane: LaneId(3), processed: 1 << 20 },
        Message::Refused { lane: LaneId(3), frame: 9, transfer, refusal: Refusal::Expired },
        Message::Cancel { transfer },
        Message::Notify {
            after: Some(transfer),
            more: false,
            bytes: Bytes::from_static(b"request 42 is there"),
        },
    ];
    each.iter().cycle().take(100).cloned().collect()
}

/// A grant as decode sends it for 16,384 tokens of Qwen3-32B at tensor-parallel size 2: 128 pools,
/// 1,024 block ids.
pub(crate) fn grant() -> Message {
    let layout = Preset::Qwen3_32B.layout(2, 0, 16, 4096, Placement::RegionPerPool);
    let layout = layout.expect("a layout of a preset");
    Message::Grant(Box::new(Grant {
        grant: GrantId(1 << 32 | 1),
        session: SessionKey { room: Room(42), attempt: 0, sender_rank: 0, receiver_rank: 1 },
        slots: (0..layout.pools.len() as u32).map(Slot).collect(),
        layout,
        tokens: 16_384,
        total_blocks: 1024,
        blocks: (0..1024).map(|i| i * 3 % 4096).collect(),
    }))
}

/// An engine with 1,000 regions.
pub(crate) fn metadata() -> Metadata {
    let region = |index: u32| RegionDescription {
        id: RegionId::new(index, 1),
        key: RegionKey::new([index as u8; 16]),
        base: 0x7f00_0000_0000 + u64::from(index) * (1 << 24),
        len: 1 << 24,
        rights: Rights::REMOTE_READ | Rights::REMOTE_WRITE,
        kind: MemoryKind::Host,
    };
    Metadata {
        engine: EngineId([1; 16]),
        incarnation: Incarnation([2; 16]),
        name: "decode-0".into(),
        addresses: vec![([192, 0, 2, 7], 8998).into()],
        regions: (0..1000).map(region).collect(),
        secret: None,
    }
}

/// The body of a message, as it goes on the wire behind its header.
pub(crate) fn body(message: &Message) -> Bytes {
    let mut body = Vec::new();
    message.encode_body(&mut body).expect("a message within bounds");
    Bytes::from(body)
}
