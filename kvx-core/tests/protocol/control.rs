//! The control stream: what is lost with a connection, what is not, and what breaks the protocol.

use std::time::Duration;

use kvx_core::error::{Cause, LaneError, Refusal, Violation};
use kvx_core::id::{Association, LaneId, Slot, TransferId};
use kvx_core::proto::Event;
use kvx_core::transport::{Admission, Landing};
use kvx_core::wire::message::{Message, MessageHeader};
use kvx_core::wire::{FrameHeader, FrameRuns, WireSpan};

use super::scene::{SECOND, present, refusal, scene, told};

fn end_of_peer(scene: &mut super::scene::Scene, side: usize) -> String {
    scene.pair.collect();
    let events = scene.pair.sides[side].take_events();
    let mut dead = events.into_iter().filter_map(|event| match event {
        Event::Dead(cause) => Some(cause.to_string()),
        _ => None,
    });
    dead.next().expect("the peer is dead")
}

#[test]
fn messages_lost_with_a_connection_come_on_the_next_once_and_in_order() {
    let mut scene = scene();
    let now = scene.pair.now;
    for word in ["one", "two", "three"] {
        scene.pair.sides[0].peer.notify(now, word.into()).unwrap();
    }
    // The first arrives; its acknowledgement and the others are lost.
    assert!(scene.pair.deliver(1));
    scene.pair.disconnect();
    scene.pair.sides[0].peer.notify(now, "four".into()).unwrap();
    assert_eq!(told(&mut scene.pair, 1), ["one"]);
    scene.pair.connect(0);
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["two", "three", "four"]);
}

#[test]
fn an_acknowledgement_lost_with_a_connection_is_made_good_by_resume() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "one".into()).unwrap();
    assert!(scene.pair.deliver(1));
    scene.pair.disconnect();
    assert!(!scene.pair.sides[0].peer.is_flushed());
    // The listener of before dials: which side does is of no account.
    scene.pair.connect(1);
    scene.pair.settle();
    assert!(scene.pair.sides[0].peer.is_flushed());
    assert_eq!(told(&mut scene.pair, 1), ["one"]);
}

#[test]
fn transfers_go_on_after_every_message_was_lost_once() {
    let mut scene = scene();
    scene.write_and_tell("told");
    for _ in 0..20 {
        // One message in each direction, then the connection breaks.
        scene.pair.deliver(0);
        scene.pair.deliver(1);
        scene.pair.disconnect();
        scene.pair.connect(0);
        scene.pair.deliver(0);
        scene.pair.deliver(1);
    }
    scene.pair.settle();
    assert!(scene.arrived(0..8, 128));
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert_eq!(told(&mut scene.pair, 1), ["told"]);
}

#[test]
fn a_gap_in_the_sequence_ends_the_peer() {
    let mut scene = scene();
    scene.pair.inject(1, 2, 0, &Message::SlotsClosed(Vec::new()));
    scene.pair.deliver(1);
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Sequence { expected: 1, got: 2 })));
    let end = end_of_peer(&mut scene, 1);
    assert_eq!(end, "the peer broke the protocol: control message 2 came where 1 was due");
}

#[test]
fn acknowledging_what_was_never_sent_ends_the_peer() {
    let mut scene = scene();
    scene.pair.inject(1, 0, 9, &Message::Acknowledge);
    scene.pair.deliver(1);
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Acknowledged { sent: 0, got: 9 })));
}

#[test]
fn a_second_resume_ends_the_peer() {
    let mut scene = scene();
    scene.pair.inject(1, 0, 0, &Message::Resume { own: Association(5), peer: None });
    scene.pair.deliver(1);
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Unexpected { message: "Resume", .. })));
}

#[test]
fn nothing_in_sequence_is_said_before_the_other_has_resumed() {
    let mut scene = scene();
    scene.pair.disconnect();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "to whom it may concern".into()).unwrap();
    scene.pair.connect(0);
    let said = scene.pair.messages(1);
    assert!(said.iter().all(|said| !said.is_sequenced()), "{said:?}");
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1).len(), 1);
}

#[test]
fn a_sequenced_message_before_resume_ends_the_peer() {
    let mut scene = scene();
    scene.pair.disconnect();
    scene.pair.connect(0);
    scene.pair.inject(1, 1, 0, &Message::SlotsClosed(Vec::new()));
    scene.pair.deliver(1);
    assert!(matches!(scene.pair.sides[1].violation, Some(Violation::Unexpected { .. })));
}

