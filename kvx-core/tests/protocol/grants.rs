//! Grants, and what a peer may say of them: the owner of memory believes nothing (promises 3, 8).

use std::sync::Arc;

use bytes::Bytes;
use kvx_core::error::{Refusal, Resource, Violation};
use kvx_core::id::{GrantId, Room, SessionKey, Slot, TransferId};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Placement};
use kvx_core::proto::{Event, GrantPlan, PeerConfig};
use kvx_core::region::{Gate, Rights};
use kvx_core::testing::Pair;
use kvx_core::transport::Admission;
use kvx_core::wire::message::{Grant, Message};
use kvx_core::wire::{FrameHeader, FrameRuns, WireSpan};

use super::scene::{ALL, SECOND, config, finish, present, refusal, say};

const KEY: SessionKey = SessionKey { room: Room(7), attempt: 0, sender_rank: 0, receiver_rank: 0 };

fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 2, total: 2 };
    LayoutBuilder::key_value(3, 4, heads, 16, Dtype::Fp16)
        .block_tokens(4)
        .placement(Placement::OneRegion)
        .build()
        .unwrap()
}

/// Engine 1 lets engine 0 write blocks 3 and 1 of a pool that has these rights besides.
fn granted(rights: Rights) -> (Pair, GrantId, Arc<Gate>) {
    let mut pair = Pair::connected(config());
    let (grant, gate) = grant(&mut pair, rights);
    pair.settle();
    pair.sides.iter_mut().for_each(|side| side.events.clear());
    (pair, grant, gate)
}

fn grant(pair: &mut Pair, rights: Rights) -> (GrantId, Arc<Gate>) {
    let len = layout().region_lens()[0] as usize;
    let (region, _) = pair.sides[1].register(len, 0xee, rights);
    let plan = GrantPlan::new(layout(), vec![region], 7, vec![3, 1]).unwrap();
    pair.sides[1].peer.grant(KEY, Arc::new(plan)).unwrap()
}

/// A WRITE of run `first` of `total`, 16 bytes into block 1 of the first pool.
fn write(pair: &Pair, grant: Option<GrantId>, first: u32, total: u32) -> (FrameHeader, WireSpan) {
    let runs = FrameRuns { first, count: 1, total };
    let header = FrameHeader::write(TransferId(50), grant, pair.now + SECOND, runs, 16);
    (header, WireSpan { slot: Slot(0), len: 16, offset: layout().block_stride })
}

fn is_ended(pair: &mut Pair) -> bool {
    pair.collect();
    pair.sides[1].take_events().iter().any(|event| matches!(event, Event::SessionEnded(..)))
}

#[test]
fn without_its_grant_a_granted_slot_opens_nothing_whatever_the_regions_rights() {
    let (mut pair, grant, _) = granted(ALL);
    let (bare, span) = write(&pair, None, 0, 1);
    present(&mut pair, 1, &bare, &[span]).unwrap();
    assert_eq!(refusal(&mut pair, 1), Some(Refusal::NoRight));
    let (under, span) = write(&pair, Some(grant), 0, 1);
    let under = FrameHeader { transfer: TransferId(51), ..under };
    assert_eq!(present(&mut pair, 1, &under, &[span]).unwrap().0, Admission::Land);
}

#[test]
fn a_frame_under_a_grant_holds_the_grants_gate() {
    let (mut pair, grant, gate) = granted(ALL);
    let (header, span) = write(&pair, Some(grant), 0, 2);
    let (_, landing) = present(&mut pair, 1, &header, &[span]).unwrap();
    assert!(landing.gates.iter().any(|held| Arc::ptr_eq(held, &gate)));
    pair.sides[1].peer.revoke(grant, "no longer wanted").unwrap();
    assert!(landing.gates.iter().any(|held| held.enter().is_none()), "no system call begins");
}

#[test]
fn a_transfer_stays_under_the_grant_that_it_began_under() {
    let (mut pair, first, _) = granted(ALL);
    let (second, _) = grant(&mut pair, ALL);
    let (header, span) = write(&pair, Some(first), 0, 2);
    assert_eq!(present(&mut pair, 1, &header, &[span]).unwrap().0, Admission::Land);
    let (header, span) = write(&pair, Some(second), 1, 2);
    let span = WireSpan { slot: Slot(1), ..span };
    present(&mut pair, 1, &header, &[span]).unwrap();
    assert_eq!(refusal(&mut pair, 1), Some(Refusal::Inconsistent));
}

#[test]
fn a_session_does_not_end_while_layers_that_were_announced_are_missing() {
    let (mut pair, grant, gate) = granted(ALL);
    let announced = Message::Layers { transfer: TransferId(50), grant, first: 0, count: 3 };
    let end = Message::SessionEnd { grant, writes: 0, payload: Bytes::new() };
    assert!(say(&mut pair, 1, [announced, end]).is_none());
    assert!(!is_ended(&mut pair), "the transfer that brings them is not complete");
    assert!(gate.is_open());
}

