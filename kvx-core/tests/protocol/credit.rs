//! Bounds: what one side can make the other keep, and what it is told when it may not.

use std::sync::Arc;

use bytes::Bytes;
use kvx_core::error::{Cause, Refusal, Resource, Violation};
use kvx_core::id::{Slot, TransferId};
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};
use kvx_core::proto::{PeerConfig, Post, Target, TransferOp};
use kvx_core::region::RegionKey;
use kvx_core::testing::Pair;
use kvx_core::transport::OutFrame;
use kvx_core::wire::message::{Message, OpenRegion};
use kvx_core::wire::{FrameHeader, FrameRuns, MAX_NOTIFICATION, READ_CREDIT, WireSpan};

use super::scene::{ALL, SECOND, config, fates, present, refusal, say, scene, scene_with, told};

#[test]
fn undelivered_notifications_are_credited_and_taking_them_gives_credit_back() {
    let mut scene = scene_with(PeerConfig { notification_window: 1 << 20, ..config() });
    let now = scene.pair.now;
    let quarter = Bytes::from(vec![b'x'; (1 << 18) - 64]);
    for _ in 0..4 {
        scene.pair.sides[0].peer.notify(now, quarter.clone()).unwrap();
    }
    let busy = scene.pair.sides[0].peer.notify(now, "more".into()).unwrap_err();
    assert!(matches!(busy, Cause::Busy(Resource::NotificationCredit)));
    assert!(busy.is_retryable());
    scene.pair.settle();
    assert!(scene.pair.sides[0].peer.notify(now, "more".into()).is_err(), "nobody has taken them");
    assert_eq!(told(&mut scene.pair, 1).len(), 4);
    scene.pair.settle();
    scene.pair.sides[0].peer.notify(now, "more".into()).unwrap();
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["more"]);
    assert!(scene.pair.sides[1].violation.is_none());
}

#[test]
fn the_longest_notification_fits_into_the_default_window() {
    let mut scene = scene_with(PeerConfig { frame_bytes: 256, ..PeerConfig::default() });
    let longest = Bytes::from(vec![b'x'; MAX_NOTIFICATION]);
    for _ in 0..3 {
        let now = scene.pair.now;
        scene.pair.sides[0].peer.notify(now, longest.clone()).unwrap();
        scene.pair.settle();
        assert_eq!(told(&mut scene.pair, 1).len(), 1);
        scene.pair.settle();
    }
}

#[test]
fn a_notification_that_will_never_fit_is_an_error_and_one_that_may_is_busy() {
    let window = 2 << 20;
    let mut pair = Pair::new([config(), PeerConfig { notification_window: window, ..config() }]);
    let notify = |pair: &mut Pair, len: u64| {
        let now = pair.now;
        pair.sides[0].peer.notify(now, Bytes::from(vec![b'x'; len as usize]))
    };
    // Before the window is known nobody can say more.
    let early = notify(&mut pair, window).unwrap_err();
    assert!(matches!(early, Cause::Busy(Resource::NotificationCredit)));
    pair.connect(0);
    pair.settle();
    let never = notify(&mut pair, window - 63).unwrap_err();
    assert!(matches!(never, Cause::Invalid(_)) && !never.is_retryable(), "{never}");
    notify(&mut pair, 0).unwrap();
    let later = notify(&mut pair, window - 64).unwrap_err();
    assert!(matches!(later, Cause::Busy(Resource::NotificationCredit)), "{later}");
    pair.settle();
    assert_eq!(told(&mut pair, 1).len(), 1);
    pair.settle();
    notify(&mut pair, window - 64).unwrap();
    pair.settle();
    assert_eq!(told(&mut pair, 1).len(), 1);
}

#[test]
fn notifications_before_the_first_connection_never_exceed_what_the_peer_keeps() {
    let narrow = PeerConfig { notification_window: 1, ..config() };
    let mut pair = Pair::new([config(), narrow]);
    let piece = Bytes::from(vec![b'x'; 100_000]);
    let mut sent = 0;
    while pair.sides[0].peer.notify(pair.now, piece.clone()).is_ok() {
        sent += 1;
    }
    assert!(sent >= 10);
    pair.connect(0);
    pair.settle();
    assert!(pair.sides[1].violation.is_none());
    assert_eq!(told(&mut pair, 1).len(), sent);
}

