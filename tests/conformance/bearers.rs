//! Engines that let in who holds their metadata: those reach them and each other, nobody else does, and
//! none of them can take another's place.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use kvx::error::{Cause, HandshakeError, Invalid};
use kvx::{Config, Engine, EngineId, Incarnation, Peer, PostOptions, Rights, TransferOp};
use kvx_core::id::Association;
use kvx_core::proto::{Auth, Dialer, LocalIdentity};
use kvx_core::time::Time;
use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage, Reject};
use kvx_core::wire::metadata::{Metadata, MetadataSecret};
use kvx_workers::relay::Relay;

use crate::auth::KeyFile;
use crate::fabric::{Fabric, LONG, SOON, unique};
use crate::memory::{Memory, READ_WRITE, add, prepare, span, transfer_and_check};
use crate::probe::Probe;

pub(crate) fn who_holds_the_metadata_connects_and_nobody_else(fabric: &dyn Fabric) {
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let b = by_metadata(fabric, "b");
    // The key that engines of the user share is the one that `a` has.
    let error = a.connect(b.local_addr()).wait().unwrap_err();
    let method = Cause::Handshake(HandshakeError::Method {
        ours: "shared auth key",
        theirs: "metadata secret",
    });
    assert_eq!(error.cause.to_string(), method.to_string());
    let own = MetadataSecret::new([7; MetadataSecret::LEN]);
    for secret in [None, Some(own)] {
        let peer = a.add_peer(&forged(&b, |metadata| metadata.secret = secret)).unwrap();
        is_kept_out(&peer, &b);
    }
    Probe::new(&a, &b).rounds(2);
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    // The other way the keys of both are as they ever were.
    let c = by_metadata(fabric, "c");
    Probe::new(&c, &fabric.engine("d")).rounds(1);
}

pub(crate) fn the_metadata_of_an_older_life_opens_nothing(fabric: &dyn Fabric) {
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let name = unique("b");
    let build = |config: Config| fabric.build(config.name(&name).metadata_auth(true));
    let old = build(Config::default()).unwrap();
    let (address, blob) = (old.local_addr(), old.metadata([]).unwrap());
    drop(old);
    let new = build(Config::default().bind(address)).unwrap();
    is_kept_out(&a.add_peer(&blob).unwrap(), &new);
    Probe::new(&a, &new).rounds(1);
}

pub(crate) fn who_holds_the_auth_key_connects_too_where_one_is_named(fabric: &dyn Fabric) {
    let key = KeyFile::new(b"the key of some engines");
    let b = fabric.engine_with("b", |config| config.metadata_auth(true).auth_key_file(&key.path));
    let keyed = key.engine(fabric);
    let peer = keyed.connect(b.local_addr()).wait().unwrap();
    peer.notify("by the key").wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"by the key");
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let error = a.connect(b.local_addr()).wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Handshake(HandshakeError::WrongKey)), "{error}");
    Probe::new(&a, &b).rounds(1);
    // It dials those with the key that do not say how else.
    Probe::new(&b, &key.engine(fabric)).rounds(1);
}

pub(crate) fn a_peer_that_was_not_added_back_is_served_both_ways(fabric: &dyn Fabric) {
    let (d, p) = (by_metadata(fabric, "d"), by_metadata(fabric, "p"));
    let probe = Probe::new(&d, &p);
    probe.rounds(2);
    probe.peer.notify("read").wait().unwrap();
    let heard = p.wait_notification(LONG).unwrap();
    assert_eq!((&heard.bytes[..], heard.engine()), (&b"read"[..], Some(d.id())));
    let back = p.peers().into_iter().find(|peer| peer.identity().unwrap().0 == d.id()).unwrap();
    back.notify("answer").wait().unwrap();
    let answer = d.wait_notification(LONG).unwrap();
    assert_eq!((&answer.bytes[..], answer.engine()), (&b"answer"[..], Some(p.id())));
    // Added later, it is the same peer.
    let (local, remote) =
        (Memory::new(&p, 1000, Rights::empty()), Memory::new(&d, 1000, READ_WRITE));
    let added = add(&p, &d, &[&remote]);
    assert_eq!(added.identity(), back.identity());
    let pairs = [(span(0, 0, 1000), span(0, 0, 1000))];
    transfer_and_check(&added, TransferOp::Write, &[&local], &[&remote], &pairs);
    assert_eq!((d.peers().len(), p.peers().len()), (1, 1));
    probe.rounds(2);
}

