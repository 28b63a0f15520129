//! A restarted engine is a new peer: old handles fail, adding it again works under the same name,
//! and nothing of the old life is mistaken for the new.

use kvx::error::Cause;
use kvx::{Config, Engine, PostOptions, Rights, TransferOp};
use kvx_workers::relay::Relay;

use crate::fabric::{Fabric, LONG, unique};
use crate::memory::{Memory, READ_WRITE, add, prepare, span, transfer_and_check};
use crate::probe::Probe;

pub(crate) fn a_restarted_engine_is_reached_again_under_its_old_address(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let name = unique("b");
    let mut address = None;
    let mut incarnations = Vec::new();
    for _ in 0..4 {
        let b = restart(fabric, &name, address);
        address = Some(b.local_addr());
        assert!(!incarnations.contains(&b.incarnation()));
        incarnations.push(b.incarnation());
        let local = Memory::new(&a, 1000, Rights::empty());
        let remote = Memory::new(&b, 1000, READ_WRITE);
        let peer = add(&a, &b, &[&remote]);
        let pairs = [(span(0, 1, 900), span(0, 99, 900))];
        transfer_and_check(&peer, TransferOp::Write, &[&local], &[&remote], &pairs);
        assert_eq!(peer.identity(), Some((b.id(), b.incarnation())));
        let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
        b.shutdown();
        // The goodbye is on its way; the handle fails from then on.
        let error = loop {
            let outcome = prepared.post(PostOptions::new()).and_then(|transfer| transfer.wait());
            match outcome {
                Err(error) if matches!(error.cause, Cause::PeerClosed) => break error,
                outcome => assert!(matches!(
                    outcome,
                    Err(kvx::Error { cause: Cause::Refused(_) | Cause::PeerClosed, .. })
                )),
            }
        };
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
        assert!(peer.notify("old").wait().is_err());
        assert!(!peer.is_connected());
    }
}

pub(crate) fn an_engine_that_crashed_and_came_back_is_another_peer(fabric: &dyn Fabric) {
    // No goodbye gets through: neither by the road that is cut, nor by the one that leads nowhere.
    let (road, nowhere) = (Relay::new(), Relay::new());
    let a = fabric.engine_with("a", |config| nowhere.lead(config));
    let name = unique("b");
    let live = || {
        let b = fabric.build(road.lead(Config::default().name(&name).deadline(LONG))).unwrap();
        road.serve(b.local_addr());
        b
    };
    for _ in 0..3 {
        let old = live();
        let (local, remote) =
            (Memory::new(&a, 1000, Rights::empty()), Memory::new(&old, 1000, READ_WRITE));
        let peer = add(&a, &old, &[&remote]);
        let pairs = [(span(0, 0, 1000), span(0, 0, 1000))];
        transfer_and_check(&peer, TransferOp::Write, &[&local], &[&remote], &pairs);
        let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
        road.down();
        let (said, asked) = (peer.notify("old"), prepared.post(PostOptions::new().notify("old")));
        old.shutdown();
        let new = live();
        assert_eq!((new.id(), new.incarnation() == old.incarnation()), (old.id(), false));
        for error in [said.wait().unwrap_err(), asked.unwrap().wait().map(drop).unwrap_err()] {
            // What was written before the cut was noticed may have arrived, for all `a` knows.
            let cause = match &error.cause {
                Cause::DeliveryUnknown(cause) => cause,
                cause => cause,
            };
            assert!(matches!(cause, Cause::PeerRestarted), "{error}");
            assert_eq!(error.peer.and_then(|peer| peer.id()), Some(new.id()));
        }
        let error = prepared.post(PostOptions::new()).unwrap_err();
        assert!(matches!(error.cause, Cause::PeerRestarted), "{error}");
        let probe = Probe::new(&a, &new);
        probe.rounds(2);
        assert_eq!(probe.peer.identity(), Some((new.id(), new.incarnation())));
        assert_eq!(new.poll_notification(), None, "the old life's notification");
        probe.peer.notify("new").wait().unwrap();
        assert_eq!(&new.wait_notification(LONG).unwrap().bytes[..], b"new");
        road.down();
        // Until `a` has noticed, the blob of the next life could as well be an old one.
        while probe.peer.is_connected() {
            std::thread::yield_now();
        }
    }
}

pub(crate) fn notifications_for_the_old_life_do_not_reach_the_new(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let name = unique("b");
    let mut address = None;
    for round in 0..4_u8 {
        let b = restart(fabric, &name, address);
        address = Some(b.local_addr());
        let peer = a.add_peer(&b.metadata([]).unwrap()).unwrap();
        peer.notify(vec![round]).wait().unwrap();
        let first = b.wait_notification(LONG).unwrap();
        assert_eq!(&first.bytes[..], [round], "not what was said to this life");
        // More are said than the old life's user takes, up to its end and beyond.
        let said: Vec<_> = (0..50).map(|_| peer.notify(vec![100 + round])).collect();
        b.shutdown();
        let later: Vec<_> = (0..50).map(|_| peer.notify(vec![200 + round])).collect();
        for told in said.into_iter().chain(later) {
            if let Err(error) = told.wait() {
                assert!(
                    matches!(error.cause, Cause::PeerClosed | Cause::DeliveryUnknown(_)),
                    "{error}"
                );
            }
        }
    }
}

pub(crate) fn the_blob_of_an_old_life_is_refused_while_the_new_is_connected(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let name = unique("b");
    let old = restart(fabric, &name, None);
    let blob = old.metadata([]).unwrap();
    a.add_peer(&blob).unwrap().ready().wait().unwrap();
    let address = old.local_addr();
    drop(old);
    let new = restart(fabric, &name, Some(address));
    let probe = Probe::new(&a, &new);
    probe.rounds(1);
    let error = a.add_peer(&blob).unwrap_err();
    assert!(matches!(error.cause, Cause::PeerRestarted), "{error}");
    assert_eq!(error.peer.and_then(|peer| peer.id()), Some(new.id()));
    probe.rounds(2);
}

pub(crate) fn a_removed_peer_can_be_added_again(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    for _ in 0..10 {
        let probe = Probe::new(&a, &b);
        probe.rounds(1);
        let memory = Memory::new(&b, 1 << 20, READ_WRITE);
        let local = Memory::new(&a, 1 << 20, Rights::empty());
        let peer = add(&a, &b, &[&memory]);
        let pairs = vec![(span(0, 0, 1 << 20), span(0, 0, 1 << 20)); 256];
        let prepared = prepare(&peer, TransferOp::Read, &[&local], &pairs).unwrap();
        let read = prepared.post(PostOptions::new()).unwrap();
        peer.remove();
        local.poison();
        let error = read.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::PeerRemoved), "{error}");
        let error = peer.notify("gone").wait().unwrap_err();
        assert!(matches!(error.cause, Cause::PeerRemoved), "{error}");
        Probe::new(&a, &b).rounds(2);
        local.assert_poisoned();
    }
}

/// An engine of this name, at the old address if that is free.
fn restart(fabric: &dyn Fabric, name: &str, address: Option<std::net::SocketAddr>) -> Engine {
    let config = || Config::default().name(name).deadline(LONG);
    let again = address.and_then(|address| fabric.build(config().bind(address)).ok());
    again.unwrap_or_else(|| fabric.build(config()).unwrap())
}
