//! Cancelling: one terminal state, and nothing lands after the fence.

use kvx::error::{Cause, Fence, Operation};
use kvx::{PostOptions, Prepared, Rights, Span, TransferOp};

use crate::fabric::Fabric;
use crate::memory::{Memory, READ_WRITE, add, prepare, span};
use crate::probe::Probe;

const LEN: u64 = 1 << 20;

pub(crate) fn nothing_of_a_cancelled_write_lands_once_it_is_fenced(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &long()).unwrap();
    let mut fenced = 0;
    for round in 0..10 {
        let transfer = prepared.post(PostOptions::new().notify("never")).unwrap();
        if round % 2 == 1 {
            // Half of them are cancelled while frames are coming in.
            probe.rounds(1);
        }
        transfer.cancel();
        transfer.cancel();
        match transfer.wait() {
            Ok(_) => assert_eq!(b.poll_notification().map(|note| note.bytes.len()), Some(5)),
            Err(error) => {
                assert!(matches!(error.cause, Cause::Cancelled(Fence::Fenced)), "{error}");
                assert_eq!(error.operation, Operation::Write);
                assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
                fenced += 1;
                remote.poison();
                probe.rounds(8);
                remote.assert_poisoned();
                assert_eq!(b.poll_notification(), None, "a cancelled write notified");
            }
        }
    }
    assert!(fenced > 0, "no transfer was long enough to be cancelled");
    let short = whole(LEN);
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &short).unwrap();
    prepared.post(PostOptions::new()).unwrap().wait().unwrap();
    assert!(remote.bytes() == local.bytes());
}

pub(crate) fn nothing_of_a_cancelled_read_lands_once_it_has_ended(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let prepared = prepare(&peer, TransferOp::Read, &[&local], &long()).unwrap();
    let mut fenced = 0;
    for round in 0..10 {
        let transfer = prepared.post(PostOptions::new()).unwrap();
        if round % 2 == 1 {
            probe.rounds(1);
        }
        transfer.cancel();
        if let Err(error) = transfer.wait() {
            assert!(matches!(error.cause, Cause::Cancelled(Fence::Fenced)), "{error}");
            assert_eq!(error.operation, Operation::Read);
            fenced += 1;
            local.poison();
            probe.rounds(8);
            local.assert_poisoned();
        }
    }
    assert!(fenced > 0, "no transfer was long enough to be cancelled");
    let prepared = prepare(&peer, TransferOp::Read, &[&local], &whole(LEN)).unwrap();
    prepared.post(PostOptions::new()).unwrap().wait().unwrap();
    assert!(remote.bytes() == local.bytes());
}

pub(crate) fn a_small_read_does_not_wait_for_a_large_one(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let probe = Probe::new(&a, &b);
    probe.rounds(1);
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    for op in [TransferOp::Read, TransferOp::Write] {
        let large = prepare(&peer, op, &[&local], &long()).unwrap();
        let large = large.post(PostOptions::new()).unwrap();
        probe.rounds(1);
        assert!(large.poll().is_none(), "the small ones waited for the large one");
        large.cancel();
        assert!(large.wait().is_err());
    }
}

pub(crate) fn a_transfer_cancelled_after_its_end_stays_done(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    for op in [TransferOp::Write, TransferOp::Read] {
        let prepared = prepare(&peer, op, &[&local], &whole(LEN)).unwrap();
        let transfer = prepared.post(PostOptions::new()).unwrap();
        transfer.wait().unwrap();
        transfer.cancel();
        assert_eq!(transfer.wait().unwrap().bytes, LEN);
    }
}

pub(crate) fn what_is_cancelled_does_not_disturb_what_is_not(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let (other, kept) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote, &kept]);
    let doomed = |op| -> Prepared { prepare(&peer, op, &[&local], &long()).unwrap() };
    let (write, read) = (doomed(TransferOp::Write), doomed(TransferOp::Read));
    let pairs = [(span(0, 0, LEN), span(1, 0, LEN))];
    let keep = prepare(&peer, TransferOp::Write, &[&other], &pairs).unwrap();
    let fetch = prepare(&peer, TransferOp::Read, &[&other], &pairs).unwrap();
    for _ in 0..10 {
        let doomed = [&write, &read].map(|prepared| prepared.post(PostOptions::new()).unwrap());
        let kept_write = keep.post(PostOptions::new().notify("kept")).unwrap();
        doomed.iter().for_each(kvx::Transfer::cancel);
        kept_write.wait().unwrap();
        assert_eq!(&b.wait_notification(crate::fabric::LONG).unwrap().bytes[..], b"kept");
        assert!(kept.bytes() == other.bytes());
        fetch.post(PostOptions::new()).unwrap().wait().unwrap();
        for transfer in doomed {
            let outcome = transfer.wait();
            assert!(
                outcome.is_ok()
                    || outcome
                        .is_err_and(|error| matches!(error.cause, Cause::Cancelled(Fence::Fenced)))
            );
        }
    }
}

/// Half a gigabyte, all of it to and from the same MiB: longer than it takes to cancel.
fn long() -> Vec<(Span, Span)> {
    vec![(span(0, 0, LEN), span(0, 0, LEN)); 512]
}

fn whole(len: u64) -> [(Span, Span); 1] {
    [(span(0, 0, len), span(0, 0, len))]
}