pub(crate) fn engines_that_add_each_other_at_once_reach_each_other(fabric: &dyn Fabric) {
    for round in 0..50 {
        // Of some pairs only one lets in who holds its metadata: with the lower id, or the higher.
        let b = fabric.engine_with("b", |config| config.metadata_auth(round % 2 == 0));
        let a = by_metadata(fabric, "a");
        let begin = Barrier::new(2);
        std::thread::scope(|scope| {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    Probe::new(from, to).rounds(2);
                });
            }
        });
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
    }
}

pub(crate) fn a_lost_connection_is_dialed_again_by_the_side_that_can(fabric: &dyn Fabric) {
    let relay = Relay::new();
    let d = by_metadata(fabric, "d");
    let p = fabric.engine_with("p", |config| relay.lead(config).metadata_auth(true));
    relay.serve(p.local_addr());
    let probe = Probe::new(&d, &p);
    probe.rounds(1);
    let back = p.peers().remove(0);
    for round in 0..10_u8 {
        // Of both sides one has something to say, and only `d` knows how to get in.
        relay.cut_all();
        let (said, answered) = (probe.peer.notify(vec![round]), back.notify(vec![round]));
        said.wait().unwrap();
        answered.wait().unwrap();
        for engine in [&d, &p] {
            assert_eq!(engine.wait_notification(LONG).unwrap().bytes[..], [round]);
            assert_eq!(engine.poll_notification(), None, "it came twice");
        }
        probe.rounds(1);
    }
    assert_eq!((d.peers().len(), p.peers().len()), (1, 1));
}

pub(crate) fn a_restarted_engine_is_added_again(fabric: &dyn Fabric) {
    let a = by_metadata(fabric, "a");
    let name = unique("b");
    let mut address = None;
    for _ in 0..4 {
        let build = |config: Config| fabric.build(config.metadata_auth(true).name(&name));
        let again = address.and_then(|address| build(Config::default().bind(address)).ok());
        let b = again.unwrap_or_else(|| build(Config::default()).unwrap());
        address = Some(b.local_addr());
        let there = Probe::new(&a, &b);
        there.rounds(1);
        assert_eq!(there.peer.identity(), Some((b.id(), b.incarnation())));
        // It may come by itself as well, and be known.
        Probe::new(&b, &a).rounds(1);
        let prepared = there.peer.notify("last");
        b.shutdown();
        let _ = prepared.wait();
        while there.peer.is_connected() {
            std::thread::yield_now();
        }
        assert!(there.peer.notify("late").wait().is_err());
    }
}

pub(crate) fn a_restarted_engine_comes_back_by_itself(fabric: &dyn Fabric) {
    let p = by_metadata(fabric, "p");
    let name = unique("d");
    let mut lives = Vec::new();
    for _ in 0..4 {
        let d = by_metadata_named(fabric, &name);
        lives.push(d.incarnation());
        let probe = Probe::new(&d, &p);
        probe.rounds(1);
        assert_eq!(p.peers().len(), 1);
        assert_eq!(p.peers()[0].identity(), Some((d.id(), *lives.last().unwrap())));
    }
}

pub(crate) fn who_begins_anew_has_what_was_its_own_if_it_can_be_told_from_others(
    fabric: &dyn Fabric,
) {
    let b = by_metadata(fabric, "b");
    for is_known in [false, true] {
        let a = by_metadata(fabric, "a");
        for _ in 0..5 {
            let probe = Probe::new(&a, &b);
            probe.rounds(1);
            let back = if is_known { add(&b, &a, &[]) } else { b.peers().remove(0) };
            back.notify("before").wait().unwrap();
            assert_eq!(&a.wait_notification(LONG).unwrap().bytes[..], b"before");
            probe.peer.remove();
            Probe::new(&a, &b).rounds(1);
            // Any other that holds the metadata of `b` could say that it is this life of `a`.
            let outcome = back.notify("after").wait();
            if is_known {
                outcome.unwrap();
                assert_eq!(&a.wait_notification(LONG).unwrap().bytes[..], b"after");
            } else {
                let error = outcome.unwrap_err();
                assert!(matches!(error.cause, Cause::PeerReset), "{error}");
            }
            assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
        }
        let peers = [&a, &b].map(|engine| engine.peers().remove(0));
        peers.iter().for_each(|peer| peer.remove());
    }
}

