//! Only what was allowed: forged, stale and excessive accesses are refused with their cause, touch
//! nothing, and do not end the peer.

use kvx::error::{Cause, Error, Operation, Refusal};
use kvx::{Engine, Peer, PostOptions, Rights, TransferOp};
use kvx_core::region::RegionKey;
use kvx_core::wire::metadata::Metadata;

use crate::fabric::Fabric;
use crate::memory::{
    Memory, Model, READ_WRITE, add, assert_same, prepare, span, transfer_and_check,
};
use crate::probe::Probe;

const LEN: u64 = 1 << 16;

pub(crate) fn a_region_without_the_right_to_write_is_not_written(fabric: &dyn Fabric) {
    let case = Case::new(fabric, Rights::REMOTE_READ);
    let peer = add(&case.a, &case.b, &[&case.remote]);
    case.refuses(&peer, TransferOp::Write, LEN, &[Refusal::NoRight]);
    transfer_and_check(&peer, TransferOp::Read, &[&case.local], &[&case.remote], &whole(LEN));
}

pub(crate) fn a_region_without_the_right_to_read_is_not_read(fabric: &dyn Fabric) {
    let case = Case::new(fabric, Rights::REMOTE_WRITE);
    let peer = add(&case.a, &case.b, &[&case.remote]);
    case.refuses(&peer, TransferOp::Read, LEN, &[Refusal::NoRight]);
    transfer_and_check(&peer, TransferOp::Write, &[&case.local], &[&case.remote], &whole(LEN));
}

pub(crate) fn a_region_for_grants_alone_serves_no_one_sided_transfer(fabric: &dyn Fabric) {
    let case = Case::new(fabric, Rights::empty());
    let peer = add(&case.a, &case.b, &[&case.remote]);
    case.refuses(&peer, TransferOp::Write, LEN, &[Refusal::NoRight]);
    case.refuses(&peer, TransferOp::Read, LEN, &[Refusal::NoRight]);
}

pub(crate) fn regions_that_are_listed_and_not_used_need_no_rights(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (unused, local) =
        (Memory::new(&a, 8, Rights::empty()), Memory::new(&a, 64, Rights::empty()));
    let closed: Vec<Memory> = (0..2).map(|_| Memory::new(&b, 64, Rights::empty())).collect();
    let open = Memory::new(&b, 64, READ_WRITE);
    let peer = add(&a, &b, &[&closed[0], &open, &closed[1]]);
    for op in [TransferOp::Write, TransferOp::Read] {
        let pairs = [(span(1, 3, 50), span(1, 9, 50))];
        let prepared = prepare(&peer, op, &[&unused, &local], &pairs).unwrap();
        prepared.post(PostOptions::new()).unwrap().wait().unwrap();
        assert_same(&local.bytes()[3..53], &open.bytes()[9..59], "what moved");
    }
    // Nor do they keep a transfer when they go.
    let pairs = [(span(1, 0, 64), span(1, 0, 64))];
    let prepared = prepare(&peer, TransferOp::Write, &[&unused, &local], &pairs).unwrap();
    unused.region.deregister().unwrap();
    closed.into_iter().for_each(|memory| memory.region.deregister().unwrap());
    prepared.post(PostOptions::new()).unwrap().wait().unwrap();
    assert_same(&open.bytes(), &local.bytes(), "what was written");
    // What is used still does.
    let peer = add(&a, &b, &[&open]);
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &[(span(0, 0, 8), span(0, 0, 8))]);
    local.region.deregister().unwrap();
    let error = prepared.unwrap().post(PostOptions::new()).unwrap_err();
    assert!(matches!(error.cause, Cause::RegionClosed), "{error}");
}

pub(crate) fn a_wrong_region_key_opens_nothing(fabric: &dyn Fabric) {
    let case = Case::new(fabric, READ_WRITE);
    let forged = case.add_forged(|metadata| metadata.regions[0].key = RegionKey::new([7; 16]));
    case.refuses(&forged, TransferOp::Write, LEN, &[Refusal::WrongKey]);
    case.refuses(&forged, TransferOp::Read, LEN, &[Refusal::WrongKey]);
}

pub(crate) fn a_right_key_after_a_wrong_one_opens_the_region(fabric: &dyn Fabric) {
    for _ in 0..10 {
        let case = Case::new(fabric, READ_WRITE);
        let forged = case.add_forged(|metadata| metadata.regions[0].key = RegionKey::new([7; 16]));
        let prepared = prepare(&forged, TransferOp::Write, &[&case.local], &whole(LEN)).unwrap();
        // The wrong key is on its way, or not yet, when the right one comes.
        let refused = prepared.post(PostOptions::new()).unwrap();
        let peer = add(&case.a, &case.b, &[&case.remote]);
        let pairs = whole(LEN);
        transfer_and_check(&peer, TransferOp::Write, &[&case.local], &[&case.remote], &pairs);
        transfer_and_check(&peer, TransferOp::Read, &[&case.local], &[&case.remote], &pairs);
        // The transfer itself may have met either.
        if let Err(error) = refused.wait() {
            assert!(matches!(error.cause, Cause::Refused(Refusal::WrongKey)), "{error}");
        }
    }
}

