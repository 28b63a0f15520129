//! Connecting: one relation a pair, whoever dials and however often.

use std::net::TcpListener;
use std::sync::Barrier;

use kvx::error::{Cause, HandshakeError, Operation};
use kvx::transport::MemoryKind;

use crate::fabric::{Fabric, SOON};
use crate::memory::{Memory, READ_WRITE, add};
use crate::probe::Probe;

pub(crate) fn two_engines_that_add_each_other_at_once_reach_each_other(fabric: &dyn Fabric) {
    for round in 0..25 {
        let (a, b) = fabric.pair();
        let begin = Barrier::new(2);
        std::thread::scope(|scope| {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    if round % 3 == 0 {
                        from.connect(to.local_addr()).wait().unwrap();
                    }
                    Probe::new(from, to).rounds(2);
                });
            }
        });
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    }
}

pub(crate) fn many_connects_to_one_address_are_one_peer(fabric: &dyn Fabric) {
    for _ in 0..10 {
        let (a, b) = fabric.pair();
        let begin = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    begin.wait();
                    let peer = a.connect(b.local_addr()).wait().unwrap();
                    assert_eq!(peer.identity(), Some((b.id(), b.incarnation())));
                    peer.notify("here").wait().unwrap();
                });
            }
        });
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
        for _ in 0..8 {
            assert!(b.wait_notification(crate::fabric::LONG).is_some());
        }
        assert!(b.poll_notification().is_none());
        Probe::new(&a, &b).rounds(1);
    }
}

pub(crate) fn an_engine_does_not_connect_to_itself(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let own = a.add_peer(&a.metadata([]).unwrap()).unwrap_err();
    let dialed = a.connect(a.local_addr()).wait().unwrap_err();
    for error in [own, dialed] {
        assert_eq!(error.operation, Operation::Connect);
        assert!(matches!(error.cause, Cause::Handshake(HandshakeError::SameEngine)), "{error}");
        assert!(error.peer.is_some());
    }
    assert!(a.peers().is_empty());
}

pub(crate) fn nobody_listens_there_and_the_connect_ends_by_its_deadline(fabric: &dyn Fabric) {
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = a.connect(nobody).wait().unwrap_err();
    // What stood in the way says more than that time was up.
    assert!(matches!(error.cause, Cause::Io { .. }), "{error}");
    assert_eq!(error.operation, Operation::Connect);
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    // An engine that is added and never comes up fails what was asked of it, by the deadline.
    let gone = fabric.engine("gone");
    let blob = gone.metadata([]).unwrap();
    let id = gone.id();
    drop(gone);
    let peer = a.add_peer(&blob).unwrap();
    for error in [peer.ready().wait().unwrap_err(), peer.notify("x").wait().unwrap_err()] {
        assert!(matches!(error.cause, Cause::Deadline { .. }), "{error}");
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(id));
    }
}

pub(crate) fn a_name_that_does_not_resolve_is_an_error(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let error = a.connect("no port").wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Io { .. }), "{error}");
    assert!(error.to_string().contains("no port"), "{error}");
}

pub(crate) fn peers_are_found_by_address_in_their_regions(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (first, second) = (Memory::new(&b, 100, READ_WRITE), Memory::new(&b, 100, READ_WRITE));
    let peer = add(&a, &b, &[&first, &second]);
    let base = second.region.address();
    let found =
        peer.find(MemoryKind::Host, base + 40, 60).map(|(region, offset)| (region.id, offset));
    assert_eq!(found, Some((second.region.id(), 40)));
    assert_eq!(peer.find(MemoryKind::Host, base + 41, 60), None);
    assert_eq!(peer.find(MemoryKind::Host, base + 40, u64::MAX), None);
}
