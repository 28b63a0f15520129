//! Notifications: after their data, in order, whole, at most once, under credit.

use std::num::NonZeroU16;

use kvx::error::{Cause, Invalid, Operation, Resource};
use kvx::{Engine, Peer, PostOptions, Rights, TransferOp};

use crate::fabric::{Fabric, LONG};
use crate::memory::{Memory, READ_WRITE, add, assert_same, pattern, prepare, span};

const MAX: usize = 16 << 20;

pub(crate) fn a_notification_finds_its_data_in_memory(fabric: &dyn Fabric) {
    const LEN: u64 = 3 << 20;
    let lanes = NonZeroU16::new(4).unwrap();
    let a = fabric.engine_with("a", |config| config.lanes(lanes));
    let b = fabric.engine("b");
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let pairs = [(span(0, 0, LEN), span(0, 0, LEN))];
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
    for round in 0..20_u8 {
        local.buffer.fill(0, LEN, round + 1).unwrap();
        let transfer = prepared.post(PostOptions::new().notify(vec![round])).unwrap();
        // The target looks as soon as it is told, whether the initiator knows yet or not.
        let note = b.wait_notification(LONG).unwrap();
        let seen = remote.bytes();
        assert_eq!((&note.bytes[..], note.engine()), (&[round][..], Some(a.id())));
        assert!(seen.iter().all(|byte| *byte == round + 1), "told before all was in memory");
        transfer.wait().unwrap();
    }
    assert_eq!(b.poll_notification(), None);
}

pub(crate) fn notifications_come_in_the_order_in_which_they_became_due(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) =
        (Memory::new(&a, 1 << 20, Rights::empty()), Memory::new(&b, 1 << 20, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    // Each is due before the next is posted.
    for number in 0..200_u32 {
        let len = 1 + u64::from(number) * 4999 % (1 << 20);
        let pairs = [(span(0, 0, len), span(0, 0, len))];
        let op = if number % 3 == 1 { TransferOp::Write } else { TransferOp::Read };
        let prepared = prepare(&peer, op, &[&local], &pairs).unwrap();
        let note = number.to_le_bytes().to_vec();
        if number % 3 == 0 {
            peer.notify(note).wait().unwrap();
        } else {
            prepared.post(PostOptions::new().notify(note)).unwrap().wait().unwrap();
        }
    }
    for number in 0..200_u32 {
        let note = b.wait_notification(LONG).unwrap();
        assert_eq!(&note.bytes[..], number.to_le_bytes());
    }
    // Many at once: each comes exactly once, and none of one kind overtakes another.
    let plain: Vec<_> =
        (0..500_u32).map(|number| peer.notify(number.to_le_bytes().to_vec())).collect();
    plain.into_iter().for_each(|told| told.wait().unwrap());
    for number in 0..500_u32 {
        assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], number.to_le_bytes());
    }
    assert_eq!(b.poll_notification(), None);
}

pub(crate) fn empty_long_and_longest_notifications_arrive_whole(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let b = fabric.engine("b");
    let peer = connected(&a, &b);
    for len in [0, 1, 512 << 10, (512 << 10) + 1, 1 << 20, MAX] {
        let bytes = pattern(len);
        let told = peer.notify(bytes.clone());
        assert_same(&b.wait_notification(LONG).unwrap().bytes, &bytes, "the notification");
        told.wait().unwrap();
    }
    let (local, remote) = (Memory::new(&a, 8, Rights::empty()), Memory::new(&b, 8, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let prepared =
        prepare(&peer, TransferOp::Write, &[&local], &[(span(0, 0, 8), span(0, 0, 8))]).unwrap();
    let bytes = pattern(MAX);
    let transfer = prepared.post(PostOptions::new().notify(bytes.clone())).unwrap();
    assert_same(&b.wait_notification(LONG).unwrap().bytes, &bytes, "the notification");
    transfer.wait().unwrap();
    assert_same(&remote.bytes(), &local.bytes(), "its data");
}

pub(crate) fn a_notification_too_long_is_an_error_and_harms_nothing(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, 8, Rights::empty()), Memory::new(&b, 8, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    peer.ready().wait().unwrap();
    let error = peer.notify(vec![0; MAX + 1]).wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Field { .. })), "{error}");
    assert_eq!(error.operation, Operation::Notify);
    assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
    let before = remote.bytes();
    let prepared =
        prepare(&peer, TransferOp::Write, &[&local], &[(span(0, 0, 8), span(0, 0, 8))]).unwrap();
    let error = prepared.post(PostOptions::new().notify(vec![0; MAX + 1])).unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Field { .. })), "{error}");
    assert_same(&remote.bytes(), &before, "the target");
    peer.notify("short").wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"short");
}

pub(crate) fn credit_runs_out_as_busy_and_returns_when_the_user_takes(fabric: &dyn Fabric) {
    const WINDOW: u64 = 2 << 20;
    const FITTING: u64 = WINDOW / 100_064;
    let a = fabric.engine("a");
    let b = fabric.engine_with("b", |config| config.notification_window(WINDOW));
    let peer = connected(&a, &b);
    let notify = |number: u64| peer.notify(vec![number as u8; 100_000]).wait();
    let busy = Cause::Busy(Resource::NotificationCredit).to_string();
    for round in 0..3 {
        for number in 0..FITTING {
            // What the user took in the round before comes back, if not at once.
            while let Err(error) = notify(number) {
                assert!(round > 0, "busy although nothing was sent: {error}");
                assert_eq!((error.cause.to_string(), error.is_retryable()), (busy.clone(), true));
                std::thread::yield_now();
            }
        }
        assert_eq!(notify(0).unwrap_err().cause.to_string(), busy);
        for number in 0..FITTING {
            let note = b.wait_notification(LONG).unwrap();
            assert_eq!((note.bytes.len(), note.bytes[0]), (100_000, number as u8));
        }
        assert_eq!(b.poll_notification(), None);
    }
}

