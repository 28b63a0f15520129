//! Nothing lands after the fence, and the lane lives.

use std::sync::Arc;

use kvx_core::error::Refusal;
use kvx_core::region::Gate;
use kvx_core::time::Time;
use kvx_core::transport::OutFrame;

use crate::pair::{Pair, whole};
use crate::scripted::*;

/// Sends a frame, fences it after it was admitted and before it is copied, and checks that it is
/// refused so and that nothing of it lands.
fn fence_after_the_admission(
    expiry: Time,
    guard: &Arc<Gate>,
    fence: impl Fn(&Pair, &kvx_core::region::Region) + Send + Sync + 'static,
    refusal: Refusal,
) {
    let (target, spare) = (Memory::new(4 * PAGE), Memory::new(4 * PAGE));
    let region = target.region();
    let pair = Arc::new(Pair::new(&[], &[&region, &spare.region()]));
    pair.far.host.guard(&[guard]);
    let weak = Arc::downgrade(&pair);
    pair.far.host.on_event(move |event| {
        if let (Event::Arrived(..), Some(pair)) = (event, weak.upgrade()) {
            fence(&pair, &region);
        }
        Ok(())
    });
    let source = Memory::patterned(4 * PAGE, 3);
    let mut frames = whole(1, &source.region(), 4);
    for frame in &mut frames {
        if let OutFrame::Write(frame) = frame {
            frame.header.expiry = expiry;
        }
    }
    pair.near.send(frames);
    pair.far.host.wait(&refused(1, refusal));
    assert!(target.all().iter().all(|byte| *byte == SENTINEL), "bytes landed after the fence");
    assert!(!pair.far.host.events().iter().any(|event| matches!(event, Event::Closed(_))));
}

#[test]
fn nothing_lands_after_the_regions_gate_closed() {
    let close = |_: &Pair, region: &kvx_core::region::Region| {
        region.gate.close();
        assert!(region.gate.is_drained(), "no lease is held while nothing is copied");
    };
    fence_after_the_admission(Time::NEVER, &Arc::default(), close, Refusal::RegionClosed);
}

#[test]
fn nothing_lands_after_the_transfers_gate_closed() {
    let guard = Arc::new(Gate::new());
    let gate = Arc::clone(&guard);
    fence_after_the_admission(Time::NEVER, &guard, move |_, _| gate.close(), Refusal::Fenced);
}

#[test]
fn nothing_lands_at_or_after_the_expiry() {
    let expire = |pair: &Pair, _: &kvx_core::region::Region| pair.far.host.set_now(1000);
    fence_after_the_admission(Time::from_nanos(1000), &Arc::default(), expire, Refusal::Expired);
}

#[test]
fn unreachable_target_memory_is_a_refusal_and_the_lane_lives() {
    let (target, spare) = (Memory::new(4 * PAGE), Memory::new(PAGE));
    target.protect(2);
    let pair = Pair::new(&[], &[&target.region()]);
    let source = Memory::patterned(4 * PAGE, 3);
    pair.near.send(whole(1, &source.region(), 4));
    pair.far.host.wait(&refused(1, Refusal::MemoryFault));
    // A page that is there.
    let one = crate::scripted::plan(&[(0, 0, 0, 0, PAGE)]);
    let kind = kvx_core::wire::FrameKind::Write;
    pair.near.send(frames(kind, 2, &one, &[source.region()], 1));
    pair.far.host.wait(&done(2));
    assert!(target.read(0, PAGE) == source.read(0, PAGE));
    drop(spare);
}
