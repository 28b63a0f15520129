//! Lanes that break: nothing is sent again before the other side has retired the lane, and nothing
//! that has landed is sent again at all (promise 6).

use std::time::Duration;

use kvx_core::error::{HandshakeError, LaneError, Refusal, Violation};
use kvx_core::id::{Association, LaneId, Slot, TransferId};
use kvx_core::proto::{Event, Peer};
use kvx_core::transport::{Admission, Landing};
use kvx_core::wire::message::{Message, MessageHeader};
use kvx_core::wire::{FrameHeader, FrameRuns, WireSpan};

use super::scene::{SECOND, scene};

#[test]
fn runs_on_a_broken_lane_go_out_again_only_once_it_is_retired() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lanes = scene.pair.lanes(0);
    while scene.pair.transmit(0, lanes[0]) {}
    // One and a half frames arrive, of four.
    for _ in 0..8 {
        scene.pair.receive(1, lanes[0]);
    }
    scene.pair.close(0, lanes[0], LaneError::Closed);
    assert!(!scene.pair.transmit(0, lanes[1]), "the owner may still read the old lane");
    while scene.pair.deliver(1) {}
    assert_eq!(scene.pair.lanes(1), [lanes[1]], "the owner has closed it");
    assert!(!scene.pair.transmit(0, lanes[1]), "the owner's word is still under way");
    scene.pair.settle_control();
    let mut again = 0;
    while scene.pair.transmit(0, lanes[1]) {
        again += 1;
    }
    assert_eq!(again, 3, "the frame that landed whole is not sent again");
    scene.pair.settle();
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.arrived(0..8, 128));
}

#[test]
fn what_the_owner_has_read_to_the_end_is_not_sent_again() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lanes = scene.pair.lanes(0);
    while scene.pair.transmit(0, lanes[0]) {}
    // All arrives, and the acknowledgements are lost.
    scene.pair.cut(lanes[0], 1, usize::MAX);
    scene.pair.settle_control();
    assert!(!scene.pair.transmit(0, lanes[1]));
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
}

#[test]
fn an_acknowledgement_waits_for_as_many_refusals_as_it_counts() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    // Two frames of a first transfer, then a second transfer's, which the owner refuses: its region
    // is gone by then.
    while scene.pair.transmit(0, lane) {}
    while scene.pair.receive(1, lane) {}
    let region = scene.remote.id;
    let second = scene.write();
    while scene.pair.transmit(0, lane) {}
    scene.pair.sides[1].registry.deregister(region).unwrap();
    while scene.pair.receive(1, lane) {}
    // The acknowledgement of all comes before the refusals.
    while scene.pair.transmit(1, lane) {}
    while scene.pair.receive(0, lane) {}
    assert!(scene.ends().is_empty(), "the acknowledgement counts refusals that have not come");
    scene.pair.settle_control();
    let ends = scene.ends();
    let refused = ends.iter().find(|(id, _)| *id == second).unwrap();
    assert!(refused.1.is_err(), "a refused frame never counts as landed");
    let first = ends.iter().find(|(id, _)| *id != second).unwrap();
    assert!(first.1.is_ok());
}

#[test]
fn acknowledging_frames_that_were_never_sent_breaks_the_protocol() {
    let mut scene = scene();
    let (now, lane) = (scene.pair.now, scene.pair.lanes(0)[0]);
    let peer = &mut scene.pair.sides[0].peer;
    let result = peer.handle_ack(now, lane, &FrameHeader::ack(1, 0));
    assert!(matches!(result, Err(Violation::Acknowledged { sent: 0, got: 1 })));
}

#[test]
fn retiring_a_lane_with_more_frames_than_were_sent_ends_the_peer() {
    let mut scene = scene();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.inject(0, 1, 0, &Message::LaneRetired { lane, processed: 3 });
    scene.pair.deliver(0);
    assert!(matches!(scene.pair.sides[0].violation, Some(Violation::Acknowledged { .. })));
}