pub(crate) fn nobody_takes_the_name_of_a_connected_engine(fabric: &dyn Fabric) {
    let b = by_metadata(fabric, "b");
    let name = unique("a");
    let a = by_metadata_named(fabric, &name);
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    // One that holds the same metadata, under the same name: with metadata of its own, and without.
    for metadata_auth in [true, false] {
        let config = Config::default().name(&name).deadline(SOON).metadata_auth(metadata_auth);
        let other = fabric.build(config).unwrap();
        assert_eq!(other.id(), a.id());
        let peer = other.add_peer(&b.metadata([]).unwrap()).unwrap();
        is_kept_out(&peer, &b);
        probe.rounds(2);
        assert_eq!(b.peers().len(), 1);
        assert_eq!(b.peers()[0].identity(), Some((a.id(), a.incarnation())));
        // Nor does its metadata, in the hands of `b`'s user.
        let error = b.add_peer(&other.metadata([]).unwrap()).unwrap_err();
        assert!(matches!(error.cause, Cause::PeerRestarted), "{error}");
    }
    // Nor one that says it is this very life of it.
    let back = b.peers().remove(0);
    for incarnation in [a.incarnation(), Incarnation([7; 16])] {
        for own in [None, Some(&secret_of(&b))] {
            let knocked = knock(&b, (a.id(), incarnation), own);
            assert_eq!(knocked, Err(HandshakeError::NameTaken));
        }
    }
    back.notify("still you").wait().unwrap();
    assert_eq!(&a.wait_notification(LONG).unwrap().bytes[..], b"still you");
    assert!(probe.peer.is_connected());
    // Once it has gone, the name is free.
    drop((probe, a));
    let next = by_metadata_named(fabric, &name);
    Probe::new(&next, &b).rounds(1);
}

pub(crate) fn forged_metadata_changes_nothing_between_those_that_are_connected(
    fabric: &dyn Fabric,
) {
    let lie = |metadata: &mut Metadata| {
        metadata.secret = Some(MetadataSecret::new([7; MetadataSecret::LEN]));
        metadata.addresses = vec!["127.0.0.1:1".parse().unwrap()];
    };
    let relay = Relay::new();
    let a = by_metadata(fabric, "a");
    let b = fabric.engine_with("b", |config| relay.lead(config).metadata_auth(true));
    relay.serve(b.local_addr());
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    for (at, of) in [(&a, &b), (&b, &a)] {
        let error = at.add_peer(&forged(of, lie)).unwrap_err();
        let taken = matches!(error.cause, Cause::Handshake(HandshakeError::NameTaken));
        assert!(taken, "{error}");
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(of.id()));
        probe.rounds(1);
    }
    // What was known before still leads there.
    relay.cut_all();
    probe.rounds(1);
    add(&b, &a, &[]).notify("here").wait().unwrap();
    assert_eq!(&a.wait_notification(LONG).unwrap().bytes[..], b"here");
}

pub(crate) fn metadata_tells_its_engine_from_those_that_hold_only_this_ones(fabric: &dyn Fabric) {
    let (a, b) = (by_metadata(fabric, "a"), by_metadata(fabric, "b"));
    // It cannot be reached, and has to come by itself.
    let nowhere = |metadata: &mut Metadata| {
        metadata.addresses = vec!["127.0.0.1:1".parse().unwrap()];
    };
    let there = b.add_peer(&forged(&a, nowhere)).unwrap();
    let said = there.notify("for a alone");
    let life = (a.id(), a.incarnation());
    for own in [None, Some(MetadataSecret::new([7; MetadataSecret::LEN])), Some(secret_of(&b))] {
        let knocked = loop {
            match knock(&b, life, own.as_ref()) {
                // While `b` dials in vain.
                Err(HandshakeError::Duplicate) => {}
                other => break other,
            }
        };
        assert_eq!(knocked, Err(HandshakeError::WrongKey));
    }
    Probe::new(&a, &b).rounds(1);
    said.wait().unwrap();
    assert_eq!(&a.wait_notification(LONG).unwrap().bytes[..], b"for a alone");
    assert_eq!(b.peers().len(), 1);
}

pub(crate) fn off_loopback_no_key_is_required(fabric: &dyn Fabric) {
    let everywhere = || {
        Config::default().name(unique("a")).bind("0.0.0.0:0".parse().unwrap()).metadata_auth(true)
    };
    let [a, b] = [(); 2].map(|()| fabric.build(everywhere()).unwrap());
    Probe::new(&a, &b).rounds(1);
    Probe::new(&b, &a).rounds(1);
    // It has nothing for those that do not let in who holds their metadata, and says so at once.
    let keyed = fabric.engine("keyed");
    let added = a.add_peer(&keyed.metadata([]).unwrap()).unwrap_err();
    let dialed = a.connect(keyed.local_addr()).wait().unwrap_err();
    for error in [added, dialed] {
        let told =
            matches!(error.cause, Cause::Invalid(Invalid::Field { field: "auth_key_file", .. }));
        assert!(told && error.peer.is_some(), "{error}");
    }
    // Such a one may come, and is served; then it is known without a key.
    let probe = Probe::new(&keyed, &a);
    probe.rounds(1);
    let back = add(&a, &keyed, &[]);
    back.notify("known").wait().unwrap();
    assert_eq!(&keyed.wait_notification(LONG).unwrap().bytes[..], b"known");
}

