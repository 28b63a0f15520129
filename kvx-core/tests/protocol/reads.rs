//! READs: what is answered, what the reader takes for an answer, and how much it may ask for
//! (PROTOCOL 6.3).

use kvx_core::error::{Refusal, Violation};
use kvx_core::id::{LaneId, Slot, TransferId};
use kvx_core::proto::{Post, TransferOp};
use kvx_core::transport::{Admission, OutFrame};
use kvx_core::wire::message::Message;
use kvx_core::wire::{FrameHeader, FrameKind, FrameRuns, READ_CREDIT, WireSpan};

use super::scene::{MS, SECOND, Scene, finish, present, refusal, say, scene};

/// A READ of eight pieces whose requests the owner has, and has not answered.
fn requested() -> (Scene, TransferId, LaneId) {
    let mut scene = scene();
    let transfer = scene.read();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    (scene, transfer, lane)
}

/// READ data made by hand: `count` runs of 128 bytes from `first` on, of eight.
fn data(transfer: TransferId, first: u32, count: u32) -> FrameHeader {
    let runs = FrameRuns { first, count, total: 8 };
    let request = FrameHeader::read_request(transfer, kvx_core::time::Time::NEVER, runs);
    FrameHeader::read_data(&request, 128 * count)
}

fn request(scene: &Scene, transfer: u64, runs: u32) -> (FrameHeader, Vec<WireSpan>) {
    let expiry = scene.pair.now + SECOND;
    let range = FrameRuns { first: 0, count: runs, total: runs };
    let header = FrameHeader::read_request(TransferId(transfer), expiry, range);
    (header, vec![WireSpan { slot: Slot(0), len: 1, offset: 0 }; runs as usize])
}

/// The side 1 that has given its slot 0 to the target.
fn opened() -> Scene {
    let mut scene = scene();
    let region = scene.remote.id;
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    scene.pair.settle();
    scene
}

#[test]
fn a_cancelled_read_is_not_answered_any_more() {
    let (mut scene, transfer, _) = requested();
    assert!(scene.pair.sides[1].peer.has_frames());
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.settle_control();
    assert!(!scene.pair.sides[1].peer.has_frames(), "requests not answered are dropped");
    assert_eq!(scene.pair.sides[1].peer.residue(), []);
}

#[test]
fn a_read_whose_region_is_gone_when_its_turn_comes_fails() {
    let (mut scene, _, _) = requested();
    let region = scene.remote.id;
    scene.pair.sides[1].registry.deregister(region).unwrap();
    scene.pair.settle();
    assert_eq!(scene.end(), "refused by the peer: the region was deregistered");
    assert_eq!(scene.pair.sides[1].peer.residue(), []);
}

