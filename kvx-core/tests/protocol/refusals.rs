//! What the owner of memory refuses, and that nothing lands then (promise 3).

use std::sync::Arc;

use kvx_core::error::{Refusal, Violation};
use kvx_core::id::{GrantId, RegionId, Slot, TransferId};
use kvx_core::proto::{Post, Target, TransferOp};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::time::Time;
use kvx_core::transport::{Admission, Landing, OutFrame};
use kvx_core::wire::message::{Message, RegionOpened};
use kvx_core::wire::{FrameFlags, FrameHeader, FrameRuns, WireSpan};

use super::scene::{Scene, finish, present, refusal, say, scene};

/// What the owner answers to a WRITE frame of one span, made by hand.
fn answer(header: FrameHeader, span: WireSpan, scene: &mut Scene) -> Result<(), Refusal> {
    let lane = scene.pair.lanes(1)[0];
    let now = scene.pair.now;
    let mut landing = Landing::default();
    let owner = &mut scene.pair.sides[1].peer;
    let admission = owner.handle_frame(now, lane, &header, &[span], &mut landing).unwrap();
    if admission == Admission::Land {
        owner.handle_frame_finished(now, lane, &header, Ok(()));
        return Ok(());
    }
    let refusal = scene.pair.messages(0).into_iter().rev().find_map(|message| match message {
        Message::Refused { refusal, .. } => Some(refusal),
        _ => None,
    });
    Err(refusal.expect("a discarded WRITE of new runs was refused"))
}

/// A WRITE of one run of 16 bytes, under a transfer id of its own.
fn header(scene: &Scene, transfer: u64, grant: Option<u64>) -> FrameHeader {
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let expiry = scene.pair.now + super::scene::SECOND;
    FrameHeader::write(TransferId(transfer), grant.map(GrantId), expiry, runs, 16)
}

/// The slot that side 0 has for the target.
fn open(scene: &mut Scene) -> Slot {
    scene.write();
    scene.pair.settle();
    scene.ends();
    Slot(0)
}

fn span(slot: Slot, offset: u64) -> WireSpan {
    WireSpan { slot, len: 16, offset }
}

#[test]
fn a_slot_that_was_never_given_out_is_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let before = scene.target_bytes();
    let frame = header(&scene, 100, None);
    assert_eq!(answer(frame, span(Slot(7), 0), &mut scene), Err(Refusal::UnknownSlot));
    assert_eq!(
        answer(header(&scene, 101, None), span(slot, 4088), &mut scene),
        Err(Refusal::OutOfBounds)
    );
    let wild = answer(header(&scene, 102, None), span(slot, u64::MAX), &mut scene);
    assert_eq!(wild, Err(Refusal::OutOfBounds));
    let one_byte = answer(header(&scene, 104, None), span(slot, 4081), &mut scene);
    assert_eq!(one_byte, Err(Refusal::OutOfBounds));
    assert_eq!(answer(header(&scene, 103, None), span(slot, 4080), &mut scene), Ok(()));
    assert_eq!(scene.target_bytes(), before, "no lane wrote anything");
}

#[test]
fn a_grant_that_was_never_given_is_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let frame = header(&scene, 100, Some(3));
    assert_eq!(answer(frame, span(slot, 0), &mut scene), Err(Refusal::NotGranted));
}

#[test]
fn a_peer_that_gives_up_requests_which_were_not_made_is_over() {
    for (first, count) in [(0, 9), (8, 1), (0, 3)] {
        let mut scene = scene();
        let transfer = scene.read();
        scene.pair.settle_control();
        let lane = scene.pair.lanes(0)[0];
        // Two of eight runs are asked for.
        assert!(scene.pair.transmit(0, lane));
        let expired = Message::ReadExpired { transfer, first, count };
        scene.pair.inject(0, 2, 1, &expired);
        scene.pair.deliver(0);
        let violation = scene.pair.sides[0].violation.take();
        assert!(matches!(violation, Some(Violation::Unexpected { message: "ReadExpired", .. })));
    }
}

#[test]
fn a_late_frame_is_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let late = FrameHeader { expiry: scene.pair.now, ..header(&scene, 100, None) };
    assert_eq!(answer(late, span(slot, 0), &mut scene), Err(Refusal::Expired));
    let never = FrameHeader { expiry: Time::ZERO, ..header(&scene, 100, None) };
    assert_eq!(answer(never, span(slot, 0), &mut scene), Err(Refusal::Expired));
    // It may still come in time.
    assert_eq!(answer(header(&scene, 100, None), span(slot, 0), &mut scene), Ok(()));
}

