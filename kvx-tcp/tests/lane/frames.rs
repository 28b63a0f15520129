//! WRITE and READ land byte exact, in any shape, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kvx_core::id::TransferId;
use kvx_core::transport::{Lane, OutFrame};
use kvx_core::wire::{FrameHeader, FrameKind};
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::support::*;

/// `count` moves of uneven lengths, from and to shuffled places of two regions a side, that leave
/// gaps. Gives the regions' length too.
fn scattered(count: usize, longest: usize) -> (Vec<Move>, usize) {
    let stride = longest + 3;
    let place = |index: usize| (index * 7919) % count;
    let moves = (0..count).map(|index| {
        let len = 1 + (index * 31) % longest;
        let (from, to) = (place(index), place(index + 5));
        ((from % 2) as u32, from * stride + 1, (to % 2) as u32, to * stride, len)
    });
    (moves.collect(), count * stride + 1)
}

/// What the regions of the target must hold.
fn expected(moves: &[Move], sources: &[Arc<Memory>], targets: usize, len: usize) -> Vec<Vec<u8>> {
    let mut memories = vec![vec![SENTINEL; len]; targets];
    for (region, offset, slot, to, len) in moves.iter().copied() {
        let bytes = sources[region as usize].read(offset, len);
        memories[slot as usize][to..to + len].copy_from_slice(&bytes);
    }
    memories
}

struct Side {
    sources: Vec<Arc<Memory>>,
    targets: Vec<Arc<Memory>>,
    host: Arc<Host>,
}

impl Side {
    fn new(len: usize, seed: u8) -> Self {
        let sources = vec![Memory::patterned(len, seed), Memory::patterned(len, seed ^ 0x55)];
        let targets = vec![Memory::new(len), Memory::new(len)];
        let regions: Vec<_> = targets.iter().map(Memory::region).collect();
        let host = Host::new(&regions.iter().collect::<Vec<_>>());
        Self { sources, targets, host }
    }

    fn write(&self, transfer: u64, moves: &[Move], per_frame: usize) -> usize {
        let regions: Vec<_> = self.sources.iter().map(Memory::region).collect();
        let frames = frames(FrameKind::Write, transfer, &plan(moves), &regions, per_frame);
        let count = frames.len();
        self.host.push(frames);
        count
    }

    fn assert_holds(&self, memories: &[Vec<u8>]) {
        for (target, memory) in self.targets.iter().zip(memories) {
            assert!(target.all() == *memory, "memory differs");
        }
    }
}

fn is_done(event: &Event) -> bool {
    matches!(event, Event::Finished(_, Ok(())))
}

#[test]
fn scattered_writes_land_byte_exact() {
    let (moves, len) = scattered(4001, 900);
    for per_frame in [1, 100, 1024] {
        let transport = TcpTransport::new(TcpOptions::new()).unwrap();
        let (near, far) = streams();
        let (source, target) = (Side::new(len, 1), Side::new(len, 2));
        let count = source.write(1, &moves, per_frame);
        let _far = open(&transport, far, &target.host);
        let _near = open(&transport, near, &source.host);
        target.host.wait_count(count, is_done);
        target.assert_holds(&expected(&moves, &source.sources, 2, len));
        let counters = transport.counters();
        assert_eq!(counters.sent.frames, count as u64);
        assert_eq!(counters.sent.bytes, counters.received.bytes);
    }
}

#[test]
fn reads_are_answered_byte_exact() {
    let (moves, len) = scattered(3000, 500);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, far) = streams();
    let reader = Side::new(len, 3);
    let owned = [Memory::patterned(len, 4), Memory::patterned(len, 5)];
    let regions = owned.each_ref().map(Memory::region);
    let owner = Host::new(&regions.each_ref());
    let local: Vec<_> = reader.targets.iter().map(Memory::region).collect();

    let plan = plan(&moves);
    reader.host.expect_read(TransferId(9), &plan, &local);
    let requests = frames(FrameKind::ReadRequest, 9, &plan, &local, 700);
    let count = requests.len();
    reader.host.push(requests);
    let _far = open(&transport, far, &owner);
    let _near = open(&transport, near, &reader.host);
    reader.host.wait_count(count, is_done);

    let back: Vec<Move> = moves.iter().map(|&(l, lo, r, ro, len)| (r, ro, l, lo, len)).collect();
    reader.assert_holds(&expected(&back, &owned, 2, len));
}

