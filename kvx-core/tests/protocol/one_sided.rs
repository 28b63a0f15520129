//! READ and WRITE as they should go.

use kvx_core::error::{Cause, Fence};
use kvx_core::id::{Slot, TransferId};
use kvx_core::plan::Plan;
use kvx_core::proto::{Event, Post, TransferOp};
use kvx_core::transport::{Admission, Landing};
use kvx_core::wire::{FrameHeader, FrameRuns, WireSpan};

use super::scene::{MS, SECOND, present, scene, told};

#[test]
fn a_write_is_done_when_every_byte_is_there() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
    // The gaps between the pieces are as they were.
    assert!(scene.target_bytes()[128..136].iter().all(|byte| *byte == 0xee));
    assert!(scene.target_bytes()[8 * 136..].iter().all(|byte| *byte == 0xee));
    assert!(!scene.pair.sides[0].peer.has_outstanding());
}

#[test]
fn a_write_is_not_done_before_its_last_frame_is_acknowledged() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    assert!(scene.arrived(0..8, 128));
    assert!(scene.ends().is_empty(), "no acknowledgement has come");
    assert!(scene.pair.transmit(1, lane));
    while scene.pair.receive(0, lane) {}
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn a_read_is_done_when_every_byte_is_here() {
    let mut scene = scene();
    let target = scene.target.base;
    for (index, byte) in scene.pair.sides[1].memory.bytes_mut(target, 4096).iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    scene.read();
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
    assert!(!scene.pair.sides[0].peer.has_outstanding());
}

#[test]
fn many_transfers_share_the_lanes_and_all_end() {
    let mut scene = scene();
    let ids: Vec<_> =
        (0..20).map(|i| if i % 3 == 0 { scene.read() } else { scene.write() }).collect();
    scene.pair.settle();
    let mut ended: Vec<_> = scene.ends().into_iter().map(|(id, end)| (id, end.is_ok())).collect();
    ended.sort();
    let mut expected: Vec<_> = ids.into_iter().map(|id| (id, true)).collect();
    expected.sort();
    assert_eq!(ended, expected);
}

#[test]
fn an_empty_plan_is_done_at_once_and_tells() {
    let mut scene = scene();
    let plan = std::sync::Arc::new(Plan::default());
    let post = scene.post_of(TransferOp::Write, plan);
    let post = Post { notification: Some("now".into()), ..post };
    let now = scene.pair.now;
    assert_eq!(scene.pair.sides[0].peer.post(now, post).unwrap(), None);
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["now"]);
}

#[test]
fn a_write_cancelled_before_anything_was_sent_is_fenced_at_once() {
    let mut scene = scene();
    let before = scene.target_bytes();
    let transfer = scene.write();
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.settle();
    assert_eq!(scene.end(), "cancelled, fenced");
    assert_eq!(scene.target_bytes(), before);
}

#[test]
fn nothing_of_a_cancelled_write_lands_after_fenced() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    // Header, table and one call's worth of the first frame.
    for _ in 0..3 {
        assert!(scene.pair.receive(1, lane));
    }
    scene.pair.sides[0].peer.cancel(transfer);
    assert!(scene.ends().is_empty(), "the owner has not confirmed");
    scene.pair.settle_control();
    assert_eq!(scene.end(), "cancelled, fenced");
    let fenced = scene.target_bytes();
    assert!(!scene.arrived(0..1, 128), "the frame was cut in the middle");
    scene.pair.settle();
    assert_eq!(scene.target_bytes(), fenced);
    assert!(scene.ends().is_empty(), "a terminal state is reached once");
}

#[test]
fn fenced_waits_for_the_system_call_in_progress() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    let now = scene.pair.now;
    let frame = scene.pair.sides[0].peer.next_frame(now, lane).unwrap();
    let kvx_core::transport::OutFrame::Write(frame) = frame else { panic!("{frame:?}") };
    let table: Vec<_> = frame
        .plan
        .runs(0..frame.header.runs as usize)
        .map(|run| kvx_core::wire::WireSpan {
            slot: frame.slots[0],
            len: run.len,
            offset: run.remote_offset,
        })
        .collect();
    let mut landing = Landing::default();
    let owner = &mut scene.pair.sides[1].peer;
    owner.handle_frame(now, lane, &frame.header, &table, &mut landing).unwrap();
    let leases: Vec<_> = landing.gates.iter().map(|gate| gate.enter().unwrap()).collect();
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.settle_control();
    assert!(scene.ends().is_empty(), "a lease is held");
    scene.pair.elapse(MS);
    scene.pair.settle_control();
    assert!(scene.ends().is_empty(), "it is held all the same when timers run");
    assert!(landing.gates.iter().any(|gate| gate.enter().is_none()), "no new lease begins");
    drop(leases);
    assert!(scene.pair.wake(), "the owner is woken when the lease leaves");
    scene.pair.settle_control();
    assert_eq!(scene.end(), "cancelled, fenced");
}

