//! Sessions: a receiver grants blocks, a sender writes them layer by layer.

use std::sync::Arc;

use kvx_core::error::{Cause, Side};
use kvx_core::id::{GrantId, Room, SessionKey, TransferId};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Placement};
use kvx_core::plan::{BlockMap, PlanOptions};
use kvx_core::proto::{Deadline, Event, GrantPlan, Post, Target, TransferOp};
use kvx_core::region::{Gate, Region, Rights};
use kvx_core::testing::{Pair, Segment};
use kvx_core::wire::message::Message;

use super::scene::{SECOND, config};

const KEY: SessionKey = SessionKey { room: Room(7), attempt: 0, sender_rank: 0, receiver_rank: 0 };

/// Engine 0 sends, engine 1 receives blocks 3 and 1 of its pool.
struct Session {
    pair: Pair,
    layout: Layout,
    source: (Arc<Region>, Segment),
    target: (Arc<Region>, Segment),
    grant: GrantId,
    gate: Arc<Gate>,
}

fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 2, total: 2 };
    LayoutBuilder::key_value(3, 4, heads, 16, Dtype::Fp16)
        .block_tokens(4)
        .placement(Placement::OneRegion)
        .build()
        .unwrap()
}

fn session() -> Session {
    let mut pair = Pair::connected(config());
    let layout = layout();
    let len = layout.region_lens()[0] as usize;
    let source = pair.sides[0].register(len, 0, Rights::empty());
    let target = pair.sides[1].register(len, 0xee, Rights::empty());
    for (index, byte) in pair.sides[0].memory.bytes_mut(source.1.base, len).iter_mut().enumerate() {
        *byte = (index % 253) as u8;
    }
    pair.sides.iter_mut().for_each(|side| side.events.clear());
    let plan = GrantPlan::new(layout.clone(), vec![Arc::clone(&target.0)], 7, vec![3, 1]).unwrap();
    let (grant, gate) = pair.sides[1].peer.grant(KEY, Arc::new(plan)).unwrap();
    Session { pair, layout, source, target, grant, gate }
}

impl Session {
    fn granted(&mut self) -> bool {
        self.pair.settle_control();
        let events = self.pair.sides[0].take_events();
        events.iter().any(|event| {
            matches!(event, Event::Granted(got)
            if got.grant == self.grant && got.blocks == [3, 1] && got.tokens == 7
                && got.layout == self.layout && got.session == KEY)
        })
    }

    /// Writes layers from the sender's blocks 0 and 2.
    fn write(&mut self, layers: std::ops::Range<u32>) -> Result<TransferId, Cause> {
        let map = BlockMap::new(&self.layout, &self.layout).unwrap();
        let options = PlanOptions::default();
        let plan = map.plan(layers.clone(), 7, &[0, 2], &[3, 1], &options).unwrap();
        let post = Post {
            op: TransferOp::Write,
            plan: Arc::new(plan),
            local: Arc::from([Arc::clone(&self.source.0)]),
            target: Target::Grant(self.grant),
            notification: None,
            layers: Some(layers),
            deadline: Deadline::default(),
        };
        let now = self.pair.now;
        Ok(self.pair.sides[0].peer.post(now, post)?.unwrap())
    }

    fn end(&mut self, writes: u64) {
        self.pair.sides[0].peer.end_session(self.grant, writes, "first token".into()).unwrap();
    }

    /// What the receiver is told, in words.
    fn heard(&mut self) -> Vec<String> {
        self.pair.collect();
        let words = |event| match event {
            Event::LayersArrived(_, layers) => Some(format!("layers {layers:?}")),
            Event::SessionEnded(_, _, payload) => {
                Some(format!("ended: {}", String::from_utf8_lossy(&payload)))
            }
            Event::SessionAborted { here: Side::Receiver, cause, .. } => Some(cause.to_string()),
            _ => None,
        };
        self.pair.sides[1].take_events().into_iter().filter_map(words).collect()
    }

    fn sender_hears(&mut self) -> Vec<String> {
        self.pair.collect();
        let words = |event| match event {
            Event::SessionSettled(..) => Some("settled".to_owned()),
            Event::SessionAborted { here: Side::Sender, cause, .. } => Some(cause.to_string()),
            Event::TransferEnded { outcome, .. } => {
                Some(outcome.map_or_else(|cause| cause.to_string(), |_| "written".to_owned()))
            }
            _ => None,
        };
        self.pair.sides[0].take_events().into_iter().filter_map(words).collect()
    }