#[test]
fn a_message_that_was_dealt_with_is_not_dealt_with_again() {
    let mut scene = scene();
    let notify = Message::Notify { after: None, more: false, bytes: "once".into() };
    for _ in 0..2 {
        scene.pair.inject(1, 1, 0, &notify);
        scene.pair.deliver(1);
    }
    assert!(scene.pair.sides[1].violation.is_none());
    assert_eq!(told(&mut scene.pair, 1), ["once"]);
}

#[test]
fn a_peer_that_begins_anew_resets_what_was_outstanding() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    scene.pair.forget(1);
    scene.pair.connect(1);
    scene.pair.settle();
    assert_eq!(scene.end(), "the peer removed this engine");
    // Slots are asked for anew, ids go on, and everything works.
    scene.pair.live(SECOND);
    let again = scene.write();
    assert_eq!(again, TransferId(2));
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), []);
    }
}

#[test]
fn a_side_that_begins_anew_itself_takes_its_old_transfers_for_nothing() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    scene.pair.forget(0);
    scene.pair.sides[0].peer.learn_regions([(scene.remote.id, scene.remote.key.clone())]);
    scene.pair.connect(0);
    scene.pair.settle();
    scene.pair.live(SECOND);
    // Number 1 again: for the owner it is another transfer than the old number 1.
    assert_eq!(scene.write(), TransferId(1));
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn a_frame_of_before_a_reset_counts_for_nothing_after_it() {
    let mut scene = scene();
    let region = (scene.remote.id, scene.remote.key.clone());
    let table = [WireSpan { slot: Slot(0), len: 16, offset: 0 }];
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let expiry = scene.pair.now + SECOND;
    let header = FrameHeader::write(TransferId(1), None, expiry, runs, 16);
    let (mut before, mut after) = (Landing::default(), Landing::default());

    // A frame is admitted, and the other side begins anew before it is in memory.
    scene.pair.sides[0].peer.open_remote_regions(&[region.0]).unwrap();
    scene.pair.settle_control();
    let (now, old) = (scene.pair.now, scene.pair.lanes(1)[0]);
    scene.pair.sides[1].peer.handle_frame(now, old, &header, &table, &mut before).unwrap();
    scene.pair.forget(0);
    scene.pair.connect(0);
    scene.pair.sides[0].peer.learn_regions([region.clone()]);
    scene.pair.sides[0].peer.open_remote_regions(&[region.0]).unwrap();
    scene.pair.settle_control();
    assert!(before.gates.iter().all(|gate| !gate.is_open()), "it may not land any more");

    // Then a frame of another transfer of the same number, on another lane. The report of the old
    // one, which was under way, does not count for it.
    let owner = &mut scene.pair.sides[1].peer;
    let lane = LaneId(old.0 + 100);
    owner.handle_lane_opened(lane).unwrap();
    let admitted = owner.handle_frame(now, lane, &header, &table, &mut after).unwrap();
    assert_eq!(admitted, Admission::Land);
    owner.handle_frame_finished(now, old, &header, Ok(()));
    assert!(after.gates.iter().all(|gate| gate.is_open()), "it is not complete");
    owner.handle_frame_finished(now, lane, &header, Ok(()));
    assert!(after.gates.iter().all(|gate| !gate.is_open()), "it is");
}

#[test]
fn a_peer_that_began_anew_is_not_told_of_what_came_before() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.sides[1].peer.notify(now, "one".into()).unwrap();
    scene.pair.settle();
    scene.pair.forget(1);
    scene.pair.connect(0);
    // A heartbeat goes out before it is known who is there: it acknowledges nothing.
    scene.pair.elapse(2 * SECOND);
    assert!(scene.pair.messages(1).iter().any(|said| matches!(said, Message::Heartbeat { .. })));
    while scene.pair.deliver(1) {}
    assert!(scene.pair.sides[1].violation.is_none());
}

#[test]
fn an_overtaken_connection_does_not_take_the_place_of_a_later_one() {
    let mut scene = scene();
    let overtaken = scene.pair.handshake(0, Duration::ZERO).1;
    scene.pair.elapse(SECOND);
    scene.pair.connect(0);
    scene.pair.settle();
    let peer = &scene.pair.sides[1].peer;
    assert!(peer.check_connection(&overtaken).is_err());
    scene.pair.elapse(SECOND);
    let later = scene.pair.handshake(0, Duration::ZERO).1;
    assert!(scene.pair.sides[1].peer.check_connection(&later).is_ok());
}

