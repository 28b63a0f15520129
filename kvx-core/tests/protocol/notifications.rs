//! Notifications: after the data, in order, at most once, and truthful about their fate (promise 1).

use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::{Cause, Resource, Violation};
use kvx_core::id::TransferId;
use kvx_core::wire::message::Message;

use super::scene::{fates, say, scene, scene_with, told};

#[test]
fn a_notification_waits_for_the_data_it_speaks_of() {
    let mut scene = scene();
    scene.write_and_tell("after");
    scene.pair.settle_control();
    assert!(told(&mut scene.pair, 1).is_empty(), "no byte is there");
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while !scene.arrived(0..8, 128) {
        assert!(told(&mut scene.pair, 1).is_empty());
        assert!(scene.pair.receive(1, lane));
    }
    while scene.pair.receive(1, lane) {}
    assert_eq!(told(&mut scene.pair, 1), ["after"]);
}

#[test]
fn a_notification_that_comes_after_its_data_is_due_at_once() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle();
    scene.ends();
    scene.write_and_tell("after");
    // The slots are known: the data overtakes the notification.
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    assert!(told(&mut scene.pair, 1).is_empty());
    scene.pair.settle_control();
    assert_eq!(told(&mut scene.pair, 1), ["after"]);
}

#[test]
fn notifications_come_in_the_order_in_which_they_become_due() {
    let mut scene = scene();
    scene.write_and_tell("with the data");
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "at once".into()).unwrap();
    scene.pair.sides[0].peer.notify(now, "then".into()).unwrap();
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["at once", "then", "with the data"]);
}

#[test]
fn the_fate_is_delivered_once_the_peer_has_answered() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "hello".into()).unwrap();
    scene.pair.deliver(1);
    // The peer says something else meanwhile.
    scene.pair.inject(0, 0, 0, &Message::Acknowledge);
    scene.pair.deliver(0);
    assert!(fates(&mut scene.pair, 0).is_empty());
    scene.pair.settle_control();
    assert_eq!(fates(&mut scene.pair, 0), [(1, "delivered")]);
}

#[test]
fn a_notification_that_never_left_is_not_delivered_and_never_comes() {
    let mut scene = scene();
    scene.pair.disconnect();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "late".into()).unwrap();
    scene.pair.elapse(Duration::from_secs(11));
    assert_eq!(fates(&mut scene.pair, 0), [(1, "not delivered")]);
    scene.pair.connect(0);
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "next".into()).unwrap();
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["next"]);
}

#[test]
fn a_notification_that_left_without_an_answer_is_unknown_whether_it_came_or_not() {
    for arrives in [false, true] {
        let mut scene = scene();
        let now = scene.pair.now;
        scene.pair.sides[0].peer.notify(now, "perhaps".into()).unwrap();
        assert_eq!(scene.pair.messages(1).len(), 1, "it is on its way");
        if arrives {
            scene.pair.deliver(1);
        }
        scene.pair.disconnect();
        scene.pair.elapse(Duration::from_secs(11));
        assert_eq!(fates(&mut scene.pair, 0), [(1, "unknown")]);
        assert_eq!(told(&mut scene.pair, 1).len(), usize::from(arrives));
    }
}

#[test]
fn a_cancelled_write_takes_its_notification_along() {
    let mut scene = scene();
    let transfer = scene.write_and_tell("never");
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.settle();
    assert_eq!(fates(&mut scene.pair, 0), [(1, "unknown")]);
    assert!(told(&mut scene.pair, 1).is_empty());
    scene.pair.settle();
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), [], "its credit is back");
    }
}

#[test]
fn a_write_that_never_began_takes_its_notification_along() {
    let mut scene = scene();
    let transfer = scene.write_and_tell("never");
    // The notification is there, and not a byte of the data was handed to a lane.
    scene.pair.settle_control();
    scene.pair.sides[0].peer.cancel(transfer);
    scene.pair.settle();
    assert!(told(&mut scene.pair, 1).is_empty());
    assert_eq!(scene.pair.sides[1].peer.residue(), [], "nothing waits for it for ever");
}

#[test]
fn a_long_notification_comes_in_parts_and_whole() {
    let config = super::scene::config();
    let mut scene =
        scene_with(kvx_core::proto::PeerConfig { notification_window: 4 << 20, ..config });
    let long = Bytes::from((0..3_000_000u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, long.clone()).unwrap();
    assert!(scene.pair.messages(1).len() > 3);
    // The connection breaks between the parts.
    for _ in 0..3 {
        scene.pair.deliver(1);
    }
    scene.pair.disconnect();
    scene.pair.connect(0);
    scene.pair.settle();
    let events = scene.pair.sides[1].take_events();
    let whole = events.into_iter().find_map(|event| match event {
        kvx_core::proto::Event::Notification(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(whole.unwrap(), long);
    assert_eq!(fates(&mut scene.pair, 0), [(1, "delivered")]);
}

#[test]
fn a_notification_above_the_bound_is_invalid() {
    let mut scene = scene();
    let now = scene.pair.now;
    let refused = scene.pair.sides[0].peer.notify(now, Bytes::from(vec![0; (16 << 20) + 1]));
    assert!(matches!(refused, Err(Cause::Invalid(_))));
}

#[test]
fn a_refused_writes_notification_is_dropped_when_it_comes_later() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle();
    scene.ends();
    let region = scene.remote.id;
    scene.pair.sides[1].registry.deregister(region).unwrap();
    scene.write_and_tell("never");
    assert_eq!(scene.pair.messages(1).len(), 1, "it is on its way, and cannot be taken back");
    // The slots are known: the data overtakes the notification, and is refused.
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    scene.pair.settle();
    assert!(told(&mut scene.pair, 1).is_empty());
    scene.pair.settle();
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), [], "its credit is back");
    }
}

#[test]
fn parts_of_two_notifications_are_never_joined() {
    let mut scene = scene();
    let part = |after, more| Message::Notify { after, more, bytes: "part".into() };
    let of = |transfer| Some(TransferId(transfer));
    let violation = say(&mut scene.pair, 1, [part(of(1), true), part(of(2), false)]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "Notify", .. })));
}

#[test]
fn a_notification_that_has_no_end_ends_the_peer() {
    let config = super::scene::config();
    let mut scene =
        scene_with(kvx_core::proto::PeerConfig { notification_window: 64 << 20, ..config });
    let bytes = Bytes::from(vec![0; 512 << 10]);
    let part = Message::Notify { after: None, more: true, bytes };
    assert!(say(&mut scene.pair, 1, vec![part.clone(); 32]).is_none(), "as long as it may be");
    scene.pair.inject(1, 33, 0, &part);
    scene.pair.deliver(1);
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Overrun(Resource::NotificationCredit))));
}

#[test]
fn a_peer_that_breaks_a_notification_off_for_another_leaves_nothing_behind() {
    let mut scene = scene();
    let begun = Message::Notify { after: None, more: true, bytes: Bytes::from_static(b"begun") };
    let after = Some(TransferId(9));
    let other = Message::Notify { after, more: false, bytes: Bytes::from_static(b"other") };
    let violation = say(&mut scene.pair, 1, [begun, other]);
    assert!(matches!(violation, Some(Violation::Unexpected { message: "Notify", .. })));
    scene.pair.sides[1].peer.kill(Cause::PeerRemoved);
    assert_eq!(scene.pair.sides[1].peer.residue(), [], "the dead keep nothing");
}
