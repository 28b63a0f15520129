//! An engine that shuts down in mid-transfer: its memory is fenced, the other side gets an error
//! that names peer, operation and cause, and goes on serving a third.

use kvx::error::{Cause, Error, Operation};
use kvx::{Engine, PostOptions, Rights, Room, SessionKey, Span, Transfer, TransferOp};

use crate::fabric::{Fabric, LONG};
use crate::layouts::Pool;
use crate::memory::{Memory, READ_WRITE, add, prepare, span};
use crate::probe::Probe;

const LEN: u64 = 1 << 20;

pub(crate) fn the_initiator_hears_of_a_target_that_shuts_down_in_mid_write(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (_local, remote, transfer) = case.begin(TransferOp::Write);
    case.b.shutdown();
    remote.poison();
    let error = transfer.wait().unwrap_err();
    case.assert_closed_by_b(&error, Operation::Write);
    case.a_serves_a_third(fabric);
    remote.assert_poisoned();
}

pub(crate) fn the_target_of_an_initiator_that_shuts_down_serves_on(fabric: &dyn Fabric) {
    for _ in 0..5 {
        let case = Case::new(fabric);
        let (_local, remote, transfer) = case.begin(TransferOp::Write);
        let gone = case.b.peers().remove(0);
        case.a.shutdown();
        let error = transfer.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::ShutDown), "{error}");
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(case.b.id()));
        // The target hears the goodbye, and of no new life of that engine after it.
        let error = loop {
            if let Err(error) = gone.notify("").wait() {
                break error;
            }
        };
        assert!(matches!(error.cause, Cause::PeerClosed | Cause::DeliveryUnknown(_)), "{error}");
        let third = fabric.engine("c");
        let probe = Probe::new(&third, &case.b);
        probe.rounds(4);
        remote.poison();
        probe.rounds(8);
        remote.assert_poisoned();
        let names: Vec<_> = case.b.peers().iter().map(|peer| peer.name().id()).collect();
        assert_eq!(names, [Some(third.id())]);
    }
}

pub(crate) fn the_initiator_hears_of_an_owner_that_shuts_down_in_mid_read(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (local, _remote, transfer) = case.begin(TransferOp::Read);
    case.b.shutdown();
    let error = transfer.wait().unwrap_err();
    case.assert_closed_by_b(&error, Operation::Read);
    local.poison();
    case.a_serves_a_third(fabric);
    local.assert_poisoned();
}

pub(crate) fn own_operations_end_when_the_engine_shuts_down(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (local, _remote, read) = case.begin(TransferOp::Read);
    let asked = case
        .probe
        .peer
        .find_rank(kvx::RankKey { instance: "none".to_owned(), dp: 0, pp: 0, tp: 0 }, LONG);
    let pool = Pool::small(&case.a);
    let sender = case.a.sender(session(1), &pool.pool, Some(LONG)).unwrap();
    let receiver = case.probe.peer.receiver(session(2), &pool.pool, 4, &[0], Some(LONG)).unwrap();
    case.a.shutdown();
    local.poison();
    for error in [
        read.wait().unwrap_err(),
        asked.wait().unwrap_err(),
        receiver.wait().unwrap_err(),
        sender.granted().wait().unwrap_err(),
    ] {
        assert!(matches!(error.cause, Cause::ShutDown), "{error}");
    }
    let third = fabric.engine("c");
    Probe::new(&third, &case.b).rounds(8);
    local.assert_poisoned();
}

pub(crate) fn a_session_hears_of_the_other_engines_shutdown(fabric: &dyn Fabric) {
    for sender_ends in [true, false] {
        let case = Case::new(fabric);
        let (from, to) = (Pool::small(&case.a), Pool::small(&case.b));
        let peer = case.b.connect(case.a.local_addr()).wait().unwrap();
        let receiver = peer.receiver(session(1), &to.pool, 4, &[1], Some(LONG)).unwrap();
        let sender = case.a.sender(session(1), &from.pool, Some(LONG)).unwrap();
        sender.granted().wait().unwrap();
        sender.write(0..1, &[0]).unwrap().wait().unwrap();
        let (error, operation, gone) = if sender_ends {
            case.a.shutdown();
            (receiver.wait().unwrap_err(), Operation::Receive, &case.a)
        } else {
            case.b.shutdown();
            (sender.finish("").wait().unwrap_err(), Operation::Send, &case.b)
        };
        assert!(matches!(error.cause, Cause::PeerClosed), "{error}");
        assert_eq!(error.operation, operation);
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(gone.id()));
    }
}