#[test]
fn a_lane_that_was_retired_before_it_opened_never_opens() {
    let mut scene = scene();
    let lane = LaneId(scene.pair.lanes(1)[0].0 + 20);
    scene.pair.inject(1, 1, 0, &Message::LaneRetired { lane, processed: 0 });
    scene.pair.deliver(1);
    let (ours, theirs) = scene.pair.sides[1].peer.associations().unwrap();
    let peer = &mut scene.pair.sides[1].peer;
    assert!(peer.check_lane(theirs, ours, lane).is_err());
    assert!(peer.handle_lane_opened(lane).is_err());
    let answer = scene.pair.messages(0);
    assert!(answer.contains(&Message::LaneRetired { lane, processed: 0 }), "{answer:?}");
}

#[test]
fn a_name_opens_one_lane_only() {
    let mut scene = scene();
    let lane = scene.pair.lanes(1)[0];
    let (ours, theirs) = scene.pair.sides[1].peer.associations().unwrap();
    let peer = &mut scene.pair.sides[1].peer;
    assert!(peer.check_lane(theirs, ours, lane).is_err());
    assert!(peer.handle_lane_opened(lane).is_err());
}

#[test]
fn a_lane_must_name_both_associations() {
    let scene = scene();
    let lane = LaneId(scene.pair.lanes(1)[0].0 + 20);
    let (ours, theirs) = scene.pair.sides[1].peer.associations().unwrap();
    let peer = &scene.pair.sides[1].peer;
    assert!(peer.check_lane(theirs, ours, lane).is_ok());
    assert!(peer.check_lane(ours, theirs, lane).is_err());
    assert!(peer.check_lane(theirs, theirs, lane).is_err());
    assert!(peer.check_lane(theirs, Association(99), lane).is_err());
    assert!(peer.check_lane(Association(99), ours, lane).is_err());
    assert!(peer.check_lane(theirs, ours, LaneId(lane.0 + 1)).is_err(), "a name of this side's");
}

#[test]
fn lanes_that_break_are_replaced() {
    let mut scene = scene();
    for _ in 0..5 {
        scene.write();
        scene.pair.settle_control();
        let lanes = scene.pair.lanes(0);
        assert_eq!(lanes.len(), 2);
        scene.pair.transmit(0, lanes[0]);
        scene.pair.transmit(0, lanes[1]);
        scene.pair.cut(lanes[0], 1, 100);
        scene.pair.cut(lanes[1], 1, 200);
        scene.pair.settle();
        assert_eq!(scene.end(), "1024 bytes in 8 runs");
    }
    assert_eq!(scene.pair.lanes(0), scene.pair.lanes(1));
}

#[test]
fn lanes_outlive_the_control_connection_whoever_dials_the_next() {
    let mut scene = scene();
    let before = scene.pair.lanes(0);
    scene.pair.disconnect();
    scene.pair.connect(1);
    scene.pair.settle();
    assert_eq!(scene.pair.lanes(0), before);
    for lane in &before {
        scene.pair.cut(*lane, 1, 0);
    }
    scene.write();
    scene.pair.settle();
    scene.pair.live(SECOND);
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert_eq!(scene.pair.lanes(0), scene.pair.lanes(1));
    let after = scene.pair.lanes(0);
    assert!(after.iter().all(|lane| !before.contains(lane)), "a name is never used twice");
}

#[test]
fn a_lane_that_cannot_be_opened_is_tried_again_under_another_name() {
    let mut scene = scene();
    scene.pair.sides[0].hold_lanes = true;
    for lane in scene.pair.lanes(0) {
        scene.pair.cut(lane, 1, 0);
    }
    scene.pair.settle();
    let wanted = std::mem::take(&mut scene.pair.sides[0].wanted);
    assert_eq!(wanted.len(), 2);
    let now = scene.pair.now;
    for lane in &wanted {
        scene.pair.sides[0].peer.handle_lane_failed(now, *lane);
    }
    scene.pair.sides[0].hold_lanes = false;
    scene.write();
    scene.pair.live(SECOND);
    assert_eq!(scene.end(), "1024 bytes in 8 runs");
    assert!(scene.pair.lanes(0).iter().all(|lane| !wanted.contains(lane)));
}