pub(crate) fn regions_are_added_to_a_known_peer(fabric: &dyn Fabric) {
    let (a, b) = (by_metadata(fabric, "a"), by_metadata(fabric, "b"));
    let local = Memory::new(&a, 1000, Rights::empty());
    for _ in 0..3 {
        let remote = Memory::new(&b, 1000, READ_WRITE);
        let peer = add(&a, &b, &[&remote]);
        let pairs = [(span(0, 0, 1000), span(0, 0, 1000))];
        transfer_and_check(&peer, TransferOp::Write, &[&local], &[&remote], &pairs);
        // Without the secret it says no less of the regions.
        let blob = b.metadata([&remote.region]).unwrap();
        let mut metadata = Metadata::decode(&blob).unwrap();
        metadata.secret = None;
        let peer = a.add_peer(&metadata.encode().unwrap()).unwrap();
        let write = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
        write.post(PostOptions::new()).unwrap().wait().unwrap();
    }
    assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
}

fn by_metadata(fabric: &dyn Fabric, name: &str) -> Engine {
    fabric.engine_with(name, |config| config.metadata_auth(true))
}

fn by_metadata_named(fabric: &dyn Fabric, name: &str) -> Engine {
    fabric.build(Config::default().name(name).deadline(LONG).metadata_auth(true)).unwrap()
}

/// What lets others in at an engine.
fn secret_of(engine: &Engine) -> MetadataSecret {
    let metadata = Metadata::decode(&engine.metadata([]).unwrap()).unwrap();
    metadata.secret.unwrap()
}

/// Shakes hands with an engine, whose metadata it holds, under this id and incarnation.
fn knock(
    engine: &Engine,
    (id, incarnation): (EngineId, Incarnation),
    own: Option<&MetadataSecret>,
) -> Result<(), HandshakeError> {
    // Later than anything that the one has said whose name it is.
    static CLOCK: AtomicU64 = AtomicU64::new(1 << 62);
    let now = Time::from_nanos(CLOCK.fetch_add(1, Ordering::Relaxed));
    let identity = LocalIdentity {
        engine: id,
        incarnation,
        name: "impostor".into(),
        addresses: Vec::new(),
        transports: Vec::new(),
        notification_window: 1 << 20,
    };
    let auth = Auth::Metadata(secret_of(engine));
    let (dialer, hello) = Dialer::new(&identity, &auth, Some(engine.id()), [1; 32], now)?;
    let mut stream = TcpStream::connect(engine.local_addr()).unwrap();
    stream.write_all(&hello).unwrap();
    let (bytes, welcome) = answer(&mut stream).unwrap();
    let dialer = dialer.marked(Association(1), own);
    let (_, confirm) = dialer.handle_welcome(now, &bytes, welcome)?;
    stream.write_all(&confirm).unwrap();
    match answer(&mut stream) {
        Some((_, HandshakeMessage::Reject(Reject { reason }))) => Err(reason),
        Some((_, other)) => panic!("{other:?}"),
        None => Ok(()),
    }
}

/// The next handshake message; `None` where another one comes.
fn answer(stream: &mut TcpStream) -> Option<(Vec<u8>, HandshakeMessage)> {
    let mut prefix = [0; HANDSHAKE_PREFIX_LEN];
    stream.read_exact(&mut prefix).unwrap();
    let (kind, len) = HandshakeMessage::decode_prefix(&prefix).ok()?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).unwrap();
    let message = HandshakeMessage::decode(kind, &body).unwrap();
    Some(([&prefix[..], &body].concat(), message))
}

/// An engine's metadata, changed.
fn forged(engine: &Engine, forge: impl FnOnce(&mut Metadata)) -> Vec<u8> {
    let mut metadata = Metadata::decode(&engine.metadata([]).unwrap()).unwrap();
    forge(&mut metadata);
    metadata.encode().unwrap()
}

/// What was asked of the peer fails by the deadline, and the engine there has heard nothing.
#[track_caller]
fn is_kept_out(peer: &Peer, engine: &Engine) {
    let error = peer.ready().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { .. } | Cause::Handshake(_)), "{error}");
    assert!(peer.notify("let me in").wait().is_err());
    assert!(engine.poll_notification().is_none());
    peer.remove();
}