    fn target_bytes(&self) -> Vec<u8> {
        let (_, segment) = self.target;
        self.pair.sides[1].memory.bytes(segment.base, segment.len as usize).to_vec()
    }

    fn is_at_rest(&self) -> bool {
        self.pair.sides.iter().all(|side| side.peer.residue().is_empty())
    }
}

#[test]
fn layers_and_the_end_are_told_when_they_are_there() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..2).unwrap();
    session.pair.settle();
    assert_eq!(session.heard(), ["layers 0..2"]);
    session.write(2..3).unwrap();
    session.end(2);
    session.pair.settle_control();
    assert!(session.heard().is_empty(), "the last layer is not there");
    session.pair.settle();
    assert_eq!(session.heard(), ["layers 2..3", "ended: first token"]);
    assert_eq!(session.sender_hears(), ["written", "settled", "written"]);
    assert!(session.gate.is_drained(), "a session that is complete is fenced");
    assert!(session.is_at_rest());
}

#[test]
fn exactly_the_granted_blocks_are_written() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..3).unwrap();
    session.end(1);
    session.pair.settle();
    let bytes = session.target_bytes();
    let block = session.layout.block_stride as usize;
    for (index, chunk) in bytes.chunks(block).enumerate() {
        let untouched = chunk.iter().all(|byte| *byte == 0xee);
        let granted = [1, 3].contains(&(index % 4));
        assert_eq!(untouched, !granted, "block {index}");
    }
}

#[test]
fn the_end_may_come_before_the_data_and_the_data_before_its_layers() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..3).unwrap();
    session.end(1);
    // Everything over the lanes first, then control.
    let lane = session.pair.lanes(0)[0];
    while session.pair.transmit(0, lane) {}
    while session.pair.receive(1, lane) {}
    assert!(session.heard().is_empty());
    session.pair.settle_control();
    assert_eq!(session.heard(), ["layers 0..3", "ended: first token"]);
}

#[test]
fn a_session_does_not_end_before_the_writes_it_counts() {
    let mut session = session();
    assert!(session.granted());
    let map = BlockMap::new(&session.layout, &session.layout).unwrap();
    let plan = map.plan(0..3, 7, &[0, 2], &[3, 1], &PlanOptions::default()).unwrap();
    let post = Post {
        op: TransferOp::Write,
        plan: Arc::new(plan),
        local: Arc::from([Arc::clone(&session.source.0)]),
        target: Target::Grant(session.grant),
        notification: None,
        layers: None,
        deadline: Deadline::default(),
    };
    let now = session.pair.now;
    session.pair.sides[0].peer.post(now, post).unwrap();
    session.end(1);
    session.pair.settle_control();
    assert!(session.heard().is_empty(), "its one write is not there, whatever layers it brings");
    session.pair.settle();
    assert_eq!(session.heard(), ["ended: first token"]);
}

#[test]
fn writing_beyond_the_grant_is_refused() {
    let mut session = session();
    assert!(session.granted());
    let before = session.target_bytes();
    let map = BlockMap::new(&session.layout, &session.layout).unwrap();
    let plan = map.plan(0..1, 7, &[0, 2], &[3, 0], &PlanOptions::default()).unwrap();
    let post = Post {
        op: TransferOp::Write,
        plan: Arc::new(plan),
        local: Arc::from([Arc::clone(&session.source.0)]),
        target: Target::Grant(session.grant),
        notification: None,
        layers: None,
        deadline: Deadline::default(),
    };
    let now = session.pair.now;
    session.pair.sides[0].peer.post(now, post).unwrap();
    session.pair.settle();
    assert_eq!(session.sender_hears(), ["refused by the peer: the span is not granted"]);
    assert_eq!(session.target_bytes(), before, "no byte of the frame landed");
}

