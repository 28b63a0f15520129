//! What one thing costs however many others there are: with everything open that may be open, each
//! message, frame and timer still touches only what it concerns.
//!
//! Nothing is timed. Each test does something 20,000 to 400,000 times with as much open: where it
//! cost the number of the open ones each time, it would take minutes, and [`within_reason`] gives up.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::Cause;
use kvx_core::id::{GrantId, RegionId, Room, SessionKey, Slot, TransferId};
use kvx_core::layout::{Dtype, HeadWindow, LayoutBuilder, Placement};
use kvx_core::plan::{Plan, PlanOptions, Span, Spans};
use kvx_core::proto::{Deadline, Event, GrantPlan, PeerConfig, Post, Target, TransferOp};
use kvx_core::region::{RegionKey, Rights};
use kvx_core::testing::Pair;
use kvx_core::transport::{Admission, Landing};
use kvx_core::wire::message::Message;
use kvx_core::wire::{FrameHeader, FrameRuns, READ_CREDIT, WireSpan};

use super::scene::{ALL, MS, SECOND, Scene, config, scene, scene_with};

/// Runs `steps`, which take a second or two of a core, and gives up when they have had a minute of
/// one. What counts is the work, not how long the machine takes to come to it.
fn within_reason(steps: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        steps();
    });
    let schedstat = Path::new("/proc").join(told.recv().unwrap()).join("schedstat");
    while !thread.is_finished() {
        std::thread::sleep(MS);
        // Nanoseconds on a core come first (Documentation/scheduler/sched-stats.rst).
        let spent = std::fs::read_to_string(&schedstat).unwrap_or_default();
        let spent = spent.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
        assert!(Duration::from_nanos(spent) < 60 * SECOND, "a step costs what all of them should");
    }
    thread.join().unwrap();
}

/// A transfer of one byte of its own.
fn byte(scene: &Scene, op: TransferOp, place: u64) -> Post {
    let span: Spans = [Span { region: 0, offset: place % 4096, len: 1 }].into_iter().collect();
    let plan = Plan::pair(&span, &span, &PlanOptions::default()).unwrap();
    scene.post_of(op, Arc::new(plan))
}

/// Something is heard of side `to`'s peer, which acknowledges nothing.
fn hear(scene: &mut Scene, to: usize) {
    let time = scene.pair.now;
    scene.pair.inject(to, 0, 0, &Message::Heartbeat { time });
    assert!(scene.pair.deliver(to));
    scene.pair.sides[to].peer.next_timeout();
}

#[test]
fn a_message_costs_no_more_while_a_hundred_thousand_notifications_wait() {
    within_reason(|| {
        let mut scene = scene();
        let now = scene.pair.now;
        for number in 0..100_000u64 {
            let bytes = Bytes::copy_from_slice(&number.to_le_bytes());
            scene.pair.sides[0].peer.notify(now, bytes).unwrap();
        }
        (0..100_000).for_each(|_| hear(&mut scene, 0));
        assert_eq!(scene.pair.sides[0].peer.residue(), [("unsettled notifications", 100_000)]);
        // Their ends come in one, and cost as little each.
        scene.pair.settle_control();
        assert_eq!(super::scene::fates(&mut scene.pair, 0).len(), 100_000);
        assert_eq!(super::scene::told(&mut scene.pair, 1).len(), 100_000);
    });
}

#[test]
fn a_write_ends_at_the_same_cost_while_fifty_thousand_notifications_wait_for_theirs() {
    within_reason(|| {
        let mut scene = scene();
        for place in 0..50_000 {
            let post = byte(&scene, TransferOp::Write, place);
            scene.post(Post { notification: Some("there".into()), ..post });
        }
        scene.pair.settle();
        assert_eq!(super::scene::told(&mut scene.pair, 1).len(), 50_000);
        assert_eq!(scene.ends().len(), 50_000);
        scene.pair.settle();
        assert_eq!(scene.pair.sides[0].peer.residue(), []);
    });
}

#[test]
fn a_message_costs_no_more_while_all_grants_are_open() {
    within_reason(|| {
        let (mut pair, keys) = granted(16_384);
        for _ in 0..200_000 {
            let time = pair.now;
            pair.inject(0, 0, 0, &Message::Heartbeat { time });
            assert!(pair.deliver(0));
        }
        for grant in keys {
            pair.sides[0].peer.end_session(grant, 0, Bytes::new()).unwrap();
        }
        pair.settle();
        let settled = |event: &Event| matches!(event, Event::SessionSettled(..));
        assert_eq!(
            pair.sides[0].take_events().iter().filter(|event| settled(event)).count(),
            16_384
        );
        pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
    });
}

