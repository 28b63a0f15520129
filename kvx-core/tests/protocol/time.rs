//! Time: deadlines, expiries, heartbeats, and clocks.

use std::time::Duration;

use kvx_core::id::{LaneId, Slot, TransferId};
use kvx_core::proto::{Deadline, Event, PeerConfig, Post, TransferOp};
use kvx_core::testing::Pair;
use kvx_core::transport::OutFrame;
use kvx_core::wire::message::Message;
use kvx_core::wire::{FrameHeader, FrameRuns, WireSpan};

use super::scene::{MS, SECOND, Scene, config, present, scene};

fn post_with(scene: &mut Scene, deadline: Deadline) {
    let post = scene.post_of(TransferOp::Write, scene.plan(8, 128));
    scene.post(Post { deadline, ..post });
}

#[test]
fn a_transfer_without_progress_fails_at_its_deadline() {
    let mut scene = scene();
    scene.pair.disconnect();
    scene.write();
    assert_eq!(scene.pair.sides[0].peer.next_timeout(), scene.pair.now + 10 * SECOND);
    scene.pair.elapse(10 * SECOND - MS);
    assert!(scene.ends().is_empty());
    scene.pair.elapse(MS);
    assert_eq!(scene.end(), "deadline: no progress for 10s");
}

#[test]
fn progress_moves_the_deadline_and_the_total_does_not_move() {
    for (total, end) in
        [(None, "1024 bytes in 8 runs"), (Some(3 * SECOND), "deadline: not finished for 3s")]
    {
        let mut scene = scene();
        post_with(&mut scene, Deadline { progress: SECOND, total });
        scene.pair.settle_control();
        let lane = scene.pair.lanes(0)[0];
        for _ in 0..4 {
            scene.pair.transmit(0, lane);
            scene.pair.elapse(900 * MS);
            while scene.pair.receive(1, lane) {}
            scene.pair.transmit(1, lane);
            while scene.pair.receive(0, lane) {}
        }
        assert_eq!(scene.end(), end);
    }
}

#[test]
fn nothing_lands_after_the_deadline_whoever_is_asleep() {
    let mut scene = scene();
    post_with(&mut scene, Deadline { progress: SECOND, total: None });
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    for _ in 0..3 {
        scene.pair.receive(1, lane);
    }
    let before = scene.target_bytes();
    // Neither side runs its timers: the time alone is enough.
    scene.pair.now = scene.pair.now + SECOND;
    while scene.pair.receive(1, lane) {}
    assert_eq!(scene.target_bytes(), before);
}

#[test]
fn a_frame_that_came_late_is_sent_again_while_there_is_time() {
    let mut scene = scene();
    post_with(&mut scene, Deadline { progress: SECOND, total: None });
    scene.pair.settle_control();
    let lanes = scene.pair.lanes(0);
    // The first frame is held back; the others land, and move the deadline.
    scene.pair.transmit(0, lanes[0]);
    scene.pair.now = scene.pair.now + 800 * MS;
    while scene.pair.transmit(0, lanes[1]) {}
    while scene.pair.receive(1, lanes[1]) {}
    while scene.pair.transmit(1, lanes[1]) {}
    while scene.pair.receive(0, lanes[1]) {}
    scene.pair.now = scene.pair.now + 300 * MS;
    while scene.pair.receive(1, lanes[0]) {}
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
}

/// A READ of four requests, all taken in by the owner, one of them answered 0.8 s later. Its
/// deadline then lies 1 s ahead, and the expiry of the other three 0.2 s.
fn read_answered_in_part() -> (Scene, LaneId) {
    let mut scene = scene();
    let post = scene.post_of(TransferOp::Read, scene.plan(8, 128));
    scene.post(Post { deadline: Deadline { progress: SECOND, total: None }, ..post });
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    scene.pair.now = scene.pair.now + 800 * MS;
    // An answer.
    assert!(scene.pair.transmit(1, lane));
    while scene.pair.receive(0, lane) {}
    assert!(scene.arrived(0..2, 128) && !scene.arrived(2..4, 128));
    (scene, lane)
}

