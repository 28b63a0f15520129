//! How lanes and transports begin and end.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use kvx_core::error::{LaneError, Violation};
use kvx_core::time::Time;
use kvx_core::transport::{Lane, LaneHost, Transport};
use kvx_core::wire::FrameKind;
use kvx_tcp::{TcpOptions, TcpTransport};

use crate::support::*;

#[test]
fn a_lane_may_be_closed_from_within_a_callback() {
    let memory = Memory::new(100);
    let host = Host::new(&[&memory.region()]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let slot: Arc<OnceLock<Arc<dyn Lane>>> = Arc::default();
    let own = Arc::clone(&slot);
    host.on_event(move |event| {
        if let (Event::Arrived(..), Some(lane)) = (event, own.get()) {
            lane.close(LaneError::SourceGone);
            lane.wake();
            lane.drive(1 << 20);
        }
        Ok(())
    });
    slot.set(open(&transport, near, &host)).unwrap();
    peer.write_all(&write_bytes(1, Time::NEVER, &[(0, 0, b"too late")])).unwrap();
    assert_eq!(host.wait_closed(), LaneError::SourceGone.to_string());
    assert_eq!(memory.all(), [SENTINEL; 100], "nothing lands on a lane that was closed");
    assert!(matches!(peer.read(&mut [0; 10]), Ok(0) | Err(_)));
}

#[test]
fn a_host_that_finds_a_violation_ends_the_lane() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let _lane = open(&transport, near, &host);
    host.on_event(|event| match event {
        Event::Acknowledged(got) => Err(Violation::Acknowledged { sent: 0, got: *got }),
        _ => Ok(()),
    });
    peer.write_all(&kvx_core::wire::FrameHeader::ack(3, 0).encode()).unwrap();
    assert_eq!(host.wait_closed(), "acknowledged 3 of 0");
}

#[test]
fn the_first_cause_of_an_end_stays() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, _peer) = streams();
    let lane = open(&transport, near, &host);
    lane.close(LaneError::SourceGone);
    lane.close(LaneError::Closed);
    assert_eq!(host.wait_closed(), LaneError::SourceGone.to_string());
}

#[test]
fn shutdown_ends_every_lane_before_it_returns() {
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let ends: Vec<_> = (0..20)
        .map(|_| {
            let host = Host::new(&[]);
            let (near, peer) = streams();
            (open(&transport, near, &host), host, peer)
        })
        .collect();
    assert_eq!(transport.counters().lanes, 20);
    transport.shutdown();
    for (lane, host, mut peer) in ends {
        assert_eq!(host.events(), [Event::Closed("closed".into())]);
        assert!(matches!(peer.read(&mut [0]), Ok(0)));
        lane.wake();
        lane.close(LaneError::SourceGone);
        drop(lane);
        assert_eq!(Arc::strong_count(&host), 1, "no thread holds the host any more");
    }
    assert_eq!(transport.counters().lanes, 0);
    transport.shutdown();

    let (near, _peer) = streams();
    let open = lane_open(near, true);
    let host: Arc<dyn LaneHost> = Host::new(&[]);
    assert!(matches!(transport.open(open, host), Err(LaneError::Closed)));
}

#[test]
fn the_descriptor_is_closed_with_the_lane_even_if_its_handle_stays() {
    let host = Host::new(&[]);
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, mut peer) = streams();
    let number = std::os::fd::AsRawFd::as_raw_fd(&near);
    let inode = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let socket = inode(number);
    let lane = open(&transport, near, &host);
    lane.close(LaneError::Closed);
    host.wait_closed();
    assert!(matches!(peer.read(&mut [0]), Ok(0)));
    assert_ne!(inode(number), socket);
}

#[test]
fn what_is_no_tcp_socket_is_refused() {
    let transport = TcpTransport::new(TcpOptions::new()).unwrap();
    let (near, _peer) = UnixStream::pair().unwrap();
    let host = Host::new(&[]);
    let dyn_host: Arc<dyn LaneHost> = Arc::clone(&host) as _;
    let open = lane_open(near, true);
    assert!(matches!(transport.open(open, dyn_host), Err(LaneError::Io(_))));
    transport.shutdown();
    assert!(host.events().is_empty());
}

#[test]
fn hundreds_of_lanes_share_two_threads() {
    const LANES: usize = 300;
    const LEN: usize = 20_000;
    let options = TcpOptions::new().io_threads(2).turn_bytes(4096);
    let transport = TcpTransport::new(options).unwrap();
    let source = Memory::patterned(LEN, 1);
    let local = [source.region()];
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let target = Memory::new(LEN);
            let (near, far) = streams();
            let receiving = Host::new(&[&target.region()]);
            let sending = Host::new(&[]);
            let far = open(&transport, far, &receiving);
            let near = open(&transport, near, &sending);
            (near, far, sending, receiving, target)
        })
        .collect();
    let moves: Vec<Move> = (0..20).map(|at| (0, at * 1000, 0, at * 1000, 1000)).collect();
    let plan = plan(&moves);
    for (near, _, sending, ..) in &lanes {
        sending.push(frames(FrameKind::Write, 1, &plan, &local, 7));
        near.wake();
    }
    for (.., receiving, target) in &lanes {
        receiving.wait_count(3, |event| *event == done(1));
        assert!(target.all() == source.all());
    }
    assert_eq!(transport.counters().lanes, 2 * LANES as u64);
}