pub(crate) fn a_span_beyond_the_real_region_is_refused_by_its_owner(fabric: &dyn Fabric) {
    let case = Case::new(fabric, READ_WRITE);
    // What follows the region in memory belongs to nobody, or to something else.
    let forged = case.add_forged(|metadata| metadata.regions[0].len = 1 << 40);
    let local = Memory::new(&case.a, 2 * LEN, Rights::empty());
    for op in [TransferOp::Write, TransferOp::Read] {
        for (offset, len) in [(0, LEN + 1), (LEN - 1, 2), (LEN, 1), ((1 << 40) - 5, 5)] {
            let model = Model::of(&[&local], &[&case.remote]);
            let pairs = [(span(0, 0, len), span(0, offset, len))];
            let prepared = prepare(&forged, op, &[&local], &pairs).unwrap();
            let error = prepared.post(PostOptions::new()).unwrap().wait().unwrap_err();
            case.assert_refused(&error, op, &[Refusal::OutOfBounds]);
            model.check(&[&local], &[&case.remote]);
        }
    }
    case.probe.rounds(4);
    // Up to its real end the region serves this handle like any other.
    transfer_and_check(&forged, TransferOp::Write, &[&case.local], &[&case.remote], &whole(LEN));
}

pub(crate) fn a_forged_base_moves_no_access(fabric: &dyn Fabric) {
    let case = Case::new(fabric, READ_WRITE);
    let forged = case.add_forged(|metadata| metadata.regions[0].base = 0x1000);
    // The base is for finding offsets here; the owner is told offsets only.
    transfer_and_check(&forged, TransferOp::Write, &[&case.local], &[&case.remote], &whole(LEN));
}

pub(crate) fn a_deregistered_region_is_refused_and_its_neighbour_served(fabric: &dyn Fabric) {
    for used_before in [false, true] {
        let case = Case::new(fabric, READ_WRITE);
        let peer = add(&case.a, &case.b, &[&case.remote]);
        if used_before {
            let pairs = whole(LEN);
            transfer_and_check(&peer, TransferOp::Write, &[&case.local], &[&case.remote], &pairs);
        }
        let Case { a, b, local, remote, probe } = case;
        let Memory { buffer, region } = remote;
        region.deregister().unwrap();
        buffer.fill(0, LEN, 3).unwrap();
        for op in [TransferOp::Write, TransferOp::Read] {
            let before = local.bytes();
            let prepared = prepare(&peer, op, &[&local], &whole(LEN)).unwrap();
            let outcome = prepared.post(PostOptions::new()).and_then(|transfer| transfer.wait());
            let error = outcome.unwrap_err();
            // A region that was never opened is not told from one that never was.
            let expected = if used_before { Refusal::RegionClosed } else { Refusal::WrongKey };
            assert_eq!(refusal(&error), Some(expected), "{error}");
            assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
            assert!(local.bytes() == before, "a refused READ changed its sink");
        }
        let mut bytes = vec![0; LEN as usize];
        buffer.read(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 3), "a byte landed in a deregistered region");
        probe.rounds(4);
        drop(a);
    }
}

pub(crate) fn rights_forged_in_the_blob_give_none(fabric: &dyn Fabric) {
    let case = Case::new(fabric, Rights::REMOTE_READ);
    let forged = case.add_forged(|metadata| metadata.regions[0].rights = READ_WRITE);
    case.refuses(&forged, TransferOp::Write, LEN, &[Refusal::NoRight]);
}

/// Two engines, memory on both, and a neighbour that must be served whatever is refused.
struct Case {
    a: Engine,
    b: Engine,
    local: Memory,
    remote: Memory,
    probe: Probe,
}

impl Case {
    fn new(fabric: &dyn Fabric, rights: Rights) -> Self {
        let (a, b) = fabric.pair();
        let local = Memory::new(&a, LEN, Rights::empty());
        let remote = Memory::new(&b, LEN, rights);
        let probe = Probe::new(&a, &b);
        probe.rounds(1);
        Self { a, b, local, remote, probe }
    }

    /// Adds the target from a blob that was tampered with.
    fn add_forged(&self, forge: impl FnOnce(&mut Metadata)) -> Peer {
        let blob = self.b.metadata([&self.remote.region]).unwrap();
        let mut metadata = Metadata::decode(&blob).unwrap();
        forge(&mut metadata);
        self.a.add_peer(&metadata.encode().unwrap()).unwrap()
    }

    /// The access fails, again and again, with one of these refusals; nothing changes on either
    /// side; the peer lives.
    #[track_caller]
    fn refuses(&self, peer: &Peer, op: TransferOp, len: u64, expected: &[Refusal]) {
        let model = Model::of(&[&self.local], &[&self.remote]);
        let prepared = prepare(peer, op, &[&self.local], &whole(len)).unwrap();
        for _ in 0..3 {
            let outcome = prepared.post(PostOptions::new()).and_then(|transfer| transfer.wait());
            self.assert_refused(&outcome.unwrap_err(), op, expected);
        }
        self.probe.rounds(4);
        model.check(&[&self.local], &[&self.remote]);
    }

    #[track_caller]
    fn assert_refused(&self, error: &Error, op: TransferOp, expected: &[Refusal]) {
        let operation = match op {
            TransferOp::Write => Operation::Write,
            TransferOp::Read => Operation::Read,
        };
        assert_eq!(error.operation, operation, "{error}");
        assert_eq!(error.peer.as_ref().and_then(|peer| peer.id()), Some(self.b.id()), "{error}");
        assert!(refusal(error).is_some_and(|refusal| expected.contains(&refusal)), "{error}");
    }
}

fn refusal(error: &Error) -> Option<Refusal> {
    match error.cause {
        Cause::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn whole(len: u64) -> [(kvx::Span, kvx::Span); 1] {
    [(span(0, 0, len), span(0, 0, len))]
}