#[test]
fn a_request_whose_turn_comes_at_its_expiry_is_not_answered_and_asked_for_again() {
    let (mut scene, _, lane) = requested();
    // The owner sees that the requests are late before the reader sees its deadline.
    let late = scene.pair.now + 10 * SECOND;
    assert!(scene.pair.sides[1].peer.next_frame(late, lane).is_none());
    let said = scene.pair.messages(0);
    assert!(said.iter().any(|said| matches!(said, Message::ReadExpired { .. })), "{said:?}");
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn a_late_answer_to_what_was_not_asked_for_ends_the_peer() {
    let (mut scene, transfer, _) = requested();
    let expired = Message::ReadExpired { transfer, first: 0, count: 9 };
    scene.pair.inject(0, 2, 0, &expired);
    scene.pair.deliver(0);
    assert!(matches!(scene.pair.sides[0].violation, Some(Violation::Unexpected { .. })));
}

#[test]
fn reads_and_writes_take_turns_frame_by_frame() {
    let mut scene = opened();
    let lane = scene.pair.lanes(0)[0];
    let large = scene.write();
    let post = scene.post_of(TransferOp::Write, scene.plan(1, 64));
    let small = scene.post(Post { ..post });
    let mut order = Vec::new();
    while let Some(frame) = scene.pair.sides[0].peer.next_frame(scene.pair.now, lane) {
        if let OutFrame::Write(frame) = frame {
            order.push(frame.header.transfer);
        }
    }
    assert_eq!(order, [large, small, large, large, large]);
}

#[test]
fn answers_take_turns_frame_by_frame() {
    let mut scene = opened();
    let lane = scene.pair.lanes(0)[0];
    let large = scene.read();
    let post = scene.post_of(TransferOp::Read, scene.plan(1, 64));
    let small = scene.post(Post { ..post });
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    let mut order = Vec::new();
    while let Some(frame) = scene.pair.sides[1].peer.next_frame(scene.pair.now, lane) {
        if let OutFrame::ReadData(frame) = frame {
            order.push(frame.header.transfer);
        }
    }
    assert_eq!(order, [large, small, large, large, large]);
}

#[test]
fn data_that_no_read_has_asked_for_breaks_the_protocol() {
    let (mut scene, read, _) = requested();
    let write = scene.write();
    let wrong = [
        (FrameHeader { transfer: write, ..data(read, 0, 2) }, "a WRITE is under way"),
        (FrameHeader { total_runs: 9, ..data(read, 0, 2) }, "the READ has eight runs"),
        (FrameHeader { payload_len: 255, ..data(read, 0, 2) }, "two runs are longer"),
        (FrameHeader { payload_len: 257, ..data(read, 0, 2) }, "two runs are shorter"),
        (FrameHeader { total_runs: 9, ..data(read, 7, 2) }, "beyond the last run"),
    ];
    for (header, why) in wrong {
        let violation = present(&mut scene.pair, 0, &header, &[]).unwrap_err();
        assert!(matches!(violation, Violation::Unexpected { message: "READ data", .. }), "{why}");
    }
    let right = present(&mut scene.pair, 0, &data(read, 0, 2), &[]).unwrap();
    assert_eq!(right.0, Admission::Land);
}

#[test]
fn data_lands_under_the_reads_gate_and_until_its_deadline() {
    let (mut scene, read, _) = requested();
    let (_, landing) = present(&mut scene.pair, 0, &data(read, 0, 2), &[]).unwrap();
    assert_eq!(landing.expiry, scene.pair.now + 10 * SECOND);
    assert!(landing.gates.iter().all(|gate| gate.is_open()));
    scene.pair.sides[0].peer.cancel(read);
    assert!(landing.gates.iter().any(|gate| gate.is_drained()), "fenced, whatever comes");
}

/// A reader that has so many answers, of a run each, and the lane they came on.
fn answered(answers: u32) -> (Scene, LaneId) {
    let mut scene = scene();
    let reads = [scene.read(), scene.read()];
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    for run in 0..answers {
        let header = data(reads[run as usize / 8], run % 8, 1);
        assert_eq!(present(&mut scene.pair, 0, &header, &[]).unwrap().0, Admission::Land);
        finish(&mut scene.pair, 0, &header);
    }
    (scene, lane)
}

#[test]
fn the_ack_of_a_reads_frames_goes_out_with_the_next_frame() {
    let (mut scene, lane) = answered(8);
    let now = scene.pair.now;
    assert!(scene.pair.sides[0].peer.next_frame(now, lane).is_none(), "it waits for company");
    scene.write();
    let Some(OutFrame::Ack(ack)) = scene.pair.sides[0].peer.next_frame(now, lane) else {
        panic!("the ACK comes first")
    };
    assert_eq!((ack.processed, ack.refused), (8, 0));
    let next = scene.pair.sides[0].peer.next_frame(now, lane);
    assert!(matches!(next, Some(OutFrame::Write(_))), "{next:?}");
}

#[test]
fn no_ack_is_sent_for_fewer_than_eight_frames_of_reads() {
    let (mut scene, lane) = answered(7);
    scene.write();
    let next = scene.pair.sides[0].peer.next_frame(scene.pair.now, lane);
    assert!(matches!(next, Some(OutFrame::Write(_))), "{next:?}");
}

#[test]
fn the_ack_of_a_reads_frames_goes_out_alone_when_it_is_late() {
    let (mut scene, lane) = answered(2);
    let now = scene.pair.now;
    let peer = &mut scene.pair.sides[0].peer;
    let due = peer.next_timeout();
    assert_eq!(due, now + 5 * MS);
    peer.handle_timeout(due);
    assert!(peer.owes_acks());
    let Some(OutFrame::Ack(ack)) = peer.next_frame(due, lane) else { panic!("an ACK is owed") };
    assert_eq!((ack.processed, ack.refused), (2, 0));
    assert!(!peer.owes_acks() && peer.next_frame(due, lane).is_none() && peer.next_timeout() > due);
}

#[test]
fn the_ack_of_a_reads_frames_does_not_wait_for_a_seventeenth() {
    let (mut scene, lane) = answered(15);
    let now = scene.pair.now;
    assert!(scene.pair.sides[0].peer.next_frame(now, lane).is_none());
    let (mut scene, lane) = answered(16);
    let frame = scene.pair.sides[0].peer.next_frame(now, lane);
    assert!(matches!(frame, Some(OutFrame::Ack(ack)) if ack.processed == 16), "{frame:?}");
}

#[test]
fn data_received_before_is_passed_over_and_dealt_with() {
    let (mut scene, read, lane) = requested();
    let header = data(read, 0, 2);
    assert_eq!(present(&mut scene.pair, 0, &header, &[]).unwrap().0, Admission::Land);
    finish(&mut scene.pair, 0, &header);
    assert_eq!(present(&mut scene.pair, 0, &header, &[]).unwrap().0, Admission::Discard);
    let ended = FrameHeader { transfer: TransferId(1 << 63 | 99), ..header };
    assert_eq!(present(&mut scene.pair, 0, &ended, &[]).unwrap().0, Admission::Discard);
    let Some(OutFrame::Ack(ack)) = scene.pair.sides[0].peer.next_frame(scene.pair.now, lane) else {
        panic!("an ACK is owed")
    };
    assert_eq!((ack.processed, ack.refused), (3, 0));
}

#[test]
fn a_reader_that_asks_for_more_than_anyone_may_is_refused() {
    let mut scene = opened();
    let frames = 2 * READ_CREDIT / 1024;
    for transfer in 0..frames {
        let (header, table) = request(&scene, 1 << 63 | u64::from(transfer + 1), 1024);
        present(&mut scene.pair, 1, &header, &table).unwrap();
    }
    assert_eq!(refusal(&mut scene.pair, 1), None);
    let (header, table) = request(&scene, 1 << 63 | 1000, 1024);
    present(&mut scene.pair, 1, &header, &table).unwrap();
    assert_eq!(refusal(&mut scene.pair, 1), Some(Refusal::Busy));
}

#[test]
fn a_late_request_is_refused() {
    let mut scene = opened();
    let (header, table) = request(&scene, 1 << 63 | 1, 4);
    let late = FrameHeader { expiry: scene.pair.now, ..header };
    present(&mut scene.pair, 1, &late, &table).unwrap();
    assert_eq!(refusal(&mut scene.pair, 1), Some(Refusal::Expired));
    assert!(!scene.pair.sides[1].peer.has_frames());
}

#[test]
fn a_request_under_the_id_of_a_write_breaks_the_protocol() {
    let mut scene = opened();
    let (header, table) = request(&scene, 1, 4);
    let violation = present(&mut scene.pair, 1, &header, &table).unwrap_err();
    assert!(matches!(violation, Violation::Unexpected { message: "READ request", .. }));
    assert_eq!(header.kind, FrameKind::ReadRequest);
}

#[test]
fn a_read_that_fails_at_the_owner_says_why() {
    let (mut scene, transfer, _) = requested();
    let refusal = Refusal::Busy;
    scene.pair.inject(0, 2, 0, &Message::ReadFailed { transfer, refusal });
    scene.pair.deliver(0);
    assert_eq!(scene.end(), "refused by the peer: the owner's bounds are reached");
    assert!(say(&mut scene.pair, 1, []).is_none());
}
