//! A side whose ring says what is not so.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use kvx_core::id::{LaneId, Slot, TransferId};
use kvx_core::proto::LaneKey;
use kvx_core::time::Time;
use kvx_core::transport::{Admission, HostSpan, Landing, LaneHost, OutFrame};
use kvx_core::wire::WireSpan;
use kvx_core::wire::frame::{FrameRuns, RawSpan};
use zerocopy::IntoBytes;

use super::*;
use crate::message::{self, MAX_WORDS};

/// A host that turns down everything.
struct Nobody;

impl LaneHost for Nobody {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn next_frame(&self, _: LaneId) -> Option<OutFrame> {
        None
    }

    fn frame_arrived(
        &self,
        _: LaneId,
        _: &FrameHeader,
        _: &[WireSpan],
        _: &mut Landing,
    ) -> Result<Admission, Violation> {
        Ok(Admission::Discard)
    }

    fn frame_finished(&self, _: LaneId, _: &FrameHeader, _: Result<(), Refusal>) {}

    fn acknowledged(&self, _: LaneId, _: &FrameHeader) -> Result<(), Violation> {
        Ok(())
    }

    fn closed(&self, _: LaneId, _: LaneError) {}
}

/// A receiving half, and the channel of a peer that writes its ring by hand.
struct Scene {
    lane: LaneState,
    receiver: Receiver,
    peer: Channel,
}

impl Scene {
    fn new() -> Self {
        let (near, mut far) = UnixStream::pair().unwrap();
        let socket = Arc::new(OwnedFd::from(near));
        let lane = LaneState::unserved(LaneId(1), Arc::new(Nobody), &socket).unwrap();
        let key = || LaneKey::new([3; 32]);
        let channel = Arc::new(Channel::open(socket, key(), true).unwrap());
        let mut greeting = [0; GREETING];
        far.read_exact(&mut greeting).unwrap();
        let peer = Channel::open(Arc::new(OwnedFd::from(far)), key(), false).unwrap();
        peer.answer(&Greeting::read_from_bytes(&greeting).unwrap()).unwrap();
        peer.say(&[READY, FINE]).unwrap();
        Self { lane, receiver: Receiver::new(channel, Arc::default()), peer }
    }

    fn turn(&mut self) -> Result<(), LaneError> {
        let mut left = 1 << 20;
        self.receiver.turn(&self.lane, &mut left, &mut Received::default())
    }

    /// What comes of these words in the ring, so many of which are said to be there.
    fn written(words: &[u64], published: u64) -> Result<(), LaneError> {
        let mut scene = Self::new();
        scene.peer.own.write(0, words);
        scene.peer.own.publish(published);
        scene.turn()
    }
}

/// A message of one run of 64 bytes.
fn message() -> Vec<u64> {
    let runs = FrameRuns { first: 0, count: 1, total: 1 };
    let header = FrameHeader::write(TransferId(1), None, Time::from_nanos(9), runs, 64);
    let mut words = Vec::new();
    message::begin(&mut words);
    message::push(&mut words, &header.encode());
    let entry = WireSpan { slot: Slot(0), len: 64, offset: 0 };
    message::push(&mut words, RawSpan::from(entry).as_bytes());
    message::end(&mut words, [(HostSpan { address: 0x1000, len: 64 }, None)]);
    words
}

fn is_violation(outcome: Result<(), LaneError>) -> bool {
    matches!(outcome, Err(LaneError::Violation(_)))
}

#[test]
fn a_message_that_is_right_is_taken() {
    let words = message();
    assert!(Scene::written(&words, words.len() as u64).is_ok());
}

#[test]
fn lengths_and_positions_that_cannot_be_end_the_lane() {
    let words = message();
    let len = words.len() as u64;
    for length in [0, 1, 8, len - 1, len + 1, MAX_WORDS as u64 + 1, u64::MAX] {
        let mut odd = words.clone();
        odd[0] = length;
        assert!(is_violation(Scene::written(&odd, 2 * len)), "a message of {length} words");
    }
    assert!(is_violation(Scene::written(&words, len - 1)), "a message that was not written");
    assert!(is_violation(Scene::written(&words, u64::MAX)), "more than a ring holds");
}

#[test]
fn every_word_of_a_message_may_be_anything() {
    let words = message();
    for at in 0..words.len() {
        for value in [0, 1, u64::MAX, u64::MAX / 2, 0x4141_4141_4141_4141] {
            let mut odd = words.clone();
            odd[at] = value;
            // Taken or not: no panic, and no hang.
            let _ = Scene::written(&odd, words.len() as u64);
        }
    }
}

#[test]
fn a_side_that_reads_on_after_its_ring_went_back_is_over() {
    let mut scene = Scene::new();
    let words = message();
    scene.peer.own.write(0, &words);
    scene.peer.own.publish(words.len() as u64);
    scene.turn().unwrap();
    scene.peer.own.publish(3);
    assert!(is_violation(scene.turn()));
}

#[test]
fn who_has_another_key_is_not_reached() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let socket = Arc::new(OwnedFd::from(near));
    let lane = LaneState::unserved(LaneId(1), Arc::new(Nobody), &socket).unwrap();
    let channel = Arc::new(Channel::open(socket, LaneKey::new([3; 32]), true).unwrap());
    let mut greeting = [0; GREETING];
    far.read_exact(&mut greeting).unwrap();
    let far = Arc::new(OwnedFd::from(far));
    let peer = Channel::open(far, LaneKey::new([4; 32]), false).unwrap();
    peer.answer(&Greeting::read_from_bytes(&greeting).unwrap()).unwrap();
    peer.say(&[READY, REFUSED]).unwrap();
    let mut left = 1;
    let mut receiver = Receiver::new(channel, Arc::default());
    let outcome = receiver.turn(&lane, &mut left, &mut Received::default());
    assert!(matches!(outcome, Err(LaneError::Unreachable(_))), "{outcome:?}");
}
