//! However the stream is cut, the same bytes land; what is no stream of frames ends the lane.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kvx_core::id::Slot;
use kvx_core::time::Time;
use kvx_core::transport::{OutFrame, Transport};
use kvx_core::wire::frame::RawSpan;
use kvx_core::wire::{FrameKind, WireSpan};
use kvx_tcp::{TcpOptions, TcpTransport};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::support::*;

#[test]
fn a_peer_that_writes_byte_by_byte_is_understood() {
    let memory = Memory::new(200);
    let host = Host::new(&[&memory.region()]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let _lane = open(&transport, near, &host);
    for transfer in 1..4 {
        let frame = write_bytes(transfer, Time::NEVER, &[(0, 10, b"hello"), (0, 100, b"world")]);
        frame.iter().for_each(|byte| peer.write_all(&[*byte]).unwrap());
    }
    host.wait(&done(3));
    assert_eq!(memory.read(9, 7), b"\xeehello\xee");
    assert_eq!(memory.read(99, 7), b"\xeeworld\xee");
}

#[test]
fn a_peer_that_reads_byte_by_byte_gets_the_same_stream() {
    let source = Memory::patterned(40_000, 1);
    let host = Host::new(&[]);
    let transport = TcpTransport::new(tiny()).unwrap();
    let (near, mut peer) = streams();
    let moves: Vec<Move> = (0..50).map(|at| (0, at * 800, 0, at * 800, 777)).collect();
    host.push(frames(FrameKind::Write, 1, &plan(&moves), &[source.region()], 50));
    let _lane = open(&transport, near, &host);

    let payload: Vec<Vec<u8>> = moves.iter().map(|at| source.read(at.1, at.4)).collect();
    let spans: Vec<_> =
        moves.iter().zip(&payload).map(|(at, bytes)| (0, at.3, bytes.as_slice())).collect();
    for expected in write_bytes(1, Time::NEVER, &spans) {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [expected]);
    }
}

#[test]
fn headers_and_tables_that_leave_in_pieces_are_whole() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new().send_buffer(1 << 17)).unwrap();
    let (near, mut peer) = streams();
    // Requests have no payload: all that a full socket cuts is headers and tables.
    let moves: Vec<Move> = (0..300_000).map(|at| (0, at * 3, 0, at * 2, 1)).collect();
    let frames = frames(FrameKind::ReadRequest, 1, &plan(&moves), &[], 1000);
    let mut expected = Vec::new();
    for frame in &frames {
        let OutFrame::ReadRequest(frame) = frame else { panic!("{frame:?}") };
        expected.extend(frame.header.encode());
        let first = frame.header.first_run as usize;
        for run in frame.plan.runs(first..first + 1000) {
            let span = WireSpan { slot: Slot(0), len: 1, offset: run.remote_offset };
            expected.extend_from_slice(RawSpan::from(span).as_bytes());
        }
    }
    host.push(frames);
    let _lane = open(&transport, near, &host);
    // Until the socket is full: the peer reads nothing.
    let mut sent = 0;
    while sent == 0 || transport.counters().sent.bytes > sent {
        sent = transport.counters().sent.bytes;
        thread::sleep(Duration::from_millis(20));
    }
    let mut got = vec![0; expected.len()];
    peer.read_exact(&mut got).unwrap();
    assert!(got == expected, "the stream is another");
}

#[test]
fn garbage_ends_the_lane_once_with_a_violation() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let lane = open(&transport, near, &host);
    peer.write_all(b"GET / HTTP/1.1\r\nHost: a.name.that.fills.up.a.whole.header\r\n\r\n......")
        .unwrap();
    let cause = host.wait_closed();
    assert!(cause.contains("frame"), "{cause}");
    // The lane is ended for good: nothing that its holder does is heard any more.
    lane.close(kvx_core::error::LaneError::SourceGone);
    lane.wake();
    lane.drive(1 << 20);
    transport.shutdown();
    assert_eq!(host.wait_closed(), cause);
    assert_eq!(transport.counters().lanes, 0);
}

#[test]
fn a_table_that_breaks_the_rules_ends_the_lane() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let _lane = open(&transport, near, &host);
    let mut frame = write_bytes(1, Time::NEVER, &[(0, 0, b"four")]);
    // The span's length, no longer the payload's.
    frame[68] = 5;
    peer.write_all(&frame).unwrap();
    let cause = host.wait_closed();
    assert!(cause.contains("span"), "{cause}");
}

#[test]
fn only_an_end_between_frames_is_clean() {
    let frame = write_bytes(1, Time::NEVER, &[(0, 0, b"hello")]);
    for cut in [0, 1, 63, 64, 70, 80, 84, frame.len()] {
        let memory = Memory::new(16);
        let host = Host::new(&[&memory.region()]);
        let transport = TcpTransport::new(TcpOptions::new()).unwrap();
        let (near, mut peer) = streams();
        let _lane = open(&transport, near, &host);
        peer.write_all(&frame[..cut]).unwrap();
        drop(peer);
        let clean = cut == 0 || cut == frame.len();
        let expected = if clean { "closed" } else { "the peer ended the lane inside a frame" };
        assert_eq!(host.wait_closed(), expected, "cut at {cut}");
        assert_eq!(host.events().contains(&done(1)), cut == frame.len());
    }
}

#[derive(Clone, Debug)]
struct Case {
    /// For each frame its spans: a region, the gap before it, its length.
    frames: Vec<Vec<(bool, usize, usize)>>,
    /// Where the stream is cut, over and over.
    pieces: Vec<usize>,
    turn_bytes: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let span = (any::<bool>(), 0usize..9, 1usize..400);
    let frame = prop::collection::vec(span, 1..20);
    let frames = prop::collection::vec(frame, 1..6);
    let pieces = prop::collection::vec(1usize..700, 1..8);
    (frames, pieces, 1usize..3000).prop_map(|(frames, pieces, turn_bytes)| Case {
        frames,
        pieces,
        turn_bytes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn however_the_stream_is_cut_the_same_bytes_land(case in case()) {
        const LEN: usize = 6 * 20 * 410;
        let memories = [Memory::new(LEN), Memory::new(LEN)];
        let mut model = [vec![SENTINEL; LEN], vec![SENTINEL; LEN]];
        let regions = memories.each_ref().map(|memory: &Arc<Memory>| memory.region());
        let host = Host::new(&regions.each_ref());

        let mut stream = Vec::new();
        let (mut at, mut seed) = (0, 0);
        for (index, spans) in case.frames.iter().enumerate() {
            let mut parts = Vec::new();
            for (second, gap, len) in spans.iter().copied() {
                at += gap;
                seed += 1;
                let bytes: Vec<u8> = (0..len).map(|at| pattern(at, seed)).collect();
                model[usize::from(second)][at..at + len].copy_from_slice(&bytes);
                parts.push((u32::from(second), at, bytes));
                at += len;
            }
            let parts: Vec<_> = parts.iter().map(|(slot, at, bytes)| (*slot, *at, &bytes[..])).collect();
            stream.extend(write_bytes(index as u64 + 1, Time::NEVER, &parts));
        }

        let transport = TcpTransport::new(TcpOptions::new().turn_bytes(case.turn_bytes)).unwrap();
        let (near, mut peer) = streams();
        let _lane = open(&transport, near, &host);
        let mut rest = &stream[..];
        for piece in case.pieces.iter().copied().cycle() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            peer.write_all(now).unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
            thread::yield_now();
        }
        host.wait(&done(case.frames.len() as u64));
        for (memory, model) in memories.iter().zip(&model) {
            prop_assert!(memory.all() == *model);
        }
    }
}
