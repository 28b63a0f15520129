//! Notifications after READs: once the data is here, in order, at most once, and never after a READ
//! that failed (promise 1; PROTOCOL 6.3).

use std::sync::Arc;

use bytes::Bytes;
use kvx_core::error::{Cause, Resource};
use kvx_core::plan::Plan;
use kvx_core::proto::{Delivery, Event, PeerConfig, Post, TransferOp};
use kvx_core::wire::message::Message;

use super::scene::{MS, SECOND, Scene, config, fates, scene, scene_with, told};

/// A READ with a notification, all of whose data is on its way here; none has landed.
fn answered(words: &'static str) -> Scene {
    let mut scene = scene();
    scene.read_and_tell(words);
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    while scene.pair.transmit(1, lane) {}
    scene
}

#[test]
fn a_reads_notification_leaves_when_the_last_byte_is_here() {
    let mut scene = answered("read");
    let lane = scene.pair.lanes(0)[0];
    while !scene.arrived(0..8, 128) {
        let said = scene.pair.messages(1);
        assert!(!said.iter().any(|said| matches!(said, Message::Notify { .. })), "{said:?}");
        assert!(scene.pair.receive(0, lane));
    }
    while scene.pair.receive(0, lane) {}
    // Nothing was asked of the reader since it posted.
    let said = scene.pair.messages(1);
    let due_at_once = |said: &Message| matches!(said, Message::Notify { after: None, .. });
    assert!(said.iter().any(due_at_once), "{said:?}");
    scene.pair.settle_control();
    assert_eq!(told(&mut scene.pair, 1), ["read"]);
}

#[test]
fn a_read_is_done_when_its_data_is_here_and_does_not_wait_for_its_notification() {
    let mut scene = answered("read");
    scene.pair.disconnect();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.receive(0, lane) {}
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    scene.pair.connect(0);
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["read"], "and it is told when there is a road");
}

#[test]
fn the_fate_of_a_reads_notification_is_told_with_the_read() {
    let mut scene = scene();
    let read = scene.read_and_tell("read");
    scene.pair.settle();
    let events = scene.pair.sides[0].take_events();
    let fate = events.iter().find_map(|event| match event {
        Event::NotificationSettled(id, Delivery::Delivered, with) => Some((id.0, *with)),
        _ => None,
    });
    assert_eq!(fate, Some((1, Some(read))));
    scene.pair.settle_acks();
    assert_eq!(told(&mut scene.pair, 1), ["read"]);
    scene.pair.settle();
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), []);
    }
}

#[test]
fn notifications_of_reads_come_in_the_order_in_which_they_became_due() {
    let mut scene = scene();
    scene.read_and_tell("read");
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "before".into()).unwrap();
    scene.pair.settle();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "after".into()).unwrap();
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["before", "read", "after"]);
}

#[test]
fn a_short_read_that_overtakes_a_long_one_tells_first() {
    let mut scene = scene();
    scene.read_and_tell("long");
    let short = scene.post_of(TransferOp::Read, scene.plan(1, 128));
    scene.post(Post { notification: Some("short".into()), ..short });
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["short", "long"]);
}

#[test]
fn a_cancelled_read_tells_nobody() {
    let mut scene = scene();
    let read = scene.read_and_tell("never");
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    scene.pair.sides[0].peer.cancel(read);
    scene.pair.settle();
    assert_eq!(fates(&mut scene.pair, 0), [(1, "not delivered")]);
    assert!(told(&mut scene.pair, 1).is_empty());
    scene.pair.settle_acks();
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), [], "its credit is back");
    }
}