#[test]
fn a_frame_of_a_finished_transfer_is_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let frame = header(&scene, 1, None);
    assert_eq!(answer(frame, span(slot, 0), &mut scene), Err(Refusal::Fenced));
}

#[test]
fn what_was_refused_once_stays_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let frame = header(&scene, 100, None);
    assert_eq!(answer(frame, span(Slot(7), 0), &mut scene), Err(Refusal::UnknownSlot));
    assert_eq!(answer(frame, span(slot, 0), &mut scene), Err(Refusal::Fenced));
}

#[test]
fn the_whole_table_is_checked_before_a_byte_lands() {
    for (slot, offset, expected) in [
        (Slot(0), 4088, Refusal::OutOfBounds),
        (Slot(0), u64::MAX - 8, Refusal::OutOfBounds),
        (Slot(7), 0, Refusal::UnknownSlot),
    ] {
        let mut scene = scene();
        let good = span(open(&mut scene), 0);
        let runs = FrameRuns { first: 0, count: 3, total: 3 };
        let expiry = scene.pair.now + super::scene::SECOND;
        let header = FrameHeader::write(TransferId(100), None, expiry, runs, 48);
        let table = [good, good, span(slot, offset)];
        let (admission, _) = present(&mut scene.pair, 1, &header, &table).unwrap();
        assert_eq!(admission, Admission::Discard);
        assert_eq!(refusal(&mut scene.pair, 1), Some(expected));
    }
}

#[test]
fn runs_that_landed_before_are_passed_over_and_dealt_with() {
    let mut scene = scene();
    let (region, slot) = (scene.remote.id, Slot(0));
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    scene.pair.settle();
    let lane = scene.pair.lanes(1)[0];
    let two = FrameHeader { total_runs: 2, ..header(&scene, 100, None) };
    assert_eq!(present(&mut scene.pair, 1, &two, &[span(slot, 0)]).unwrap().0, Admission::Land);
    finish(&mut scene.pair, 1, &two);
    let again = present(&mut scene.pair, 1, &two, &[span(slot, 0)]).unwrap().0;
    assert_eq!((again, refusal(&mut scene.pair, 1)), (Admission::Discard, None));
    let Some(OutFrame::Ack(ack)) = scene.pair.sides[1].peer.next_frame(scene.pair.now, lane) else {
        panic!("an ACK is owed")
    };
    assert_eq!((ack.processed, ack.refused), (2, 0));
}

#[test]
fn runs_that_come_twice_at_once_count_once() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let two = FrameHeader { total_runs: 2, ..header(&scene, 100, None) };
    // A frame is on two lanes: neither has landed when the other comes.
    let (_, landing) = present(&mut scene.pair, 1, &two, &[span(slot, 0)]).unwrap();
    present(&mut scene.pair, 1, &two, &[span(slot, 0)]).unwrap();
    finish(&mut scene.pair, 1, &two);
    finish(&mut scene.pair, 1, &two);
    assert!(landing.gates.iter().all(|gate| gate.is_open()), "one run of two is missing");
}

#[test]
fn flags_that_were_not_agreed_on_break_the_protocol() {
    let mut scene = scene();
    let slot = open(&mut scene);
    for flags in [FrameFlags::CHECKSUM, FrameFlags::DIGEST] {
        let header = FrameHeader { flags, ..header(&scene, 100, None) };
        assert!(present(&mut scene.pair, 1, &header, &[span(slot, 0)]).is_err());
    }
}

#[test]
fn a_write_under_the_id_of_a_read_breaks_the_protocol() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let header = header(&scene, 1 << 63 | 1, None);
    let violation = present(&mut scene.pair, 1, &header, &[span(slot, 0)]).unwrap_err();
    assert!(matches!(violation, Violation::Unexpected { message: "WRITE", .. }));
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_peer() {
    let mut scene = scene();
    let answer = RegionOpened { region: scene.remote.id, slot: Ok(Slot(0)) };
    let violation = say(&mut scene.pair, 0, [Message::RegionsOpened(vec![answer])]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "RegionsOpened", .. })));
}

#[test]
fn frames_that_contradict_each_other_are_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let two = FrameHeader { total_runs: 2, ..header(&scene, 100, None) };
    assert_eq!(answer(two, span(slot, 0), &mut scene), Ok(()));
    let three = FrameHeader { total_runs: 3, first_run: 1, ..two };
    assert_eq!(answer(three, span(slot, 0), &mut scene), Err(Refusal::Inconsistent));
}

