//! Nothing lands after the fence, nothing is read from memory that went away, and the lane lives
//! where it can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use kvx_core::error::Refusal;
use kvx_core::region::{Gate, Region};
use kvx_core::time::Time;
use kvx_core::transport::Lane;
use kvx_core::wire::{FRAME_HEADER_LEN, FrameHeader, FrameKind};
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::support::*;

const LEN: usize = 1 << 20;
/// How much of the payload goes before the fence.
const BEFORE: usize = 300_000;

struct Target {
    memory: Arc<Memory>,
    region: Arc<Region>,
    host: Arc<Host>,
    transport: Arc<TcpTransport>,
    peer: TcpStream,
    _lane: Arc<dyn Lane>,
}

impl Target {
    fn new() -> Self {
        let memory = Memory::new(LEN);
        let region = memory.region();
        let spare = Memory::new(64);
        let host = Host::new(&[&region, &spare.region()]);
        let transport = TcpTransport::new(TcpOptions::new()).unwrap();
        let (near, peer) = streams();
        let lane = open(&transport, near, &host);
        // The spare region outlives every test: it is never deregistered.
        std::mem::forget(spare);
        Self { memory, region, host, transport, peer, _lane: lane }
    }

    /// Sends a frame up to `BEFORE` bytes of its payload, waits until these have landed, fences,
    /// sends the rest, and checks that the frame is refused so, that nothing landed after the
    /// fence, and that the lane goes on.
    fn fence_inside_a_frame(&mut self, expiry: Time, fence: impl FnOnce(&Self), refusal: Refusal) {
        let payload: Vec<u8> = (0..LEN).map(|at| pattern(at, 7) & 0x7f).collect();
        // Many spans, so that the fence falls between two of them, inside one call's vector.
        let spans: Vec<_> =
            payload.chunks(1500).enumerate().map(|(at, bytes)| (0, at * 1500, bytes)).collect();
        let frame = write_bytes(1, expiry, &spans);
        let cut = frame.len() - LEN + BEFORE;
        self.peer.write_all(&frame[..cut]).unwrap();
        wait_received(&self.transport, cut as u64);
        assert!(self.memory.read(0, BEFORE) == payload[..BEFORE]);

        fence(self);
        // A slice first, after which the host must hear of it: it does not wait for the rest.
        self.peer.write_all(&frame[cut..cut + 10]).unwrap();
        self.host.wait(&refused(1, refusal));
        self.peer.write_all(&frame[cut + 10..]).unwrap();
        self.peer.write_all(&write_bytes(2, Time::NEVER, &[(1, 5, b"next")])).unwrap();
        if refusal != Refusal::Fenced {
            self.host.wait(&done(2));
        } else {
            // That gate stands before every frame of this host.
            self.host.wait(&refused(2, Refusal::Fenced));
        }
        let after = self.memory.read(BEFORE, LEN - BEFORE);
        assert!(after.iter().all(|byte| *byte == SENTINEL), "bytes landed after the fence");
        assert_eq!(self.host.events().len(), 4, "{:?}", self.host.events());
    }
}

#[test]
fn nothing_lands_after_the_regions_gate_closed() {
    let close = |target: &Target| {
        target.region.gate.close();
        assert!(target.region.gate.is_drained(), "no lease is held while nothing arrives");
    };
    Target::new().fence_inside_a_frame(Time::NEVER, close, Refusal::RegionClosed);
}

#[test]
fn nothing_lands_after_the_transfers_gate_closed() {
    let mut target = Target::new();
    let gate = Arc::new(Gate::new());
    target.host.guard(&[&Arc::new(Gate::new()), &gate]);
    target.fence_inside_a_frame(Time::NEVER, |_| gate.close(), Refusal::Fenced);
}

#[test]
fn nothing_lands_at_or_after_the_expiry() {
    let expire = |target: &Target| target.host.set_now(1000);
    Target::new().fence_inside_a_frame(Time::from_nanos(1000), expire, Refusal::Expired);
}