#[test]
fn a_read_that_fails_tells_nobody() {
    // Refused by its owner, of a source that goes away here, past its deadline, of a peer that dies.
    for way in 0..4 {
        let mut scene = scene();
        scene.read_and_tell("never");
        scene.pair.settle_control();
        match way {
            0 => drop(scene.pair.sides[1].registry.deregister(scene.remote.id).unwrap()),
            1 => scene.pair.sides[0].peer.close_region(scene.local.id),
            2 => scene.pair.elapse(11 * SECOND),
            _ => scene.pair.sides[0].peer.kill(Cause::PeerRemoved),
        }
        scene.pair.settle();
        assert_eq!(fates(&mut scene.pair, 0), [(1, "not delivered")], "way {way}");
        assert!(told(&mut scene.pair, 1).is_empty(), "way {way}");
    }
}

#[test]
fn a_reads_notification_has_its_credit_from_the_start() {
    let mut scene = scene_with(PeerConfig { notification_window: 1 << 20, ..config() });
    let half = Bytes::from(vec![b'x'; (1 << 19) - 64]);
    let read = |scene: &Scene, bytes: &Bytes| {
        let post = scene.post_of(TransferOp::Read, scene.plan(8, 128));
        Post { notification: Some(bytes.clone()), ..post }
    };
    let held = read(&scene, &half);
    let first = scene.post(held);
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, half.clone()).unwrap();
    // Nothing is left for anybody, although the half of it has not left.
    let busy = |outcome: Result<_, Cause>| {
        let busy = matches!(outcome, Err(Cause::Busy(Resource::NotificationCredit)));
        assert!(busy, "{outcome:?}");
    };
    busy(scene.pair.sides[0].peer.notify(now, Bytes::new()).map(drop));
    let another = read(&scene, &Bytes::new());
    busy(scene.pair.sides[0].peer.post(now, another).map(drop));
    // A READ that is given up gives its credit back.
    scene.pair.sides[0].peer.cancel(first);
    let held = read(&scene, &half);
    scene.post(held);
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1).len(), 2);
    scene.pair.settle();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, half.clone()).unwrap();
    scene.pair.sides[0].peer.notify(now, half).unwrap();
    scene.pair.settle();
    assert!(scene.pair.sides[1].violation.is_none(), "all of it fits");
}

#[test]
fn credit_that_is_set_aside_is_not_used_yet() {
    let mut scene = scene();
    scene.read_and_tell("held");
    // Nothing has left of which the peer could give anything back.
    scene.pair.inject(0, 1, 0, &Message::NotificationCredit { consumed: 68 });
    scene.pair.deliver(0);
    assert!(scene.pair.sides[0].violation.is_some());
}

#[test]
fn a_long_notification_of_a_read_comes_whole() {
    let mut scene = scene_with(PeerConfig { notification_window: 4 << 20, ..config() });
    let long = Bytes::from((0..3_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    let post = scene.post_of(TransferOp::Read, scene.plan(8, 128));
    scene.post(Post { notification: Some(long.clone()), ..post });
    scene.pair.settle();
    let events = scene.pair.sides[1].take_events();
    let whole = events.into_iter().find_map(|event| match event {
        Event::Notification(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(whole.unwrap(), long);
}

#[test]
fn a_read_of_nothing_tells_at_once() {
    let mut scene = scene();
    let post = scene.post_of(TransferOp::Read, Arc::new(Plan::default()));
    let post = Post { notification: Some("nothing".into()), ..post };
    let now = scene.pair.now;
    assert!(scene.pair.sides[0].peer.post(now, post).unwrap().is_none());
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["nothing"]);
}

#[test]
fn a_reads_notification_that_finds_no_road_is_given_up_in_the_end() {
    let mut scene = answered("late");
    scene.pair.disconnect();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.receive(0, lane) {}
    scene.pair.elapse(9 * SECOND + 999 * MS);
    assert!(fates(&mut scene.pair, 0).is_empty());
    scene.pair.elapse(MS);
    assert_eq!(fates(&mut scene.pair, 0), [(1, "not delivered")]);
    scene.pair.connect(0);
    scene.pair.settle();
    assert!(told(&mut scene.pair, 1).is_empty());
}
