//! Bytes come to their places, in both directions, however many and scattered.

use std::sync::Arc;

use kvx_core::id::TransferId;
use kvx_core::wire::{FrameKind, MAX_FRAME_SPANS};

use crate::pair::{Pair, whole};
use crate::scripted::*;

fn is_done(event: &Event) -> bool {
    matches!(event, Event::Finished(_, Ok(())))
}

/// Runs of every length up to `longest`, in an order that is neither side's.
fn scattered(count: usize, longest: usize) -> Vec<Move> {
    let place = |i: usize| (i * 7919) % count;
    (0..count).map(|i| (0, i * longest, 0, place(i) * longest, 1 + i * 31 % longest)).collect()
}

#[test]
fn scattered_writes_land_byte_exact() {
    const LONGEST: usize = 700;
    let count = 3 * MAX_FRAME_SPANS + 17;
    let source = Memory::patterned(count * LONGEST, 3);
    let target = Memory::new(count * LONGEST);
    let pair = Pair::new(&[], &[&target.region()]);
    let moves = scattered(count, LONGEST);
    let mut expected = vec![SENTINEL; count * LONGEST];
    for &(_, from, _, to, len) in &moves {
        expected[to..to + len].copy_from_slice(&source.read(from, len));
    }
    let out = frames(FrameKind::Write, 1, &plan(&moves), &[source.region()], MAX_FRAME_SPANS);
    let count = out.len();
    pair.near.send(out);
    pair.far.host.wait_count(count, is_done);
    assert!(target.all() == expected);
}

#[test]
fn reads_are_answered_byte_exact() {
    let source = Memory::patterned(64 * PAGE, 9);
    let target = Memory::new(64 * PAGE);
    let pair = Pair::new(&[], &[&source.region()]);
    let moves: Vec<Move> = (0..64).map(|i| (0, i * PAGE, 0, (63 - i) * PAGE, PAGE)).collect();
    let (plan, local) = (plan(&moves), [target.region()]);
    pair.near.host.expect_read(TransferId(4), &plan, &local);
    pair.near.send(frames(FrameKind::ReadRequest, 4, &plan, &local, 5));
    pair.near.host.wait_count(13, is_done);
    for run in plan.runs(0..plan.len()) {
        let (to, from) = (run.local_offset as usize, run.remote_offset as usize);
        assert!(target.read(to, PAGE) == source.read(from, PAGE));
    }
}

#[test]
fn far_more_than_a_ring_holds_goes_both_ways_at_once() {
    let sources = [Memory::patterned(256 * PAGE, 1), Memory::patterned(256 * PAGE, 2)];
    let targets = [Memory::new(256 * PAGE), Memory::new(256 * PAGE)];
    let pair = Pair::new(&[&targets[0].region()], &[&targets[1].region()]);
    let regions = [sources[0].region(), sources[1].region()];
    const ROUNDS: u64 = 60;
    for round in 1..=ROUNDS {
        pair.near.send(whole(round, &regions[1], 1));
        pair.far.send(whole(round, &regions[0], 1));
    }
    for side in [&pair.near, &pair.far] {
        side.host.wait_count(256 * ROUNDS as usize, is_done);
    }
    assert!(targets[0].all() == sources[0].all() && targets[1].all() == sources[1].all());
}

#[test]
fn a_finished_frame_is_acknowledged_without_a_wake() {
    let target = Memory::new(PAGE);
    let pair = Pair::new(&[], &[&target.region()]);
    pair.far.host.acknowledge();
    let source = Memory::new(PAGE);
    for transfer in 1..=50 {
        pair.near.send(whole(transfer, &source.region(), 1));
        pair.near.host.wait(&Event::Acknowledged(transfer));
    }
}

#[test]
fn a_frame_for_an_unknown_slot_is_dropped_and_the_next_lands() {
    let (source, target) = (Memory::patterned(PAGE, 5), Memory::new(PAGE));
    let pair = Pair::new(&[], &[&target.region()]);
    let nowhere = plan(&[(0, 0, 7, 0, PAGE)]);
    let region = source.region();
    pair.near.send(frames(FrameKind::Write, 1, &nowhere, &[Arc::clone(&region)], 1));
    pair.near.send(whole(2, &region, 1));
    pair.far.host.wait(&done(2));
    assert!(target.all() == source.all());
    assert!(!pair.far.host.events().iter().any(|event| *event == done(1)));
}

#[test]
fn an_idle_lane_ends_when_either_side_closes_it() {
    let pair = Pair::new(&[], &[]);
    pair.far.lane.close(kvx_core::error::LaneError::Closed);
    assert_eq!(pair.near.host.wait_closed(), "closed");
    assert_eq!(pair.far.host.wait_closed(), "closed");
    assert_eq!(pair.near.transport.counters().lanes, 0);
}
