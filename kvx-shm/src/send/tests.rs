//! What becomes of memory that was named when the lane ends while the other side copies.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use kvx_core::id::LaneId;
use kvx_core::proto::LaneKey;
use kvx_core::region::Region;
use kvx_core::wire::FrameKind;
use kvx_io::{ReceiveHalf, Received};
use zerocopy::FromBytes;

use super::*;
use crate::receive::Receiver;
use crate::ring::Theirs;
use crate::scripted::{HUNG, Host, Memory, PAGE, frames, plan};
use crate::setup::{FINE, GREETING, Greeting, READY};

/// A sending half that has named a region, and the other side's channel.
struct Scene {
    lane: LaneState,
    sender: Sender,
    region: Arc<Region>,
    /// The sender's ring, as the other side sees it.
    seen: Theirs,
    peer: Channel,
    _memory: Arc<Memory>,
}

impl Scene {
    fn new() -> Self {
        let (near, mut far) = UnixStream::pair().unwrap();
        let socket = Arc::new(OwnedFd::from(near));
        let host = Host::new(&[]);
        let lane = LaneState::unserved(LaneId(1), Arc::clone(&host) as _, &socket).unwrap();
        let key = || LaneKey::new([3; 32]);
        let channel = Arc::new(Channel::open(socket, key(), true).unwrap());
        let mut greeting = [0; GREETING];
        far.read_exact(&mut greeting).unwrap();
        let peer = Channel::open(Arc::new(OwnedFd::from(far)), key(), false).unwrap();
        peer.answer(&Greeting::read_from_bytes(&greeting).unwrap()).unwrap();
        peer.say(&[READY, FINE]).unwrap();
        let mut receiver = Receiver::new(Arc::clone(&channel), Arc::default());
        receiver.turn(&lane, &mut 1, &mut Received::default()).unwrap();

        let memory = Memory::new(PAGE);
        let region = memory.region();
        let plan = plan(&[(0, 0, 0, 0, PAGE)]);
        host.push(frames(FrameKind::Write, 1, &plan, &[Arc::clone(&region)], 1));
        let seen = channel.own.as_seen();
        let mut sender = Sender::new(channel);
        sender.turn(&lane, &mut (1 << 20)).unwrap();
        Self { lane, sender, region, seen, peer, _memory: memory }
    }

    /// The region is deregistered, and the lane ends for it.
    fn withdraw(&mut self) {
        self.region.gate.close();
        assert!(!self.region.gate.is_drained(), "nothing of it was read");
        let outcome = self.sender.turn(&self.lane, &mut 1);
        assert!(matches!(outcome, Err(LaneError::SourceGone)), "{outcome:?}");
        self.sender.end();
    }

    #[track_caller]
    fn assert_drains(&self) {
        let since = Instant::now();
        while !self.region.gate.is_drained() {
            assert!(since.elapsed() < HUNG, "the fence waits for the other side");
            thread::sleep(PAUSE);
        }
    }
}

#[test]
fn what_was_not_read_is_given_back_at_once_where_nobody_copies() {
    let mut scene = Scene::new();
    assert!(!scene.seen.is_withdrawn());
    scene.withdraw();
    assert!(scene.region.gate.is_drained());
    assert!(scene.seen.is_withdrawn(), "who copies would not hear of it");
}

#[test]
fn a_copy_that_is_under_way_is_waited_for() {
    let mut scene = Scene::new();
    let copying = scene.peer.own.copying();
    scene.region.gate.close();
    assert!(scene.sender.turn(&scene.lane, &mut 1).is_err());
    scene.sender.end();
    assert!(!scene.region.gate.is_drained(), "it may copy what is written there next");
    drop(copying);
    scene.assert_drains();
}

#[test]
fn a_copy_without_end_is_not() {
    let mut scene = Scene::new();
    std::mem::forget(scene.peer.own.copying());
    scene.withdraw();
    scene.assert_drains();
}