#[test]
fn a_slot_that_came_with_a_grant_serves_nothing_else() {
    let mut session = session();
    assert!(session.granted());
    // The sender knows the slot now, and asks for the region by a key it does not have.
    let id = session.target.0.id;
    let key = kvx_core::region::RegionKey::new([0x99; 16]);
    session.pair.sides[0].peer.learn_regions([(id, key)]);
    session.pair.sides[0].peer.open_remote_regions(&[id]).unwrap();
    session.pair.settle();
    let now = session.pair.now;
    let lane = session.pair.lanes(1)[0];
    let runs = kvx_core::wire::FrameRuns { first: 0, count: 1, total: 1 };
    let header = kvx_core::wire::FrameHeader::write(TransferId(50), None, now + SECOND, runs, 16);
    let span = kvx_core::wire::WireSpan { slot: kvx_core::id::Slot(0), len: 16, offset: 0 };
    let mut landing = kvx_core::transport::Landing::default();
    let owner = &mut session.pair.sides[1].peer;
    owner.handle_frame(now, lane, &header, &[span], &mut landing).unwrap();
    let refused = session.pair.messages(0).into_iter().any(|message| {
        matches!(message, Message::Refused { refusal: kvx_core::error::Refusal::NoRight, .. })
    });
    assert!(refused);
}

#[test]
fn after_the_receiver_has_revoked_no_byte_lands() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..3).unwrap();
    session.pair.settle_control();
    let lane = session.pair.lanes(0)[0];
    while session.pair.transmit(0, lane) {}
    for _ in 0..5 {
        session.pair.receive(1, lane);
    }
    let gate =
        session.pair.sides[1].peer.revoke(session.grant, "the request was withdrawn").unwrap();
    assert!(gate.is_drained());
    let fenced = session.target_bytes();
    session.pair.settle();
    assert_eq!(session.target_bytes(), fenced);
    let word = "aborted by the receiver: the request was withdrawn";
    assert_eq!(session.sender_hears(), [word, word]);
    assert!(session.pair.sides[1].peer.revoke(session.grant, "again").is_none());
    assert!(session.is_at_rest());
    // One who writes before it has heard is told the same.
    assert_eq!(session.write(0..1).unwrap_err().to_string(), word);
}

#[test]
fn after_the_sender_has_aborted_the_receiver_is_told_and_fenced() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..3).unwrap();
    session.pair.settle_control();
    let lane = session.pair.lanes(0)[0];
    session.pair.transmit(0, lane);
    session.pair.sides[0].peer.abort_session(KEY, session.grant, "out of memory");
    assert_eq!(session.sender_hears(), ["aborted by the sender: out of memory"]);
    session.pair.settle_control();
    assert_eq!(session.heard(), ["aborted by the sender: out of memory"]);
    assert!(session.gate.is_drained());
    let fenced = session.target_bytes();
    session.pair.settle();
    assert_eq!(session.target_bytes(), fenced);
    assert!(session.is_at_rest());
}

#[test]
fn a_session_that_is_complete_is_not_aborted_any_more() {
    let mut session = session();
    assert!(session.granted());
    session.write(0..3).unwrap();
    session.end(1);
    session.pair.settle();
    session.heard();
    session.pair.sides[0].peer.abort_session(KEY, session.grant, "too late");
    session.pair.settle();
    assert!(session.heard().is_empty(), "a session ends once");
}

#[test]
fn a_receiver_whose_sender_dies_is_told_and_fenced() {
    let mut session = session();
    assert!(session.granted());
    session.pair.sides[1].peer.kill(Cause::PeerRestarted);
    assert_eq!(session.heard(), ["the peer was restarted"]);
    assert!(session.gate.is_drained());
}

#[test]
fn a_grant_of_many_blocks_comes_in_parts_and_whole() {
    let mut pair = Pair::connected(config());
    let heads = HeadWindow { first: 0, count: 1, total: 1 };
    let layout = LayoutBuilder::key_value(1, 300_000, heads, 1, Dtype::Fp8)
        .block_tokens(1)
        .placement(Placement::OneRegion)
        .build()
        .unwrap();
    let (region, _) = pair.sides[1].register(layout.region_lens()[0] as usize, 0, Rights::empty());
    let blocks: Vec<u32> = (0..300_000).rev().collect();
    let plan = GrantPlan::new(layout, vec![region], 300_000, blocks.clone()).unwrap();
    pair.sides[1].peer.grant(KEY, Arc::new(plan)).unwrap();
    pair.settle();
    let events = pair.sides[0].take_events();
    let granted: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Granted(got) => Some(&got.blocks),
            _ => None,
        })
        .collect();
    assert_eq!(granted, [&blocks]);
}