#[test]
fn nothing_is_read_for_a_request_whose_time_is_over() {
    let (mut scene, lane) = read_answered_in_part();
    scene.pair.now = scene.pair.now + 200 * MS;
    while scene.pair.transmit(1, lane) {}
    assert_eq!(scene.pair.sides[0].arriving(lane), 0, "not a byte");
    let told = scene.pair.messages(0);
    let late = |message: &Message| match message {
        Message::ReadExpired { first, count, .. } => Some(*first..*first + *count),
        _ => None,
    };
    assert_eq!(told.iter().filter_map(late).collect::<Vec<_>>(), [2..4, 4..6, 6..8]);
}

#[test]
fn a_read_that_moves_on_asks_again_for_what_came_too_late() {
    let (mut scene, lane) = read_answered_in_part();
    scene.pair.now = scene.pair.now + 200 * MS;
    while scene.pair.transmit(1, lane) {}
    scene.pair.settle_acks();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
    scene.pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
}

#[test]
fn a_read_whose_time_is_over_does_not_ask_again() {
    let (mut scene, lane) = read_answered_in_part();
    scene.pair.now = scene.pair.now + SECOND;
    while scene.pair.transmit(1, lane) {}
    scene.pair.settle_acks();
    assert_eq!(scene.end(), "deadline: no progress for 1s");
    scene.pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
}

#[test]
fn a_cancelled_write_whose_owner_is_silent_ends_unfenced_at_its_deadline() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.disconnect();
    scene.pair.elapse(9 * SECOND);
    assert!(scene.ends().is_empty());
    scene.pair.elapse(SECOND);
    assert_eq!(scene.end(), "cancelled, unfenced");
    let before = scene.target_bytes();
    while scene.pair.receive(1, lane) {}
    assert_eq!(scene.target_bytes(), before);
}

#[test]
fn what_lands_after_a_cancel_does_not_delay_its_end() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    scene.pair.disconnect();
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.elapse(5 * SECOND);
    // The owner has not heard of it, and acknowledges the first frame.
    for _ in 0..8 {
        scene.pair.receive(1, lane);
    }
    scene.pair.transmit(1, lane);
    while scene.pair.receive(0, lane) {}
    scene.pair.elapse(5 * SECOND);
    assert_eq!(scene.end(), "cancelled, unfenced", "at the deadline that its frames bear");
}

fn liveness(pair: &mut Pair, side: usize) -> Vec<&'static str> {
    pair.collect();
    let word = |event| match event {
        Event::Suspect(_) => Some("suspect"),
        Event::Recovered => Some("recovered"),
        Event::Disconnected => Some("disconnected"),
        Event::Dead(_) => Some("dead"),
        _ => None,
    };
    pair.sides[side].take_events().into_iter().filter_map(word).collect()
}

#[test]
fn an_idle_peer_that_answers_heartbeats_is_never_suspect() {
    let mut scene = scene();
    scene.pair.live(60 * SECOND);
    assert!(liveness(&mut scene.pair, 0).is_empty());
    assert!(scene.pair.sides[0].peer.is_alive());
}

#[test]
fn a_silent_peer_is_suspect_and_recovers_when_it_is_heard() {
    let mut scene = scene();
    // Its messages are on their way and do not come.
    scene.pair.elapse(5 * SECOND - MS);
    assert!(liveness(&mut scene.pair, 0).is_empty());
    scene.pair.elapse(MS);
    assert_eq!(liveness(&mut scene.pair, 0), ["suspect"]);
    assert!(!scene.pair.sides[0].peer.is_alive());
    scene.pair.elapse(10 * SECOND);
    assert!(liveness(&mut scene.pair, 0).is_empty(), "told once");
    scene.pair.settle();
    assert_eq!(liveness(&mut scene.pair, 0), ["recovered"]);
}

#[test]
fn what_comes_on_lanes_is_a_sign_of_life_too() {
    let mut scene = scene();
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let header = FrameHeader::write(TransferId(1), None, scene.pair.now, runs, 16);
    let span = WireSpan { slot: Slot(0), len: 16, offset: 0 };
    let lane = scene.pair.lanes(0)[0];
    // Nothing comes over control.
    scene.pair.elapse(4 * SECOND);
    present(&mut scene.pair, 1, &header, &[span]).unwrap();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.handle_ack(now, lane, &FrameHeader::ack(0, 0)).unwrap();
    scene.pair.elapse(4 * SECOND);
    for side in 0..2 {
        assert!(liveness(&mut scene.pair, side).is_empty(), "side {side}");
    }
}