pub(crate) fn a_reads_notification_finds_its_data_with_the_reader(fabric: &dyn Fabric) {
    const LEN: u64 = 3 << 20;
    let lanes = NonZeroU16::new(4).unwrap();
    let a = fabric.engine_with("a", |config| config.lanes(lanes));
    let b = fabric.engine("b");
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let pairs = [(span(0, 0, LEN), span(0, 0, LEN))];
    let prepared = prepare(&peer, TransferOp::Read, &[&local], &pairs).unwrap();
    for round in 0..20_u8 {
        remote.buffer.fill(0, LEN, round + 1).unwrap();
        let transfer = prepared.post(PostOptions::new().notify(vec![round])).unwrap();
        // The reader's user does nothing: its engine tells the owner, who uses the memory again.
        let note = b.wait_notification(LONG).unwrap();
        remote.buffer.fill(0, LEN, 0xee).unwrap();
        assert_eq!((&note.bytes[..], note.engine()), (&[round][..], Some(a.id())));
        let seen = local.bytes();
        assert!(seen.iter().all(|byte| *byte == round + 1), "told before all was in memory");
        // It left after the READ was done.
        assert!(transfer.poll().is_some_and(|outcome| outcome.is_ok()));
    }
    // Nobody needs to hold the transfer either.
    drop(prepared.post(PostOptions::new().notify("detached")).unwrap());
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"detached");
    assert_eq!(b.poll_notification(), None);
}

pub(crate) fn a_failed_or_cancelled_read_notifies_nobody(fabric: &dyn Fabric) {
    const LEN: u64 = 1 << 20;
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, LEN, Rights::empty());
    let (closed, open) =
        (Memory::new(&b, LEN, Rights::REMOTE_WRITE), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&closed, &open]);
    let of = |region| vec![(span(0, 0, LEN), span(region, 0, LEN)); 64];
    let refused = prepare(&peer, TransferOp::Read, &[&local], &of(0)).unwrap();
    let cancelled = prepare(&peer, TransferOp::Read, &[&local], &of(1)).unwrap();
    for _ in 0..20 {
        let outcome = refused.post(PostOptions::new().notify("refused"));
        assert!(outcome.and_then(|transfer| transfer.wait()).is_err());
        let transfer = cancelled.post(PostOptions::new().notify("cancelled")).unwrap();
        transfer.cancel();
        assert!(transfer.wait().is_err(), "64 MiB before the cancel");
    }
    peer.notify("after").wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"after");
    assert_eq!(b.poll_notification(), None);
}

pub(crate) fn a_read_has_the_credit_of_its_notification_from_the_start(fabric: &dyn Fabric) {
    const WINDOW: usize = 2 << 20;
    let a = fabric.engine("a");
    let b = fabric.engine_with("b", |config| config.notification_window(WINDOW as u64));
    let (local, remote) = (Memory::new(&a, 8, Rights::empty()), Memory::new(&b, 8, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    peer.ready().wait().unwrap();
    let prepared =
        prepare(&peer, TransferOp::Read, &[&local], &[(span(0, 0, 8), span(0, 0, 8))]).unwrap();
    let most = pattern(WINDOW - 64);
    prepared.post(PostOptions::new().notify(most.clone())).unwrap().wait().unwrap();
    let error = prepared.post(PostOptions::new().notify("")).unwrap_err();
    assert!(matches!(error.cause, Cause::Busy(Resource::NotificationCredit)), "{error}");
    assert_eq!(error.operation, Operation::Read);
    prepared.post(PostOptions::new()).unwrap().wait().unwrap();
    assert_same(&b.wait_notification(LONG).unwrap().bytes, &most, "the notification");
    // It comes back once the user has taken that.
    while let Err(error) = prepared.post(PostOptions::new().notify("next")) {
        assert!(error.is_retryable(), "{error}");
        std::thread::yield_now();
    }
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"next");
}

pub(crate) fn a_refused_write_notifies_nobody(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, 8, Rights::empty());
    let closed = Memory::new(&b, 8, Rights::REMOTE_READ);
    let peer = add(&a, &b, &[&closed]);
    let prepared =
        prepare(&peer, TransferOp::Write, &[&local], &[(span(0, 0, 8), span(0, 0, 8))]).unwrap();
    for _ in 0..20 {
        let refused = prepared.post(PostOptions::new().notify("refused"));
        assert!(refused.and_then(|transfer| transfer.wait()).is_err());
    }
    peer.notify("after").wait().unwrap();
    let note = b.wait_notification(LONG).unwrap();
    assert_eq!(&note.bytes[..], b"after");
}

fn connected(a: &Engine, b: &Engine) -> Peer {
    a.connect(b.local_addr()).wait().unwrap()
}