/// A pair whose side 1 has granted side 0 a block in each of `rooms` sessions.
fn granted(rooms: u64) -> (Pair, Vec<GrantId>) {
    let mut pair = Pair::connected(config());
    let heads = HeadWindow { first: 0, count: 1, total: 1 };
    let layout = LayoutBuilder::key_value(1, 1, heads, 16, Dtype::Fp8)
        .placement(Placement::OneRegion)
        .build()
        .unwrap();
    let (region, _) = pair.sides[1].register(layout.region_lens()[0] as usize, 0, Rights::empty());
    let grants = (0..rooms)
        .map(|room| {
            let session =
                SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 };
            let plan = GrantPlan::new(layout.clone(), vec![Arc::clone(&region)], 1, vec![0]);
            let (grant, _) = pair.sides[1].peer.grant(session, Arc::new(plan.unwrap())).unwrap();
            grant
        })
        .collect();
    pair.settle();
    (pair, grants)
}

#[test]
fn a_deadline_costs_no_more_while_sixty_thousand_transfers_have_others() {
    within_reason(|| {
        let mut scene = scene();
        scene.pair.disconnect();
        for place in 0..60_000 {
            // Each a moment after the one before, so that each has a time of its own to end.
            scene.pair.now = scene.pair.now + Duration::from_micros(10);
            let post = byte(&scene, TransferOp::Write, place);
            scene.post(post);
        }
        scene.pair.now = scene.pair.now + 9 * SECOND;
        let mut ended = 0;
        while ended < 60_000 {
            let due = scene.pair.sides[0].peer.next_timeout();
            scene.pair.elapse(due.saturating_since(scene.pair.now).max(Duration::from_nanos(1)));
            ended += scene.ends().len();
        }
    });
}

#[test]
fn an_answer_costs_no_more_while_thirty_thousand_reads_wait_for_credit() {
    within_reason(|| {
        // One run a frame.
        let mut scene = scene_with(PeerConfig { frame_bytes: 1, ..config() });
        let count = u64::from(READ_CREDIT);
        let (region, _) = scene.pair.sides[1].register(2 * count as usize, 7, ALL);
        let (local, _) = scene.pair.sides[0].register(3 * count as usize, 0, ALL);
        scene.pair.sides[0].peer.learn_regions([(region.id, region.key.clone())]);
        let spans = |step: u64| -> Spans {
            (0..count).map(|i| Span { region: 0, offset: i * step, len: 1 }).collect()
        };
        let plan = Plan::pair(&spans(3), &spans(2), &PlanOptions::default()).unwrap();
        let wide = scene.post_of(TransferOp::Read, Arc::new(plan));
        let target = Target::Regions(Arc::from([region.id]));
        scene.post(Post { local: Arc::from([local]), target, ..wide });
        scene.pair.settle_control();
        let lanes = scene.pair.lanes(0);
        // All credit is out.
        while lanes.iter().any(|lane| scene.pair.transmit(0, *lane)) {
            lanes.iter().for_each(|lane| while scene.pair.receive(1, *lane) {});
            lanes.iter().for_each(|lane| {
                let frame = scene.pair.sides[1].peer.owes_ack(*lane);
                assert!(!frame || scene.pair.transmit(1, *lane));
                while scene.pair.receive(0, *lane) {}
            });
        }
        for place in 0..30_000 {
            let post = byte(&scene, TransferOp::Read, place);
            scene.post(post);
        }
        scene.pair.settle_acks();
        assert_eq!(scene.ends().len(), 30_001);
        scene.pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
    });
}

#[test]
fn an_answer_about_slots_costs_no_more_while_twenty_thousand_transfers_wait_for_others() {
    within_reason(|| {
        let mut scene = scene();
        for number in 0..20_000u32 {
            let (id, key) = (RegionId::new(1_000 + number, 1), RegionKey::new([3; 16]));
            scene.pair.sides[0].peer.learn_regions([(id, key)]);
            let post = byte(&scene, TransferOp::Write, 0);
            scene.post(Post { target: Target::Regions(Arc::from([id])), ..post });
        }
        // Nobody has such regions: each is refused by an answer of its own.
        scene.pair.settle();
        assert_eq!(scene.ends().len(), 20_000);
        scene.pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
    });
}

#[test]
fn a_cancelled_read_costs_the_owner_no_more_while_a_hundred_thousand_wait_for_their_answers() {
    within_reason(|| {
        let mut scene = scene();
        open_slot(&mut scene);
        let lane = scene.pair.lanes(1)[0];
        let (now, owner) = (scene.pair.now, &mut scene.pair.sides[1].peer);
        let mut landing = Landing::default();
        let span = WireSpan { slot: Slot(0), len: 1, offset: 0 };
        let read = |number: u64| TransferId(1 << 63 | (1 + number));
        for number in 0..100_000 {
            let runs = FrameRuns { first: 0, count: 1, total: 1 };
            let request = FrameHeader::read_request(read(number), now + SECOND, runs);
            let taken = owner.handle_frame(now, lane, &request, &[span], &mut landing).unwrap();
            assert_eq!(taken, Admission::Discard);
        }
        // The last first: the worst order for a list.
        for (sequence, number) in (0..100_000).rev().enumerate() {
            let cancel = Message::Cancel { transfer: read(number) };
            scene.pair.inject(1, 2 + sequence as u64, 0, &cancel);
            assert!(scene.pair.deliver(1));
        }
        assert!(scene.pair.sides[1].violation.is_none());
        assert_eq!(scene.pair.sides[1].peer.residue(), []);
    });
}