#[test]
fn both_directions_go_on_at_once_through_tiny_buffers() {
    let (moves, len) = scattered(700, 3000);
    let transport = TcpTransport::new(tiny()).unwrap();
    let (near, far) = streams();
    let (left, right) = (Side::new(len, 6), Side::new(len, 7));
    let count = left.write(1, &moves, 300);
    assert_eq!(right.write(1, &moves, 300), count);
    let _far = open(&transport, far, &right.host);
    let _near = open(&transport, near, &left.host);
    left.host.wait_count(count, is_done);
    right.host.wait_count(count, is_done);
    left.assert_holds(&expected(&moves, &right.sources, 2, len));
    right.assert_holds(&expected(&moves, &left.sources, 2, len));
}

#[test]
fn a_finished_frame_is_acknowledged_without_a_wake() {
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, far) = streams();
    let (source, target) = (Side::new(4096, 8), Side::new(4096, 9));
    target.host.acknowledge();
    let lane = open(&transport, near, &source.host);
    let _far = open(&transport, far, &target.host);
    for round in 1..=50 {
        source.write(round, &[(0, 0, 0, 0, 64)], 1);
        lane.wake();
        source.host.wait(&Event::Acknowledged(round));
    }
}

#[test]
fn frames_that_many_threads_post_all_go() {
    const THREADS: usize = 4;
    const EACH: usize = 400;
    let transport = TcpTransport::new(TcpOptions::new().io_threads(1)).unwrap();
    let (near, far) = streams();
    let (source, target) = (Side::new(4096, 8), Side::new(4096, 9));
    let lane = open(&transport, near, &source.host);
    let _far = open(&transport, far, &target.host);
    let next = AtomicUsize::new(1);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (lane, source, next): (&dyn Lane, _, _) = (&*lane, &source, &next);
            scope.spawn(move || {
                for _ in 0..EACH {
                    let transfer = next.fetch_add(1, Ordering::Relaxed) as u64;
                    source.write(transfer, &[(0, 0, 0, 0, 40)], 1);
                    if index % 2 == 0 { lane.wake() } else { lane.drive(1 << 18) }
                }
            });
        }
    });
    target.host.wait_count(THREADS * EACH, is_done);
}

#[test]
fn a_thread_that_posts_sends_from_where_it_stands() {
    use std::io::Read;
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut far) = streams();
    let source = Side::new(8192, 8);
    let lane = open(&transport, near, &source.host);
    // The lane's first turn, in which there is nothing, must be over: it ends with this frame.
    source.host.push([OutFrame::Ack(FrameHeader::ack(1, 0))]);
    lane.wake();
    far.read_exact(&mut [0; 64]).unwrap();

    // Sent here, unless the I/O thread has not yet let go of that turn.
    for _ in 0..1000 {
        source.write(1, &[(0, 0, 0, 0, 5000)], 1);
        lane.drive(1 << 18);
        let mut bytes = vec![0; 64 + 16 + 5000];
        far.read_exact(&mut bytes).unwrap();
        assert!(bytes[80..] == source.sources[0].read(0, 5000));
        if source.host.senders().last() == Some(&thread::current().id()) {
            return;
        }
    }
    panic!("drive never sent");
}

#[test]
fn a_frame_posted_while_another_thread_stops_sending_is_not_lost() {
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, far) = streams();
    let (source, target) = (Side::new(4096, 8), Side::new(4096, 9));
    let _far = open(&transport, far, &target.host);
    let lane = open(&transport, near, &source.host);
    for transfer in 1..=20 {
        // Whoever holds the sending half has just been told that there is nothing, and has yet to
        // let go of it, when the frame is posted.
        let regions = [source.sources[0].region()];
        let posted = frames(FrameKind::Write, transfer, &plan(&[(0, 0, 0, 0, 64)]), &regions, 1);
        let (own, poster) = (Arc::clone(&source.host), Arc::clone(&lane));
        source.host.on_empty(move || {
            own.push(posted);
            thread::spawn(move || poster.drive(1 << 18)).join().unwrap();
        });
        lane.drive(1 << 18);
        target.host.wait(&done(transfer));
    }
}

#[test]
fn a_frame_for_an_unknown_slot_is_dropped_and_the_next_lands() {
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, far) = streams();
    let (source, target) = (Side::new(1 << 20, 8), Side::new(1 << 20, 9));
    source.write(1, &[(0, 0, 7, 0, 700_000)], 1);
    source.write(2, &[(0, 0, 1, 0, 100)], 1);
    let _far = open(&transport, far, &target.host);
    let _near = open(&transport, near, &source.host);
    target.host.wait(&done(2));
    target.assert_holds(&expected(&[(0, 0, 1, 0, 100)], &source.sources, 2, 1 << 20));
    assert!(!target.host.events().contains(&done(1)));
}