#[test]
fn taking_a_notification_of_before_a_reset_gives_no_credit_away() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "old".into()).unwrap();
    scene.pair.settle();
    scene.pair.forget(0);
    scene.pair.connect(0);
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["old"]);
    scene.pair.settle();
    assert!(scene.pair.sides[0].violation.is_none(), "it never used that credit");
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "new".into()).unwrap();
    scene.pair.settle();
    assert_eq!(told(&mut scene.pair, 1), ["new"]);
    scene.pair.settle();
    assert!(scene.pair.sides[0].violation.is_none());
}

#[test]
fn a_peer_that_takes_more_credit_than_it_has_is_over() {
    let mut scene = scene_with(PeerConfig { notification_window: 1 << 20, ..config() });
    let bytes = Bytes::from(vec![0; 500_000]);
    let notify = Message::Notify { after: None, more: false, bytes };
    for sequence in 1..=3 {
        scene.pair.inject(1, sequence, 0, &notify);
        scene.pair.deliver(1);
    }
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Overrun(Resource::NotificationCredit))));
}

#[test]
fn returning_more_credit_than_was_used_ends_the_peer() {
    let mut scene = scene();
    scene.pair.inject(0, 1, 0, &Message::NotificationCredit { consumed: 65 });
    scene.pair.deliver(0);
    assert!(matches!(scene.pair.sides[0].violation, Some(Violation::Acknowledged { .. })));
}

#[test]
fn credit_given_back_for_what_never_left_does_no_harm() {
    let mut scene = scene();
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "early".into()).unwrap();
    // The peer cannot have got it yet.
    scene.pair.inject(0, 1, 0, &Message::NotificationCredit { consumed: 69 });
    scene.pair.deliver(0);
    scene.pair.disconnect();
    scene.pair.elapse(11 * SECOND);
    assert_eq!(fates(&mut scene.pair, 0), [(1, "not delivered")]);
    let now = scene.pair.now;
    scene.pair.sides[0].peer.notify(now, "late".into()).unwrap();
}

/// A READ of `count` single bytes from a region made for it.
fn wide_read(scene: &mut super::scene::Scene, count: u64) -> Post {
    let (region, _) = scene.pair.sides[1].register(2 * count as usize, 7, ALL);
    let (local, _) = scene.pair.sides[0].register(3 * count as usize, 0, ALL);
    scene.pair.sides[0].peer.learn_regions([(region.id, region.key.clone())]);
    let spans = |step: u64| -> Spans {
        (0..count).map(|i| Span { region: 0, offset: i * step, len: 1 }).collect()
    };
    let plan = Plan::pair(&spans(3), &spans(2), &PlanOptions::default()).unwrap();
    let post = scene.post_of(TransferOp::Read, Arc::new(plan));
    Post { local: Arc::from([local]), target: Target::Regions(Arc::from([region.id])), ..post }
}

#[test]
fn reads_ask_for_no_more_spans_than_the_credit() {
    let mut scene = scene_with(PeerConfig { frame_bytes: 1 << 20, ..config() });
    let count = u64::from(READ_CREDIT) + 5000;
    let post = wide_read(&mut scene, count);
    scene.post(post);
    let post = wide_read(&mut scene, 10);
    scene.post(post);
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    let mut frames = 0;
    while scene.pair.transmit(0, lane) {
        frames += 1;
    }
    assert_eq!(frames, READ_CREDIT / 1024 + 1, "both READs have had their turn");
    scene.pair.settle_acks();
    let ends = scene.ends();
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|(_, end)| end.is_ok()));
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), []);
    }
}

#[test]
fn the_credit_of_a_cancelled_read_comes_back_when_the_owner_has_answered() {
    let mut scene = scene_with(PeerConfig { frame_bytes: 1 << 20, ..config() });
    let region = scene.remote.id;
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    let post = wide_read(&mut scene, u64::from(READ_CREDIT));
    let first = scene.post(post);
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    scene.pair.sides[0].peer.cancel(first);
    scene.read();
    assert!(!scene.pair.transmit(0, lane), "all credit is out");
    scene.pair.settle();
    let ends: Vec<String> = scene
        .ends()
        .into_iter()
        .map(|(_, end)| end.map_or_else(|cause| cause.to_string(), |_| "done".to_owned()))
        .collect();
    assert_eq!(ends, ["cancelled, fenced", "done"]);
}

#[test]
fn bytes_kept_for_a_peer_are_bounded() {
    let mut scene = scene_with(PeerConfig { memory: 600_000, ..config() });
    // A notification's first parts, never completed.
    let part = Bytes::from(vec![0; 500_000]);
    let notify = Message::Notify { after: None, more: true, bytes: part };
    for sequence in 1..=2 {
        scene.pair.inject(1, sequence, 0, &notify);
        scene.pair.deliver(1);
    }
    let violation = scene.pair.sides[1].violation.take();
    assert!(matches!(violation, Some(Violation::Overrun(Resource::PeerBytes))), "{violation:?}");
    assert_eq!(scene.pair.sides[1].peer.residue(), [], "the dead keep nothing");
}

