//! Memory that is named in a ring, and is its owner's again before it was copied.

use std::sync::{Arc, mpsc};

use kvx_core::region::Region;

use crate::pair::{Pair, whole};
use crate::scripted::*;

const GONE: &str = "source memory went away inside a frame";

fn drained(region: &Region) {
    for _ in 0..HUNG.as_millis() {
        if region.gate.is_drained() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the fence waits for the other side");
}

/// The owner waits for nobody, and what it writes there afterwards is never told as landed.
#[test]
fn a_source_that_is_deregistered_before_it_was_copied_is_not_told_as_landed() {
    is_not_told_as_landed(&Memory::patterned(8 * PAGE, 1), &Memory::new(8 * PAGE));
    let [source, target] = ["kvx-test-source", "kvx-test-target"];
    is_not_told_as_landed(&Memory::shared(source, 8 * PAGE), &Memory::shared(target, 8 * PAGE));
}

fn is_not_told_as_landed(source: &Arc<Memory>, target: &Arc<Memory>) {
    let pair = Pair::new(&[], &[&target.region()]);
    // The other side has admitted the frame and copies it when it is told to.
    let ((arrived, is_here), (go_on, may_go_on)) = (mpsc::channel(), mpsc::channel());
    pair.far.host.on_event(move |event| {
        if let Event::Arrived(..) = event {
            arrived.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
        Ok(())
    });
    let region = source.region();
    pair.near.send(whole(1, &region, 8));
    is_here.recv_timeout(HUNG).unwrap();
    region.gate.close();
    drained(&region);
    go_on.send(()).unwrap();
    assert_eq!(pair.near.host.wait_closed(), GONE);
    let heard = pair.far.host.wait_closed();
    assert!(heard == GONE || heard == "closed", "{heard}");
    assert!(!pair.far.host.events().contains(&done(1)), "it was told as landed");
}

#[test]
fn a_source_that_was_copied_is_deregistered_and_the_lane_lives() {
    let target = Memory::new(8 * PAGE);
    let pair = Pair::new(&[], &[&target.region()]);
    for transfer in 1..=20 {
        let source = Memory::patterned(8 * PAGE, transfer as u8);
        let region = source.region();
        pair.near.send(whole(transfer, &region, 8));
        pair.far.host.wait(&done(transfer));
        region.gate.close();
        drained(&region);
        assert!(target.all() == source.all());
    }
    assert!(!pair.near.host.events().iter().any(|event| matches!(event, Event::Closed(_))));
}

#[test]
fn source_memory_that_is_not_there_ends_the_lane_on_both_sides() {
    let (source, target) = (Memory::patterned(8 * PAGE, 1), Memory::new(8 * PAGE));
    source.protect(5);
    let pair = Pair::new(&[], &[&target.region()]);
    pair.near.send(whole(1, &source.region(), 8));
    assert_eq!(pair.far.host.wait_closed(), GONE);
    assert_eq!(pair.near.host.wait_closed(), GONE);
    assert!(!pair.far.host.events().contains(&done(1)));
}

#[test]
fn a_region_that_was_sent_is_let_go_when_the_lane_ends() {
    let target = Memory::new(8 * PAGE);
    let pair = Pair::new(&[], &[&target.region()]);
    let source = Memory::patterned(8 * PAGE, 1);
    let region = source.region();
    pair.near.send(whole(1, &region, 8));
    pair.far.host.wait(&done(1));
    pair.near.lane.close(kvx_core::error::LaneError::Closed);
    pair.near.host.wait_closed();
    region.gate.close();
    assert!(region.gate.is_drained(), "the lane has ended and holds a lease");
}