#[test]
fn a_peer_that_dies_names_what_a_copy_in_progress_may_still_write() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let frame = FrameRuns { first: 0, count: 1, total: 1 };
    let header = FrameHeader::write(TransferId(77), None, scene.pair.now + SECOND, frame, 8);
    let table = [WireSpan { slot: Slot(0), len: 8, offset: 0 }];
    let (admission, landing) = present(&mut scene.pair, 1, &header, &table).unwrap();
    assert_eq!(admission, Admission::Land);
    let leases: Vec<_> = landing.gates.iter().map(|gate| gate.enter().unwrap()).collect();
    let peer = &mut scene.pair.sides[1].peer;
    peer.kill(Cause::PeerRemoved);
    assert_eq!(peer.draining().len(), 1);
    assert!(landing.gates.iter().all(|gate| gate.enter().is_none()), "no new copy begins");
    drop(leases);
    assert!(peer.draining().iter().all(|gate| gate.is_drained()));
}

#[test]
fn a_cancelled_read_is_fenced_here_without_the_peer() {
    let mut scene = scene();
    let transfer = scene.read();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    scene.pair.transmit(1, lane);
    scene.pair.transmit(1, lane);
    for _ in 0..4 {
        scene.pair.receive(0, lane);
    }
    scene.pair.sides[0].peer.cancel(transfer);
    let before = scene.pair.sides[0].memory.clone();
    scene.pair.settle();
    let events = scene.pair.sides[0].take_events();
    let [Event::TransferEnded { outcome: Err(cause), fence: Some(fence), .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(matches!(cause, Cause::Cancelled(Fence::Fenced)));
    assert!(fence.is_drained());
    let source = scene.source;
    assert_eq!(
        before.bytes(source.base, 4096),
        scene.pair.sides[0].memory.bytes(source.base, 4096)
    );
}

#[test]
fn a_write_that_was_complete_before_the_cancel_may_end_well() {
    let mut scene = scene();
    let transfer = scene.write_and_tell("told");
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    scene.pair.sides[0].peer.cancel(transfer);
    while scene.pair.transmit(1, lane) {}
    while scene.pair.receive(0, lane) {}
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    scene.pair.settle();
    assert!(scene.ends().is_empty());
    assert_eq!(told(&mut scene.pair, 1), ["told"]);
}

#[test]
fn deregistering_a_source_fails_the_transfers_that_use_it() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    let region = scene.local.id;
    scene.pair.sides[0].peer.close_region(region);
    scene.pair.sides[0].registry.deregister(region).unwrap();
    scene.pair.sides[0].peer.close_region(region);
    assert_eq!(scene.end(), "the region was deregistered");
    scene.pair.settle();
    assert!(!scene.pair.sides[0].peer.has_outstanding());
}

#[test]
fn nothing_more_of_a_cancelled_write_is_sent() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    assert!(scene.pair.transmit(0, lane), "one frame of four");
    scene.pair.sides[0].peer.cancel(transfer);
    assert!(!scene.pair.transmit(0, lane));
    assert!(!scene.pair.sides[0].peer.has_frames());
}

#[test]
fn a_write_is_not_done_while_one_run_is_missing() {
    let mut scene = scene();
    let post = scene.post_of(TransferOp::Write, scene.plan(3, 128));
    scene.post(post);
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    // Two runs of three, acknowledged.
    scene.pair.transmit(0, lane);
    while scene.pair.receive(1, lane) {}
    scene.pair.transmit(1, lane);
    while scene.pair.receive(0, lane) {}
    assert!(scene.ends().is_empty());
    scene.pair.settle();
    assert_eq!(scene.end(), "384 bytes in 3 runs");
}