#[test]
fn a_session_ends_with_the_last_write_that_it_counts() {
    let (mut pair, grant, gate) = granted(ALL);
    let end = Message::SessionEnd { grant, writes: 1, payload: Bytes::new() };
    assert!(say(&mut pair, 1, [end]).is_none());
    let (header, span) = write(&pair, Some(grant), 0, 1);
    present(&mut pair, 1, &header, &[span]).unwrap();
    assert!(!is_ended(&mut pair));
    finish(&mut pair, 1, &header);
    assert!(is_ended(&mut pair));
    assert!(gate.is_drained(), "and its grant with it");
    let (again, span) = write(&pair, Some(grant), 0, 1);
    let again = FrameHeader { transfer: TransferId(51), ..again };
    present(&mut pair, 1, &again, &[span]).unwrap();
    assert_eq!(refusal(&mut pair, 1), Some(Refusal::NotGranted));
}

#[test]
fn a_session_that_ends_twice_ends_the_peer() {
    let (mut pair, grant, _) = granted(ALL);
    let end = Message::SessionEnd { grant, writes: 1, payload: Bytes::new() };
    let violation = say(&mut pair, 1, [end.clone(), end]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "SessionEnd", .. })));
}

#[test]
fn layers_that_the_grant_does_not_have_end_the_peer() {
    for (first, count) in [(0, 4), (3, 1), (u32::MAX - 1, 1)] {
        let (mut pair, grant, _) = granted(ALL);
        let layers = Message::Layers { transfer: TransferId(50), grant, first, count };
        let violation = say(&mut pair, 1, [layers]);
        assert!(matches!(violation, Some(Violation::Unexpected { message: "Layers", .. })));
    }
}

#[test]
fn layers_that_never_come_are_announced_so_often_and_no_more() {
    let (mut pair, grant, _) = granted(ALL);
    let layers = Message::Layers { transfer: TransferId(50), grant, first: 0, count: 1 };
    let violation = say(&mut pair, 1, vec![layers; 65_537]);
    assert!(matches!(violation, Some(Violation::Overrun(Resource::Transfers))));
    assert_eq!(pair.sides[1].peer.residue(), [], "the dead keep nothing");
}

/// A Grant of so many blocks, of which these come along.
fn grant_of(total_blocks: u32, blocks: Vec<u32>) -> Message {
    Message::Grant(Box::new(Grant {
        grant: GrantId(9),
        session: KEY,
        layout: layout(),
        slots: vec![Slot(0)],
        tokens: 4,
        total_blocks,
        blocks,
    }))
}

fn grants_got(pair: &mut Pair) -> usize {
    pair.collect();
    let events = pair.sides[0].take_events();
    events.iter().filter(|event| matches!(event, Event::Granted(_))).count()
}

#[test]
fn a_grant_is_told_when_its_last_block_is_there() {
    let mut pair = Pair::connected(config());
    let more = |blocks| Message::GrantBlocks { grant: GrantId(9), blocks };
    assert!(say(&mut pair, 0, [grant_of(3, vec![0]), more(vec![1])]).is_none());
    assert_eq!(grants_got(&mut pair), 0);
    pair.inject(0, 3, 0, &more(vec![2]));
    pair.deliver(0);
    assert_eq!(grants_got(&mut pair), 1);
    pair.inject(0, 4, 0, &more(vec![3]));
    pair.deliver(0);
    assert!(pair.sides[0].violation.is_some(), "it was whole");
}

#[test]
fn more_blocks_than_were_announced_end_the_peer() {
    let mut pair = Pair::connected(config());
    let more = Message::GrantBlocks { grant: GrantId(9), blocks: vec![1, 2] };
    let violation = say(&mut pair, 0, [grant_of(2, vec![0]), more]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "GrantBlocks", .. })));
    assert_eq!(grants_got(&mut pair), 0);
}

#[test]
fn a_grant_that_comes_twice_ends_the_peer() {
    let mut pair = Pair::connected(config());
    let violation = say(&mut pair, 0, [grant_of(2, vec![0]), grant_of(2, vec![0])]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "Grant", .. })));
}

#[test]
fn what_grants_announce_is_paid_for_before_it_comes() {
    let mut pair = Pair::connected(PeerConfig { memory: 600_000, ..config() });
    let violation = say(&mut pair, 0, [grant_of(1_000_000, vec![0])]);
    assert!(matches!(violation, Some(Violation::Overrun(Resource::PeerBytes))));
}

#[test]
fn a_grant_of_one_association_has_no_namesake_in_the_next() {
    let (mut pair, before, _) = granted(ALL);
    pair.forget(1);
    pair.connect(1);
    pair.settle();
    let (after, _) = grant(&mut pair, ALL);
    assert_ne!(before, after);
}