#[test]
fn runs_that_land_in_the_worst_order_cost_no_more_than_in_the_best() {
    within_reason(|| {
        const RUNS: u32 = 400_000;
        let mut scene = scene();
        open_slot(&mut scene);
        let lane = scene.pair.lanes(1)[0];
        let (now, owner) = (scene.pair.now, &mut scene.pair.sides[1].peer);
        let mut landing = Landing::default();
        let span = WireSpan { slot: Slot(0), len: 1, offset: 0 };
        // Every other run, backwards, so that each lies in a gap of its own before all others; then
        // those between.
        let even = (0..RUNS).rev().filter(|run| run % 2 == 0);
        for first in even.chain((0..RUNS).filter(|run| run % 2 == 1)) {
            let runs = FrameRuns { first, count: 1, total: RUNS };
            let header = FrameHeader::write(TransferId(100), None, now + SECOND, runs, 1);
            let admission = owner.handle_frame(now, lane, &header, &[span], &mut landing).unwrap();
            assert_eq!(admission, Admission::Land);
            owner.handle_frame_finished(now, lane, &header, Ok(()));
        }
        assert_eq!(owner.residue(), [], "all runs are there");
    });
}

#[test]
fn an_abort_costs_no_more_while_sixty_thousand_transfers_are_open() {
    within_reason(|| {
        let (mut pair, grants) = granted(16_000);
        let (local, _) = pair.sides[0].register(16, 0, ALL);
        let span: Spans = [Span { region: 0, offset: 0, len: 1 }].into_iter().collect();
        let plan = Arc::new(Plan::pair(&span, &span, &PlanOptions::default()).unwrap());
        for grant in grants.iter().cycle().take(60_000) {
            let post = Post {
                op: TransferOp::Write,
                plan: Arc::clone(&plan),
                local: Arc::from([Arc::clone(&local)]),
                target: Target::Grant(*grant),
                notification: None,
                layers: None,
                deadline: Deadline::default(),
            };
            let now = pair.now;
            pair.sides[0].peer.post(now, post).unwrap();
        }
        let mut failed = 0;
        for (room, grant) in grants.into_iter().enumerate() {
            let session = SessionKey {
                room: Room(room as u64),
                attempt: 0,
                sender_rank: 0,
                receiver_rank: 0,
            };
            pair.sides[0].peer.abort_session(session, grant, "enough");
            pair.collect();
            for event in pair.sides[0].take_events() {
                let Event::TransferEnded { outcome: Err(cause), .. } = event else { continue };
                assert!(matches!(cause, Cause::Aborted { .. }));
                failed += 1;
            }
        }
        assert_eq!(failed, 60_000);
        pair.settle();
        pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
    });
}

#[test]
fn ten_thousand_rooms_one_after_another_leave_nothing_behind() {
    within_reason(|| {
        let (mut pair, _) = granted(0);
        let heads = HeadWindow { first: 0, count: 1, total: 1 };
        let layout = LayoutBuilder::key_value(2, 1, heads, 16, Dtype::Fp8)
            .placement(Placement::OneRegion)
            .build()
            .unwrap();
        let len = layout.region_lens()[0];
        let (target, _) = pair.sides[1].register(len as usize, 0, Rights::empty());
        let (source, _) = pair.sides[0].register(len as usize, 0, Rights::empty());
        let span: Spans = [Span { region: 0, offset: 0, len: 1 }].into_iter().collect();
        let plan = Arc::new(Plan::pair(&span, &span, &PlanOptions::default()).unwrap());
        for room in 0..10_000 {
            let session =
                SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 };
            let grant = GrantPlan::new(layout.clone(), vec![Arc::clone(&target)], 1, vec![0]);
            let (grant, _) = pair.sides[1].peer.grant(session, Arc::new(grant.unwrap())).unwrap();
            assert_eq!(pair.messages(0).len(), 1, "a room is granted in one message");
            pair.settle_control();
            let now = pair.now;
            for layer in 0..2 {
                let post = Post {
                    op: TransferOp::Write,
                    plan: Arc::clone(&plan),
                    local: Arc::from([Arc::clone(&source)]),
                    target: Target::Grant(grant),
                    notification: None,
                    layers: Some(layer..layer + 1),
                    deadline: Deadline::default(),
                };
                pair.sides[0].peer.post(now, post).unwrap();
            }
            pair.sides[0].peer.end_session(grant, 2, Bytes::new()).unwrap();
            assert_eq!(pair.messages(1).len(), 3, "one a layer, and the end");
            pair.settle();
            let ended = |event: &Event| matches!(event, Event::SessionEnded(..));
            assert!(pair.sides[1].take_events().iter().any(ended));
            let settled = |event: &Event| matches!(event, Event::SessionSettled(..));
            assert!(pair.sides[0].take_events().iter().any(settled));
            pair.sides.iter().for_each(|side| assert_eq!(side.peer.residue(), []));
            pair.now = pair.now + MS;
        }
    });
}

/// Side 0 has the slot of the target.
fn open_slot(scene: &mut Scene) {
    scene.write();
    scene.pair.settle();
    scene.ends();
}
