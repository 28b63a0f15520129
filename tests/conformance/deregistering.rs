//! Deregistration in mid-transfer: the owner's fence holds at once and alone, the other side gets
//! an error, and both go on.

use kvx::error::{Cause, Error, Operation, Refusal};
use kvx::{Engine, Peer, PostOptions, Rights, Span, Transfer, TransferOp};

use crate::fabric::Fabric;
use crate::memory::{Memory, READ_WRITE, add, prepare, span};
use crate::probe::Probe;

const LEN: u64 = 1 << 20;

pub(crate) fn nothing_lands_in_a_region_deregistered_in_mid_write(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for round in 0..4 {
        let (local, remote, _, transfer) = case.begin(TransferOp::Write, round);
        remote.region.deregister().unwrap();
        assert_untouched(&case, &remote.buffer);
        let error = transfer.wait().unwrap_err();
        case.assert_names_b(&error, Operation::Write);
        assert!(matches!(error.cause, Cause::Refused(Refusal::RegionClosed)), "{error}");
        drop(local);
    }
    case.probe.rounds(4);
}

pub(crate) fn nothing_is_sent_from_a_source_deregistered_in_mid_write(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for round in 0..4 {
        let (local, remote, _, transfer) = case.begin(TransferOp::Write, round);
        local.region.deregister().unwrap();
        // What is written there now is not the transfer's any more.
        local.buffer.fill(0, LEN, 0xEE).unwrap();
        let error = transfer.wait().unwrap_err();
        case.assert_names_b(&error, Operation::Write);
        assert!(matches!(error.cause, Cause::RegionClosed), "{error}");
        case.probe.rounds(8);
        let leaked = remote.bytes().windows(64).any(|bytes| bytes.iter().all(|byte| *byte == 0xEE));
        assert!(!leaked, "bytes written after the deregistration were sent");
    }
}

pub(crate) fn nothing_is_sent_from_a_region_deregistered_in_mid_read(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for round in 0..4 {
        let (local, remote, _, transfer) = case.begin(TransferOp::Read, round);
        remote.region.deregister().unwrap();
        remote.buffer.fill(0, LEN, 0xEE).unwrap();
        let error = transfer.wait().unwrap_err();
        case.assert_names_b(&error, Operation::Read);
        assert!(matches!(error.cause, Cause::Refused(Refusal::RegionClosed)), "{error}");
        case.probe.rounds(8);
        let leaked = local.bytes().windows(64).any(|bytes| bytes.iter().all(|byte| *byte == 0xEE));
        assert!(!leaked, "bytes written after the deregistration were sent");
    }
}

pub(crate) fn nothing_lands_in_a_sink_deregistered_in_mid_read(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for round in 0..4 {
        let (local, remote, _, transfer) = case.begin(TransferOp::Read, round);
        local.region.deregister().unwrap();
        assert_untouched(&case, &local.buffer);
        let error = transfer.wait().unwrap_err();
        case.assert_names_b(&error, Operation::Read);
        assert!(matches!(error.cause, Cause::RegionClosed), "{error}");
        drop(remote);
    }
    case.probe.rounds(4);
}

pub(crate) fn buffers_and_regions_dropped_in_mid_transfer_harm_nobody(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for round in 0..8 {
        let op = if round % 2 == 0 { TransferOp::Write } else { TransferOp::Read };
        let (local, remote, peer, transfer) = case.begin(op, round);
        if round % 4 < 2 {
            drop(remote);
            assert!(transfer.wait().is_err());
            drop(local);
        } else {
            // The buffer goes first: the region keeps the memory until it is deregistered.
            let Memory { buffer, region } = local;
            drop(buffer);
            case.probe.writes(1);
            drop(region);
            assert!(transfer.wait().is_err());
            drop(remote);
        }
        drop(peer);
    }
    case.probe.rounds(4);
}

/// What was fenced holds what is written to it now.
#[track_caller]
fn assert_untouched(case: &Case, fenced: &kvx::Buffer) {
    fenced.fill(0, LEN, 0x5C).unwrap();
    case.probe.rounds(8);
    let mut bytes = vec![0; LEN as usize];
    fenced.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0x5C), "a byte landed after the deregistration");
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

    /// A transfer of half a gigabyte between fresh memory, at its very beginning or, in odd
    /// rounds, somewhat later.
    fn begin(&self, op: TransferOp, round: usize) -> (Memory, Memory, Peer, Transfer) {
        let local = Memory::new(&self.a, LEN, Rights::empty());
        let remote = Memory::new(&self.b, LEN, READ_WRITE);
        let peer = add(&self.a, &self.b, &[&remote]);
        let open = [(span(0, 0, 1), span(0, 0, 1))];
        let first = prepare(&peer, op, &[&local], &open).unwrap();
        first.post(PostOptions::new()).unwrap().wait().unwrap();
        let pairs: Vec<(Span, Span)> = vec![(span(0, 0, LEN), span(0, 0, LEN)); 512];
        let prepared = prepare(&peer, op, &[&local], &pairs).unwrap();
        let transfer = prepared.post(PostOptions::new()).unwrap();
        if round % 2 == 1 {
            self.probe.writes(2);
        }
        (local, remote, peer, transfer)
    }

    #[track_caller]
    fn assert_names_b(&self, error: &Error, operation: Operation) {
        assert_eq!(error.operation, operation, "{error}");
        assert_eq!(error.peer.as_ref().and_then(|peer| peer.id()), Some(self.b.id()), "{error}");
    }
}