#[test]
fn a_peer_that_is_killed_ends_everything_once() {
    let mut scene = scene();
    scene.write_and_tell("never");
    scene.read();
    scene.pair.settle_control();
    scene.pair.sides[0].peer.kill(Cause::PeerRemoved);
    scene.pair.sides[0].peer.kill(Cause::PeerRestarted);
    scene.pair.collect();
    let events = scene.pair.sides[0].take_events();
    let ended = events.iter().filter(|event| matches!(event, Event::TransferEnded { .. })).count();
    let dead =
        events.iter().filter(|event| matches!(event, Event::Dead(Cause::PeerRemoved))).count();
    assert_eq!((ended, dead), (2, 1), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Dead(_))), "nothing comes after");
    assert!(scene.pair.lanes(0).is_empty());
    let now = scene.pair.now;
    let post = scene.post_of(kvx_core::proto::TransferOp::Write, scene.plan(1, 16));
    let refused = scene.pair.sides[0].peer.post(now, post).unwrap_err();
    assert!(matches!(refused, Cause::PeerRemoved));
}

#[test]
fn goodbye_ends_the_other_side() {
    let mut scene = scene();
    scene.write();
    scene.pair.sides[1].peer.goodbye();
    scene.pair.settle_control();
    assert_eq!(scene.end(), "the peer shut down");
}

#[test]
fn nothing_comes_of_a_peer_that_is_over() {
    let mut scene = scene();
    let (lane, runs) = (scene.pair.lanes(0)[0], FrameRuns { first: 0, count: 1, total: 1 });
    scene.pair.elapse(6 * SECOND);
    assert!(!scene.pair.sides[0].peer.is_alive(), "it is suspect");
    scene.pair.sides[0].peer.kill(Cause::PeerRemoved);
    scene.pair.collect();
    // What was under way when it died.
    let now = scene.pair.now;
    let header = FrameHeader::write(TransferId(1), None, now + SECOND, runs, 16);
    let peer = &mut scene.pair.sides[0].peer;
    let mut landing = Landing::default();
    let admission = peer.handle_frame(now, lane, &header, &[], &mut landing).unwrap();
    assert_eq!(admission, Admission::Discard);
    peer.handle_frame_finished(now, lane, &header, Ok(()));
    peer.handle_ack(now, lane, &FrameHeader::ack(1, 0)).unwrap();
    peer.handle_lane_closed(now, lane, LaneError::Closed);
    peer.handle_timeout(now + 60 * SECOND);
    let mut body = Vec::new();
    let notify = Message::Notify { after: None, more: false, bytes: "late".into() };
    notify.encode_body(&mut body).unwrap();
    let header =
        MessageHeader { body_len: body.len() as u32, kind: 24, sequence: 9, acknowledged: 9 };
    peer.handle_message(now, &header, body.into()).unwrap();
    peer.handle_disconnected(now);
    assert!(peer.poll_event().is_none(), "Dead was the last");
    assert_eq!(peer.next_timeout(), kvx_core::time::Time::NEVER);
}

#[test]
fn acknowledging_what_is_queued_and_was_never_written_ends_the_peer() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.inject(1, 0, 1, &Message::Acknowledge);
    scene.pair.sides[1].peer.notify(now, "not written yet".into()).unwrap();
    scene.pair.deliver(1);
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Acknowledged { sent: 0, got: 1 })));
}

#[test]
fn slots_of_before_a_reset_open_nothing_after_it() {
    let mut scene = scene();
    let region = scene.remote.id;
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    scene.pair.settle();
    scene.pair.forget(0);
    scene.pair.connect(0);
    scene.pair.settle();
    // The same slot, and no key was shown since.
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let expiry = scene.pair.now + SECOND;
    let header = FrameHeader::write(TransferId(1), None, expiry, runs, 16);
    let span = WireSpan { slot: Slot(0), len: 16, offset: 0 };
    present(&mut scene.pair, 1, &header, &[span]).unwrap();
    assert_eq!(refusal(&mut scene.pair, 1), Some(Refusal::UnknownSlot));
}
