//! The cases: what is done in each. Work of at least some 100,000 instructions, so that a percent
//! of it means something.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use kvx_core::id::Slot;
use kvx_core::plan::{Plan, PlanOptions};
use kvx_core::proto::TransferOp;
use kvx_core::region::{GrantMap, Registry, Slots};
use kvx_core::testing::Random;
use kvx_core::wire::message::Message;
use kvx_core::wire::metadata::Metadata;
use kvx_core::wire::{FrameHeader, decode_table};

use crate::blocks::Blocks;
use crate::conversation::Conversation;
use crate::pairs::Pairs;
use crate::{messages, pairs, regions};

/// The work of a case, prepared.
type Work = Box<dyn FnMut()>;

/// A case: its name, and what prepares it.
type Case = (&'static str, fn() -> Work);

/// Every case.
pub(crate) const ALL: [Case; 16] = [
    ("codec/frame-encode", frame_encode),
    ("codec/frame-decode", frame_decode),
    ("codec/messages-encode", messages_encode),
    ("codec/messages-decode", messages_decode),
    ("codec/metadata-encode", metadata_encode),
    ("codec/metadata-decode", metadata_decode),
    ("plan/pair-sequential", || pair(pairs::sequential(PAIRS, 1024))),
    ("plan/pair-scattered", || pair(pairs::scattered(PAIRS, 1024))),
    ("plan/select", select),
    ("plan/blocks-paged", || blocks(Blocks::scattered(64, 16))),
    ("plan/blocks-token", || blocks(Blocks::scattered(512, 1))),
    ("plan/grant-map", grant_map),
    ("post/write-one-run", || post(TransferOp::Write, one_run(), 1)),
    ("post/write-paged", || post(TransferOp::Write, Blocks::scattered(64, 16).plan(), 128)),
    ("post/read-paged", || post(TransferOp::Read, Blocks::scattered(64, 16).plan(), 128)),
    ("post/resolve-slots", resolve_slots),
];

const PAIRS: u64 = 10_000;
const OPTIONS: PlanOptions = PlanOptions { merge: true, max_run: 1 << 20 };

/// Sixteen heads of full frames: a header and 1,024 table entries each.
fn frame_encode() -> Work {
    let head = messages::head();
    times(16, move || {
        black_box(black_box(&head).encode());
    })
}

fn frame_decode() -> Work {
    let (header, table) = messages::head().encode();
    let mut spans = Vec::new();
    times(16, move || {
        let header = FrameHeader::decode(black_box(&header)).expect("a header");
        decode_table(&header, black_box(&table), &mut spans).expect("a table");
    })
}

/// A hundred small messages and a grant of 1,024 blocks.
fn messages_encode() -> Work {
    let messages = all_messages();
    let mut out = Vec::new();
    times(10, move || {
        out.clear();
        for message in black_box(&messages) {
            message.encode_body(&mut out).expect("a message within bounds");
        }
    })
}

fn messages_decode() -> Work {
    let messages = all_messages();
    let bodies: Vec<(u16, Bytes)> =
        messages.iter().map(|message| (message.kind(), messages::body(message))).collect();
    times(10, move || {
        for (kind, body) in black_box(&bodies) {
            black_box(Message::decode(*kind, body.clone()).expect("a message"));
        }
    })
}

fn all_messages() -> Vec<Message> {
    messages::small_messages().into_iter().chain([messages::grant()]).collect()
}

/// A blob of 1,000 regions.
fn metadata_encode() -> Work {
    let metadata = messages::metadata();
    times(1, move || {
        black_box(black_box(&metadata).encode().expect("a blob within bounds"));
    })
}

fn metadata_decode() -> Work {
    let blob = messages::metadata().encode().expect("a blob within bounds");
    times(1, move || {
        black_box(Metadata::decode(black_box(&blob)).expect("a blob"));
    })
}

/// 10,000 pairs of spans.
fn pair(pairs: Pairs) -> Work {
    times(1, move || {
        let plan = Plan::pair(black_box(&pairs.local), black_box(&pairs.remote), &OPTIONS);
        black_box(plan.expect("a plan"));
    })
}

/// As many, by indices in random order into lists that are in order.
fn select() -> Work {
    let Pairs { local, remote } = pairs::sequential(PAIRS, 1024);
    let mut random = Random::new(3);
    let [left, right] = [0; 2].map(|_| random.order(PAIRS as usize));
    times(1, move || {
        let plan = Plan::select(&local, black_box(&left), &remote, black_box(&right), &OPTIONS);
        black_box(plan.expect("a plan"));
    })
}

/// All layers of a request of Qwen3-32B at tensor-parallel size 2.
fn blocks(blocks: Blocks) -> Work {
    times(1, move || {
        black_box(black_box(&blocks).plan());
    })
}

/// What a grant of 8,192 scattered blocks allows: built, and asked for every block.
fn grant_map() -> Work {
    let mut random = Random::new(4);
    let blocks = random.order(8192);
    let span = |block: &u32| (Slot(block % 128), u64::from(block / 128) * 32_768, 16_384);
    times(1, move || {
        let map = GrantMap::build(black_box(&blocks).iter().map(span)).expect("a map");
        let covered = |block: &&u32| {
            let (slot, offset, len) = span(block);
            map.covers(slot, offset, len)
        };
        assert_eq!(blocks.iter().filter(covered).count(), blocks.len());
    })
}

/// Transfers through both peers: posted, their frames handed over and admitted, acknowledged.
fn post(op: TransferOp, plan: Plan, regions: usize) -> Work {
    let plan = Arc::new(plan);
    let mut conversation = Conversation::new(regions);
    let posts = if plan.len() == 1 { 100 } else { 1 };
    times(posts, move || {
        conversation.post(op, black_box(&plan));
        assert_eq!(conversation.carry(), 1);
    })
}

fn one_run() -> Plan {
    let Pairs { local, remote } = pairs::sequential(1, 4096);
    Plan::pair(&local, &remote, &OPTIONS).expect("a plan")
}

/// Ten thousand slots of a thousand regions resolved, as for each run that arrives.
fn resolve_slots() -> Work {
    let registry = Registry::new();
    let mut slots = Slots::new();
    for index in 0..1000 {
        let region = regions::register(&registry, index);
        slots.open(&registry, region.id, &region.key).expect("room for a slot");
    }
    let mut random = Random::new(5);
    let asked: Vec<Slot> = (0..10_000).map(|_| Slot(random.index(1000) as u32)).collect();
    times(1, move || {
        assert!(black_box(&asked).iter().all(|slot| slots.resolve(*slot, true).is_ok()));
    })
}

/// The work, that many times.
fn times(count: usize, mut work: impl FnMut() + 'static) -> Work {
    Box::new(move || (0..count).for_each(|_| work()))
}