#[test]
fn a_read_survives_lanes_that_break_on_the_way_there_and_back() {
    for kept_there in [0, 40, 200, 5000] {
        for kept_back in [0, 40, 100, 5000] {
            let mut scene = scene();
            scene.read();
            scene.pair.settle_control();
            let lanes = scene.pair.lanes(0);
            while scene.pair.transmit(0, lanes[0]) {}
            scene.pair.cut(lanes[0], 1, kept_there);
            scene.pair.settle_control();
            while scene.pair.transmit(0, lanes[1]) {}
            while scene.pair.receive(1, lanes[1]) {}
            while scene.pair.transmit(1, lanes[1]) {}
            scene.pair.cut(lanes[1], 0, kept_back);
            scene.pair.settle_acks();
            assert_eq!(scene.end(), "1024 bytes in 8 runs");
            assert!(scene.arrived(0..8, 128));
            for side in &scene.pair.sides {
                assert_eq!(side.peer.residue(), []);
            }
        }
    }
}

#[test]
fn a_source_that_is_deregistered_inside_a_frame_ends_the_lane_not_the_peer() {
    let mut scene = scene();
    scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    // Contrary to the order that `close_region` asks for, so that a frame is caught in the middle.
    let region = scene.local.id;
    scene.pair.sides[0].registry.deregister(region).unwrap();
    assert!(scene.pair.transmit(0, lane));
    scene.pair.sides[0].peer.close_region(region);
    scene.pair.settle();
    let events = scene.pair.sides[0].take_events();
    let lost = |event: &Event| matches!(event, Event::LaneLost(loss) if matches!(loss.cause, LaneError::SourceGone));
    assert!(events.iter().any(lost), "{events:?}");
    assert!(scene.pair.sides[0].peer.cause_of_death().is_none());
    assert_eq!(scene.pair.sides[1].peer.residue(), []);
}

#[test]
fn a_lane_that_has_ended_here_or_never_opened_admits_nothing() {
    let mut scene = scene();
    let region = scene.remote.id;
    scene.pair.sides[0].peer.open_remote_regions(&[region]).unwrap();
    scene.pair.settle();
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let header = FrameHeader::write(TransferId(1), None, scene.pair.now + SECOND, runs, 16);
    let span = WireSpan { slot: Slot(0), len: 16, offset: 0 };
    let (now, lane) = (scene.pair.now, scene.pair.lanes(1)[0]);
    let mut landing = Landing::default();
    let owner = &mut scene.pair.sides[1].peer;
    owner.handle_lane_closed(now, lane, LaneError::Closed);
    for lane in [lane, LaneId(lane.0 + 100)] {
        let admission = owner.handle_frame(now, lane, &header, &[span], &mut landing).unwrap();
        assert_eq!(admission, Admission::Discard);
        assert!(landing.spans.is_empty());
    }
    let retired = Message::LaneRetired { lane, processed: 0 };
    assert!(scene.pair.messages(0).contains(&retired), "nothing was dealt with");
}

#[test]
fn refusing_a_frame_twice_ends_the_peer() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    scene.pair.transmit(0, lane);
    let refusal = Refusal::Expired;
    let refused = Message::Refused { lane, frame: 0, transfer, refusal };
    for sequence in 2..4 {
        scene.pair.inject(0, sequence, 0, &refused);
        scene.pair.deliver(0);
    }
    assert!(matches!(scene.pair.sides[0].violation, Some(Violation::Unexpected { .. })));
}

#[test]
fn retiring_a_lane_twice_ends_the_peer() {
    let mut scene = scene();
    let (now, lane) = (scene.pair.now, scene.pair.lanes(0)[0]);
    let mut body = Vec::new();
    Message::LaneRetired { lane, processed: 0 }.encode_body(&mut body).unwrap();
    let header = |sequence| MessageHeader {
        body_len: body.len() as u32,
        kind: 19,
        sequence,
        acknowledged: 0,
    };
    let peer = &mut scene.pair.sides[0].peer;
    peer.handle_message(now, &header(1), body.clone().into()).unwrap();
    let again = peer.handle_message(now, &header(2), body.clone().into());
    assert!(matches!(again, Err(Violation::Unexpected { message: "LaneRetired", .. })));
}

#[test]
fn after_a_failure_lanes_are_dialed_again_only_later() {
    let mut scene = scene();
    scene.pair.sides[0].hold_lanes = true;
    let lane = scene.pair.lanes(0)[0];
    scene.pair.cut(lane, 1, 0);
    let mut pause = Duration::ZERO;
    for _ in 0..5 {
        let wanted = std::mem::take(&mut scene.pair.sides[0].wanted);
        assert_eq!(wanted.len(), 1);
        let now = scene.pair.now;
        let peer = &mut scene.pair.sides[0].peer;
        peer.handle_lane_failed(now, wanted[0]);
        peer.handle_timeout(now);
        assert!(!peer.has_events(), "not at once");
        let next = peer.next_timeout().saturating_since(now);
        assert!(next > pause, "later each time");
        pause = next;
        scene.pair.elapse(next);
    }
}