#[test]
fn a_peer_without_a_connection_is_lost_in_the_end() {
    let mut scene = scene();
    scene.pair.disconnect();
    scene.pair.elapse(30 * SECOND - MS);
    assert_eq!(liveness(&mut scene.pair, 0), ["disconnected"]);
    scene.pair.elapse(MS);
    assert_eq!(liveness(&mut scene.pair, 0), ["dead"]);
    let cause = scene.pair.sides[0].peer.cause_of_death().unwrap();
    assert_eq!(cause.to_string(), "the peer is unreachable for 30s");
}

#[test]
fn a_connection_that_is_busy_for_hours_still_knows_the_peers_clock() {
    let mut scene = scene();
    // Something is heard every second, so that silence never asks for the time.
    for _ in 0..3 * 3600 {
        let now = scene.pair.now;
        scene.pair.sides[0].peer.notify(now, "tick".into()).unwrap();
        scene.pair.elapse(SECOND);
        scene.pair.settle();
        super::scene::told(&mut scene.pair, 1);
    }
    // Nothing is late at once: no frame has to be sent again.
    post_with(&mut scene, Deadline { progress: SECOND, total: None });
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    assert!(scene.arrived(0..8, 128));
}

#[test]
fn a_clock_that_was_looked_at_too_late_is_looked_at_again_when_frames_expire() {
    // The handshake's answer lay unread for 20 s: expiries come as much too early.
    let mut pair = Pair::new([config(), config()]);
    pair.connect_slowly(0, 20 * SECOND);
    pair.settle();
    let mut scene = Scene::around(pair);
    post_with(&mut scene, Deadline { progress: SECOND, total: None });
    scene.pair.live(SECOND / 2);
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn timers_are_quiet_while_nothing_is_due() {
    let mut scene = scene();
    let PeerConfig { heartbeat, .. } = config();
    assert_eq!(scene.pair.sides[0].peer.next_timeout(), scene.pair.now + heartbeat);
    // An early call changes nothing.
    let now = scene.pair.now;
    scene.pair.sides[0].peer.handle_timeout(now);
    assert!(!scene.pair.sides[0].peer.has_messages());
    assert!(heartbeat > Duration::ZERO);
}

#[test]
fn in_an_idle_pair_the_side_that_dialed_asks_and_the_other_asks_when_it_does_not() {
    let mut scene = scene();
    let PeerConfig { heartbeat, .. } = config();
    let asked = |scene: &mut Scene| {
        let now = scene.pair.now;
        scene.pair.sides.each_mut().map(|side| {
            side.peer.handle_timeout(now);
            side.peer.has_messages()
        })
    };
    for _ in 0..5 {
        scene.pair.now = scene.pair.now + heartbeat;
        assert_eq!(asked(&mut scene), [true, false]);
        scene.pair.settle();
    }
    scene.pair.now = scene.pair.now + heartbeat + heartbeat / 4;
    assert_eq!(asked(&mut scene), [true, true]);
}

/// The header of the next WRITE frame of side 0.
fn next_header(scene: &mut Scene) -> FrameHeader {
    let (now, lane) = (scene.pair.now, scene.pair.lanes(0)[0]);
    match scene.pair.sides[0].peer.next_frame(now, lane) {
        Some(OutFrame::Write(frame)) => frame.header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expiry_lies_as_much_too_early_as_the_peers_clock_is_uncertain() {
    let mut pair = Pair::new([config(), config()]);
    pair.connect_slowly(0, 20 * SECOND);
    pair.settle();
    let mut scene = Scene::around(pair);
    post_with(&mut scene, Deadline { progress: 60 * SECOND, total: None });
    scene.pair.settle_control();
    let deadline = scene.pair.now + 60 * SECOND;
    let expiry = next_header(&mut scene).expiry;
    assert!(expiry + 20 * SECOND <= deadline, "{expiry:?} for {deadline:?}");
    assert!(expiry + 21 * SECOND > deadline);
}

#[test]
fn an_answer_to_no_heartbeat_says_nothing_of_the_clock() {
    let mut scene = scene();
    post_with(&mut scene, Deadline { progress: SECOND, total: None });
    scene.pair.settle_control();
    let now = scene.pair.now;
    let forged = Message::HeartbeatReply { echo: now, time: now + 1000 * SECOND };
    scene.pair.inject(0, 0, 0, &forged);
    scene.pair.deliver(0);
    assert!(next_header(&mut scene).expiry <= now + SECOND);
}
