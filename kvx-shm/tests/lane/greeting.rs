//! Peers that greet by hand: what they say of themselves is found out, and no lane comes of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use kvx_core::transport::Lane;
use kvx_shm::{ShmOptions, ShmTransport};

use crate::scripted::*;

const GREETING: usize = 72;
const READY: u8 = 5;
const REFUSED: u8 = 2;

/// Where the fields of a greeting are.
const MAGIC: usize = 0;
const BOOT: usize = 8;
const NAMESPACE: usize = 24;
const PID: usize = 40;
const RING: usize = 44;

struct Listener {
    host: Arc<Host>,
    peer: TcpStream,
    /// What it has said. Given back, it names this very process, and so the listener's own ring.
    greeting: [u8; GREETING],
    _lane: Arc<dyn Lane>,
    _transport: Arc<ShmTransport>,
}

impl Listener {
    fn new() -> Self {
        let (near, mut peer) = streams();
        let host = Host::new(&[]);
        let transport = ShmTransport::new(ShmOptions::new().io_threads(1)).unwrap();
        let lane = open(&transport, near, &host);
        let mut greeting = [0; GREETING];
        peer.read_exact(&mut greeting).unwrap();
        Self { host, peer, greeting, _lane: lane, _transport: transport }
    }

    fn hear(&mut self) -> u8 {
        let mut said = [0];
        self.peer.read_exact(&mut said).unwrap();
        said[0]
    }

    /// Greets, and says to have answered; gives why the lane was refused.
    fn refused(change: impl FnOnce(&mut [u8; GREETING])) -> String {
        let mut listener = Self::new();
        let mut greeting = listener.greeting;
        change(&mut greeting);
        listener.peer.write_all(&greeting).unwrap();
        if listener.hear() == READY {
            listener.peer.write_all(&[READY]).unwrap();
            assert_eq!(listener.hear(), REFUSED);
        }
        listener.host.wait_closed()
    }
}

#[track_caller]
fn assert_refused(why: &str, change: impl FnOnce(&mut [u8; GREETING])) {
    let cause = Listener::refused(change);
    assert!(cause.contains(why), "{cause}, not {why}");
}

#[test]
fn what_is_not_at_the_same_place_is_refused_before_anything_is_looked_at() {
    assert_refused("another version", |greeting| greeting[MAGIC] = b'X');
    assert_refused("on another host", |greeting| greeting[BOOT + 3] ^= 1);
    assert_refused("another pid namespace", |greeting| greeting[NAMESPACE] ^= 1);
}

#[test]
fn what_is_not_within_reach_is_refused_with_the_reason() {
    for pid in [0, -1, i32::MIN] {
        let pid = pid.to_le_bytes();
        assert_refused("it has no pid", |greeting| greeting[PID..RING].copy_from_slice(&pid));
    }
    // No process has the highest pid there can be, and none as many descriptors.
    let highest = i32::MAX.to_le_bytes();
    // One that has died is not out of reach for ever.
    assert_refused("closed", |greeting| greeting[PID..RING].copy_from_slice(&highest));
    assert_refused("pidfd_getfd", |greeting| greeting[RING..RING + 4].copy_from_slice(&highest));
    let none = (-1_i32).to_le_bytes();
    assert_refused("no descriptor", |greeting| greeting[RING..RING + 4].copy_from_slice(&none));
    let other = std::fs::File::open("/proc/self/exe").unwrap();
    let number = other.as_raw_fd().to_le_bytes();
    let no_ring = |greeting: &mut [u8; GREETING]| greeting[RING..RING + 4].copy_from_slice(&number);
    assert_refused("not shared memory", no_ring);
}

/// Its own ring holds an answer, too, but the other side's.
#[test]
fn a_side_is_not_talked_into_reading_itself() {
    assert_refused("not the one it speaks for", |_| {});
}

#[test]
fn what_is_said_out_of_turn_ends_the_lane() {
    for said in [0, 1, 3, 4, 200] {
        let mut listener = Listener::new();
        listener.peer.write_all(&listener.greeting).unwrap();
        listener.peer.write_all(&[said]).unwrap();
        let cause = listener.host.wait_closed();
        assert!(cause.contains("nothing of the kind is due"), "{said}: {cause}");
    }
    let mut listener = Listener::new();
    listener.peer.write_all(&listener.greeting).unwrap();
    listener.peer.write_all(&[REFUSED]).unwrap();
    assert!(listener.host.wait_closed().contains("the other side does not reach"));
}

#[test]
fn a_greeting_that_is_cut_off_ends_the_lane() {
    let mut listener = Listener::new();
    listener.peer.write_all(&listener.greeting[..40]).unwrap();
    drop(listener.peer);
    assert_eq!(listener.host.wait_closed(), "closed");
}