pub(crate) fn what_a_read_tells_leaves_before_the_goodbye(fabric: &dyn Fabric) {
    let b = fabric.engine("b");
    for round in 0..30_u8 {
        let a = fabric.engine("a");
        let (local, remote) =
            (Memory::new(&a, 4096, Rights::empty()), Memory::new(&b, 4096, READ_WRITE));
        let peer = add(&a, &b, &[&remote]);
        let pairs = [(span(0, 0, 4096), span(0, 0, 4096))];
        let read = prepare(&peer, TransferOp::Read, &[&local], &pairs).unwrap();
        peer.ready().wait().unwrap();
        // Long enough not to have left when the READ is done.
        let words = vec![round; 1 << 20];
        read.post(PostOptions::new().notify(words.clone())).unwrap().wait().unwrap();
        a.shutdown();
        let note = b.wait_notification(LONG).expect("a notification that was due");
        assert!(note.bytes == words);
    }
}

pub(crate) fn calls_after_the_shutdown_say_so(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let memory = Memory::new(&case.a, 8, Rights::empty());
    let pool = Pool::small(&case.a);
    let prepared =
        prepare(&case.probe.peer, TransferOp::Write, &[&memory], &[(span(0, 0, 8), span(0, 0, 8))])
            .unwrap();
    let blob = case.b.metadata([]).unwrap();
    case.a.shutdown();
    case.a.shutdown();
    let peer = &case.probe.peer;
    let outcomes: Vec<(&str, Option<Error>)> = vec![
        ("allocate", case.a.allocate(8, Rights::empty()).err()),
        ("add_peer", case.a.add_peer(&blob).err()),
        ("connect", case.a.connect(case.b.local_addr()).wait().err()),
        ("post", prepared.post(PostOptions::new()).err()),
        ("notify", peer.notify("x").wait().err()),
        ("ready", peer.ready().wait().err()),
        ("sender", case.a.sender(session(1), &pool.pool, None).err()),
        ("receiver", peer.receiver(session(1), &pool.pool, 4, &[0], None).err()),
        ("serve_rank", case.a.serve_rank(rank()).err()),
        ("register_rank", peer.register_rank(rank()).err()),
        ("find_rank", peer.find_rank(rank(), LONG).wait().err()),
        ("published", peer.published().wait().err()),
        ("publish", memory.region.publish().err()),
        ("deregister", memory.region.deregister().err()),
    ];
    for (call, error) in outcomes {
        let error = error.unwrap_or_else(|| panic!("{call} succeeded after the shutdown"));
        assert!(matches!(error.cause, Cause::ShutDown), "{call}: {error}");
    }
    assert_eq!(case.a.poll_notification(), None);
}

fn session(room: u64) -> SessionKey {
    SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 }
}

fn rank() -> kvx::RankKey {
    kvx::RankKey { instance: "instance".to_owned(), dp: 0, pp: 0, tp: 0 }
}

struct Case {
    a: Engine,
    b: Engine,
    probe: Probe,
}

impl Case {
    fn new(fabric: &dyn Fabric) -> Self {
        let (a, b) = fabric.pair();
        let probe = Probe::new(&a, &b);
        probe.rounds(1);
        Self { a, b, probe }
    }

    /// A transfer of four gigabytes, some way into it.
    fn begin(&self, op: TransferOp) -> (Memory, Memory, Transfer) {
        let local = Memory::new(&self.a, LEN, Rights::empty());
        let remote = Memory::new(&self.b, LEN, READ_WRITE);
        let peer = add(&self.a, &self.b, &[&remote]);
        let pairs: Vec<(Span, Span)> = vec![(span(0, 0, LEN), span(0, 0, LEN)); 4096];
        let prepared = prepare(&peer, op, &[&local], &pairs).unwrap();
        let transfer = prepared.post(PostOptions::new()).unwrap();
        self.probe.writes(2);
        (local, remote, transfer)
    }

    #[track_caller]
    fn assert_closed_by_b(&self, error: &Error, operation: Operation) {
        assert_eq!(error.operation, operation, "{error}");
        assert_eq!(error.peer.as_ref().and_then(|peer| peer.id()), Some(self.b.id()), "{error}");
        assert!(matches!(error.cause, Cause::PeerClosed), "{error}");
    }

    fn a_serves_a_third(&self, fabric: &dyn Fabric) {
        let third = fabric.engine("c");
        Probe::new(&self.a, &third).rounds(4);
        Probe::new(&third, &self.a).rounds(4);
    }
}