#[test]
fn a_frame_refused_inside_its_payload_is_acknowledged_without_a_wake() {
    let mut target = Target::new();
    target.host.acknowledge();
    target.peer.set_read_timeout(Some(HUNG)).unwrap();
    let expiry = Time::from_nanos(1000);
    for round in 1..=3 {
        target.host.set_now(1);
        let frame = write_bytes(round, expiry, &[(0, 0, &[7; 1000])]);
        target.peer.write_all(&frame[..500]).unwrap();
        wait_received(&target.transport, (round - 1) * frame.len() as u64 + 500);
        target.host.set_now(1000);
        target.peer.write_all(&frame[500..]).unwrap();
        let mut ack = [0; FRAME_HEADER_LEN];
        target.peer.read_exact(&mut ack).unwrap();
        assert_eq!(FrameHeader::decode(&ack).unwrap().processed, round);
    }
}

#[test]
fn unreachable_target_memory_is_a_refusal_and_the_lane_lives() {
    let mut target = Target::new();
    target.memory.protect(20);
    let payload = vec![0x11; LEN];
    target.peer.write_all(&write_bytes(1, Time::NEVER, &[(0, 0, &payload)])).unwrap();
    target.host.wait(&refused(1, Refusal::MemoryFault));
    let below = &[(0, 100, b"below".as_slice()), (0, 30 * PAGE, b"above")];
    target.peer.write_all(&write_bytes(2, Time::NEVER, below)).unwrap();
    target.host.wait(&done(2));
    assert_eq!(target.memory.read(100, 5), b"below");
    assert_eq!(target.memory.read(30 * PAGE, 6), b"above\xee");
    // A short frame all of which is unreachable, and one that begins so.
    target.peer.write_all(&write_bytes(3, Time::NEVER, &[(0, 20 * PAGE, b"x")])).unwrap();
    target.host.wait(&refused(3, Refusal::MemoryFault));
    let edge = 21 * PAGE - 1;
    target.peer.write_all(&write_bytes(4, Time::NEVER, &[(0, edge, b"xyz")])).unwrap();
    target.host.wait(&refused(4, Refusal::MemoryFault));
    target.peer.write_all(&write_bytes(5, Time::NEVER, &[(0, 0, b"still")])).unwrap();
    target.host.wait(&done(5));
    assert_eq!(target.memory.read(0, 5), b"still");
}

#[test]
fn a_span_outside_its_region_lands_nowhere() {
    let mut target = Target::new();
    target.peer.write_all(&write_bytes(1, Time::NEVER, &[(0, LEN - 3, b"four")])).unwrap();
    target.host.wait(&refused(1, Refusal::OutOfBounds));
    assert_eq!(target.memory.read(LEN - 4, 4), [SENTINEL; 4]);
}

/// A lane that is stuck inside a frame of 4 MiB, for its peer reads nothing.
fn stuck_sender() -> (Arc<Memory>, Arc<Region>, Arc<Host>, Arc<TcpTransport>, TcpStream) {
    let source = Memory::patterned(4 << 20, 3);
    let region = source.region();
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new().send_buffer(1 << 14)).unwrap();
    let (near, mut peer) = streams();
    let moves: Vec<Move> = (0..4).map(|at| (0, at << 20, 0, at << 20, 1 << 20)).collect();
    let local = [Arc::clone(&region)];
    host.push(frames(FrameKind::Write, 1, &plan(&moves), &local, 4));
    drop(open(&transport, near, &host));
    let mut head = [0; 64 + 4 * 16];
    peer.read_exact(&mut head).unwrap();
    (source, region, host, transport, peer)
}

/// What comes before the lane ends is the source's bytes.
fn drain(mut peer: TcpStream, source: &Memory) -> usize {
    let mut rest = Vec::new();
    // A reset after the bytes is an end as well.
    let _ = peer.read_to_end(&mut rest);
    assert!(rest == source.read(0, rest.len()));
    rest.len()
}

#[test]
fn a_source_that_is_deregistered_inside_a_frame_ends_the_lane() {
    let (source, region, host, _transport, peer) = stuck_sender();
    region.gate.close();
    assert!(drain(peer, &source) < source.len());
    assert_eq!(host.wait_closed(), "source memory went away inside a frame");
}

#[test]
fn unreachable_source_memory_ends_the_lane() {
    let source = Memory::patterned(64 * PAGE, 3);
    source.protect(40);
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, peer) = streams();
    let moves = [(0, 0, 0, 0, 64 * PAGE)];
    host.push(frames(FrameKind::Write, 1, &plan(&moves), &[source.region()], 1));
    let _lane = open(&transport, near, &host);
    assert_eq!(host.wait_closed(), "source memory went away inside a frame");
    drop(peer);
}