#[test]
fn a_region_without_the_right_is_refused() {
    for (rights, op) in
        [(Rights::REMOTE_READ, TransferOp::Write), (Rights::REMOTE_WRITE, TransferOp::Read)]
    {
        let mut scene = scene();
        let (region, _) = scene.pair.sides[1].register(4096, 1, rights);
        scene.pair.sides[0].peer.learn_regions([(region.id, region.key.clone())]);
        let post = scene.post_of(op, scene.plan(4, 64));
        scene.post(Post { target: Target::Regions(Arc::from([region.id])), ..post });
        scene.pair.settle();
        assert_eq!(scene.end(), "refused by the peer: the region does not allow this access");
        scene.pair.live(super::scene::SECOND);
        assert!(!scene.pair.sides[0].peer.has_outstanding());
    }
}

#[test]
fn a_wrong_region_key_opens_nothing() {
    let mut scene = scene();
    let (region, _) = scene.pair.sides[1].register(4096, 1, super::scene::ALL);
    scene.pair.sides[0].peer.learn_regions([(region.id, RegionKey::new([0x55; 16]))]);
    let post = scene.post_of(TransferOp::Write, scene.plan(4, 64));
    scene.post(Post { target: Target::Regions(Arc::from([region.id])), ..post });
    scene.pair.settle();
    assert_eq!(scene.end(), "refused by the peer: the region key is wrong");
}

#[test]
fn a_better_key_that_is_learned_while_the_worse_is_asked_with_counts() {
    let mut scene = scene();
    let (region, _) = scene.pair.sides[1].register(4096, 1, super::scene::ALL);
    scene.pair.sides[0].peer.learn_regions([(region.id, RegionKey::new([0x55; 16]))]);
    scene.pair.sides[0].peer.open_remote_regions(&[region.id]).unwrap();
    scene.pair.sides[0].peer.learn_regions([(region.id, region.key.clone())]);
    let post = scene.post_of(TransferOp::Write, scene.plan(4, 64));
    scene.post(Post { target: Target::Regions(Arc::from([region.id])), ..post });
    scene.pair.settle();
    assert!(scene.pair.sides[0].violation.is_none());
    assert_eq!(scene.end(), "256 bytes in 4 runs");
}

#[test]
fn a_region_that_was_deregistered_is_refused() {
    let mut scene = scene();
    let slot = open(&mut scene);
    let region = scene.remote.id;
    scene.pair.sides[1].registry.deregister(region).unwrap();
    let frame = header(&scene, 100, None);
    assert_eq!(answer(frame, span(slot, 0), &mut scene), Err(Refusal::RegionClosed));
    scene.pair.sides[1].peer.close_region(region);
    assert_eq!(
        answer(header(&scene, 101, None), span(slot, 0), &mut scene),
        Err(Refusal::RegionClosed)
    );
}

#[test]
fn a_region_is_refused_here_once_its_owner_has_told_of_its_end() {
    let mut scene = scene();
    open(&mut scene);
    let region = scene.remote.id;
    scene.pair.sides[1].registry.deregister(region).unwrap();
    scene.pair.sides[1].peer.close_region(region);
    scene.pair.settle();
    let post = scene.post_of(TransferOp::Write, scene.plan(1, 16));
    let now = scene.pair.now;
    let refused = scene.pair.sides[0].peer.post(now, post).unwrap_err();
    assert_eq!(refused.to_string(), "refused by the peer: the region was deregistered");
}

#[test]
fn a_region_that_nobody_told_of_cannot_be_named() {
    let mut scene = scene();
    let unknown = RegionId::new(9, 1);
    let post = scene.post_of(TransferOp::Write, scene.plan(1, 16));
    let target = Target::Regions(Arc::from([scene.remote.id, unknown]));
    let now = scene.pair.now;
    let refused = scene.pair.sides[0].peer.post(now, Post { target, ..post }).unwrap_err();
    assert_eq!(refused.to_string(), "unknown region");
    // The one that is known can still be opened.
    scene.write();
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn a_refused_write_fails_with_the_owners_reason() {
    let mut scene = scene();
    open(&mut scene);
    scene.write();
    let region = scene.remote.id;
    scene.pair.sides[1].registry.deregister(region).unwrap();
    scene.pair.settle();
    assert_eq!(scene.end(), "refused by the peer: the region was deregistered");
    assert!(!scene.pair.sides[0].peer.has_outstanding());
}