#[test]
fn a_pair_has_so_many_lanes_and_no_more() {
    let mut scene = scene();
    let first = scene.pair.lanes(1)[0].0;
    let (ours, theirs) = scene.pair.sides[1].peer.associations().unwrap();
    let open = |peer: &mut Peer, number: u32| {
        let lane = LaneId(first + 100 + 2 * number);
        peer.check_lane(theirs, ours, lane).map(|()| peer.handle_lane_opened(lane).unwrap())
    };
    let peer = &mut scene.pair.sides[1].peer;
    for number in 2..64 {
        assert_eq!(open(peer, number), Ok(()));
    }
    assert_eq!(open(peer, 64), Err(HandshakeError::Busy));
}

#[test]
fn lanes_that_the_peer_never_retires_are_bounded() {
    let mut scene = scene();
    let now = scene.pair.now;
    let first = scene.pair.lanes(1)[0].0;
    let (ours, theirs) = scene.pair.sides[1].peer.associations().unwrap();
    let mut opened = 0;
    for number in 0..1000 {
        let lane = LaneId(first + 100 + 2 * number);
        let peer = &mut scene.pair.sides[1].peer;
        if peer.check_lane(theirs, ours, lane).is_ok() {
            peer.handle_lane_opened(lane).unwrap();
            peer.handle_lane_closed(now, lane, LaneError::Closed);
            opened += 1;
        }
    }
    assert_eq!(opened, 4 * 64 - 2, "with the two that are open");
    // Nor does the side that dials open more and more of them.
    let mut dialed = 0;
    let mut lanes: Vec<LaneId> = scene.pair.lanes(0);
    for second in 1..1000 {
        let peer = &mut scene.pair.sides[0].peer;
        for lane in lanes.drain(..) {
            dialed += 1;
            peer.handle_lane_closed(now + second * SECOND, lane, LaneError::Closed);
        }
        peer.handle_timeout(now + (second + 1) * SECOND);
        while let Some(event) = peer.poll_event() {
            if let Event::OpenLane(lane) = event {
                peer.handle_lane_opened(lane).unwrap();
                lanes.push(lane);
            }
        }
    }
    assert_eq!(dialed, 4 * 64);
}

#[test]
fn lanes_that_break_as_soon_as_they_are_open_are_dialed_again_only_later() {
    let mut scene = scene();
    scene.pair.sides[0].hold_lanes = true;
    let mut lanes = scene.pair.lanes(0);
    let now = scene.pair.now;
    let peer = &mut scene.pair.sides[0].peer;
    let mut dialed = 0;
    while let Some(lane) = lanes.pop() {
        peer.handle_lane_closed(now, lane, LaneError::Closed);
        while let Some(event) = peer.poll_event() {
            if let Event::OpenLane(lane) = event {
                peer.handle_lane_opened(lane).unwrap();
                lanes.push(lane);
                dialed += 1;
            }
        }
    }
    assert_eq!(dialed, 2, "each lane was replaced once");
    let next = peer.next_timeout();
    assert!(next > now && next < now + SECOND);
    peer.handle_timeout(next);
    assert!(peer.has_events(), "and later they are tried again");
}

#[test]
fn nothing_of_a_cancelled_write_goes_out_again() {
    let mut scene = scene();
    let transfer = scene.write();
    scene.pair.settle_control();
    let lane = scene.pair.lanes(0)[0];
    while scene.pair.transmit(0, lane) {}
    scene.pair.sides[0].peer.cancel(transfer);
    // Its frames are lost before the owner hears of either.
    let now = scene.pair.now;
    scene.pair.sides[0].peer.handle_lane_closed(now, lane, LaneError::Closed);
    scene.pair.sides[1].peer.handle_lane_closed(now, lane, LaneError::Closed);
    while scene.pair.deliver(0) {}
    assert!(!scene.pair.sides[0].peer.has_frames());
}