#[test]
fn cancelling_leaves_nothing_behind() {
    let mut scene = scene();
    for _ in 0..10 {
        for _ in 0..100 {
            let transfer = scene.write();
            scene.pair.sides[0].peer.cancel(transfer);
            scene.write();
            let transfer = scene.write();
            scene.pair.deliver(0);
            scene.pair.deliver(1);
            scene.pair.sides[0].peer.cancel(transfer);
        }
        scene.pair.settle();
        scene.ends();
    }
    for side in &scene.pair.sides {
        assert_eq!(side.peer.residue(), []);
    }
}

#[test]
fn what_a_peer_makes_this_side_say_and_never_acknowledges_is_bounded() {
    let mut scene = scene_with(PeerConfig { memory: 600_000, ..config() });
    let open = OpenRegion { region: scene.remote.id, key: scene.remote.key.clone() };
    // Each question is answered; nobody reads the answers.
    let questions = vec![Message::OpenRegions(vec![open; 10]); 5000];
    let violation = say(&mut scene.pair, 1, questions);
    assert!(matches!(violation, Some(Violation::Overrun(Resource::PeerBytes))), "{violation:?}");
}

#[test]
fn what_was_acknowledged_does_not_count_any_more() {
    let mut scene = scene_with(PeerConfig { memory: 600_000, ..config() });
    for _ in 0..10_000 {
        // Refused, for the key is wrong, and may be asked for again with a better one.
        let key = RegionKey::new([0x55; 16]);
        scene.pair.sides[0].peer.learn_regions([(scene.remote.id, key)]);
        scene.pair.sides[0].peer.open_remote_regions(&[scene.remote.id]).unwrap();
        let key = scene.remote.key.clone();
        scene.pair.sides[0].peer.learn_regions([(scene.remote.id, key)]);
        scene.pair.settle_control();
    }
    assert!(scene.pair.sides[1].violation.is_none());
}

#[test]
fn of_many_heartbeats_at_once_the_last_is_answered() {
    let mut scene = scene();
    let now = scene.pair.now;
    for _ in 0..1000 {
        scene.pair.inject(1, 0, 0, &Message::Heartbeat { time: now });
        scene.pair.deliver(1);
    }
    assert_eq!(scene.pair.messages(0).len(), 1);
}

#[test]
fn answers_that_a_reader_never_acknowledges_are_bounded() {
    let mut scene = scene_with(PeerConfig { memory: 600_000, ..config() });
    let region = scene.remote.id;
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    scene.pair.settle();
    let (now, lane) = (scene.pair.now, scene.pair.lanes(1)[0]);
    let table = vec![WireSpan { slot: Slot(0), len: 1, offset: 0 }; 1024];
    let runs = FrameRuns { first: 0, count: 1024, total: 1024 };
    let mut answered = 0;
    for number in 1..100 {
        let read = TransferId(1 << 63 | number);
        let request = FrameHeader::read_request(read, now + SECOND, runs);
        present(&mut scene.pair, 1, &request, &table).unwrap();
        while let Some(frame) = scene.pair.sides[1].peer.next_frame(now, lane) {
            answered += usize::from(matches!(frame, OutFrame::ReadData(_)));
        }
    }
    assert_eq!(refusal(&mut scene.pair, 1), Some(Refusal::Busy));
    assert!((30..40).contains(&answered), "{answered} answers of 16 KiB are kept");
    scene.pair.sides[1].peer.kill(Cause::PeerRemoved);
    assert_eq!(scene.pair.sides[1].peer.residue(), [], "the dead keep nothing");
}

#[test]
fn a_read_that_waits_for_credit_goes_on_with_the_first_answer() {
    let mut scene = scene_with(PeerConfig { frame_bytes: 1 << 20, ..config() });
    let post = wide_read(&mut scene, u64::from(READ_CREDIT) + 5000);
    scene.post(post);
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    assert!(!scene.pair.sides[0].peer.has_frames(), "all credit is out");
    while scene.pair.receive(1, lane) {}
    // An acknowledgement, and an answer.
    assert!(scene.pair.transmit(1, lane) && scene.pair.transmit(1, lane));
    while scene.pair.receive(0, lane) {}
    assert!(scene.pair.sides[0].peer.has_frames(), "lanes are to be told");
}
