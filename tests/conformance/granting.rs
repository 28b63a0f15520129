//! The receiver's fence: once its side has ended a session, nothing lands in the granted blocks,
//! however hard the sender writes.

use std::sync::atomic::{AtomicBool, Ordering};

use kvx::error::Cause;
use kvx::{Engine, Peer, Receiver, Room, Sender, SessionKey};

use crate::fabric::{Fabric, LONG};
use crate::layouts::Pool;
use crate::probe::Probe;

const TOKENS: u32 = 512;

pub(crate) fn nothing_lands_once_an_abort_has_returned(fabric: &dyn Fabric) {
    fenced(fabric, |case, receiver| {
        receiver.abort("enough");
        case.to.poison();
    });
}

pub(crate) fn nothing_lands_once_a_receivers_drop_has_returned(fabric: &dyn Fabric) {
    fenced(fabric, |case, receiver| {
        drop(receiver);
        case.to.poison();
    });
}

pub(crate) fn nothing_lands_once_the_receivers_deadline_was_told(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let mut slow = 0;
    while slow < 3 {
        let deadline = std::time::Duration::from_millis(5);
        let (sender, receiver) = case.open(deadline);
        // One layer of two is written in an endless stream; only arrivals count as progress.
        let outcome = case.write_until(&sender, || receiver.wait());
        if let Err(error) = outcome {
            assert!(
                matches!(error.cause, Cause::Deadline { .. } | Cause::Aborted { .. }),
                "{error}"
            );
            case.to.poison();
            case.probe.rounds(8);
            case.to.assert_poisoned();
            slow += 1;
        }
        drop(sender);
    }
}

pub(crate) fn nothing_lands_once_the_senders_abort_was_told(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for _ in 0..3 {
        let (sender, receiver) = case.open(LONG);
        (0..4).for_each(|layer| drop(sender.write(layer..layer + 1, &[1, 0]).unwrap()));
        sender.abort("enough");
        let error = receiver.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Aborted { .. }), "{error}");
        case.to.poison();
        case.probe.rounds(8);
        case.to.assert_poisoned();
    }
}

pub(crate) fn a_region_of_a_pool_deregistered_in_mid_session_fails_it(fabric: &dyn Fabric) {
    let mut case = Case::new(fabric);
    let (sender, receiver) = case.open(LONG);
    sender.write(0..1, &[0, 1]).unwrap().wait().unwrap();
    let pool = case.to.memory.pop().unwrap();
    pool.region.deregister().unwrap();
    pool.buffer.fill(0, pool.buffer.len(), 0x11).unwrap();
    // Layers in other regions still arrive; this one is refused.
    let error = sender.write(3..4, &[0, 1]).unwrap().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Refused(_)), "{error}");
    assert!(sender.finish("").wait().is_err());
    assert!(receiver.wait().is_err());
    let mut bytes = vec![0; pool.buffer.len() as usize];
    pool.buffer.read(0, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0x11), "a byte landed in a deregistered region");
    case.probe.rounds(4);
}

/// The sender writes all the while; `end` ends the session and poisons the blocks.
fn fenced(fabric: &dyn Fabric, end: impl Fn(&Case, Receiver)) {
    let case = Case::new(fabric);
    for round in 0..4_u32 {
        let (sender, receiver) = case.open(LONG);
        case.write_until(&sender, || {
            if round % 2 == 1 {
                receiver.layer(round).wait().unwrap();
            }
            end(&case, receiver);
            case.probe.rounds(8);
        });
        case.to.assert_poisoned();
        drop(sender);
        case.probe.rounds(8);
        case.to.assert_poisoned();
    }
}

/// Large pools, so that there is always something on the way.
struct Case {
    a: Engine,
    from: Pool,
    to: Pool,
    peer: Peer,
    probe: Probe,
    rooms: std::cell::Cell<u64>,
    // Last: the engines go after what was made from them.
    _b: Engine,
}

impl Case {
    fn new(fabric: &dyn Fabric) -> Self {
        let (a, b) = fabric.pair();
        let (from, to) = (Pool::large(&a), Pool::large(&b));
        let probe = Probe::new(&a, &b);
        probe.rounds(1);
        let peer = b.connect(a.local_addr()).wait().unwrap();
        Self { a, from, to, peer, probe, rooms: std::cell::Cell::new(0), _b: b }
    }

    fn open(&self, deadline: std::time::Duration) -> (Sender, Receiver) {
        let room = Room(self.rooms.replace(self.rooms.get() + 1));
        let session = SessionKey { room, attempt: 0, sender_rank: 0, receiver_rank: 0 };
        let sender = self.a.sender(session, &self.from.pool, Some(LONG)).unwrap();
        let receiver =
            self.peer.receiver(session, &self.to.pool, TOKENS, &[1, 0], Some(deadline)).unwrap();
        // A receiver in a hurry may be gone before its sender has looked.
        let _ = sender.granted().wait();
        (sender, receiver)
    }

    /// Keeps the sender writing, layer after layer and again, while `watch` runs.
    fn write_until<R>(&self, sender: &Sender, watch: impl FnOnce() -> R) -> R {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let over = &over;
            let writing = scope.spawn(move || {
                let mut layers = (0..4).cycle();
                while !over.load(Ordering::Relaxed) {
                    let Some(layer) = layers.next() else { return };
                    // A few are on the way at any time.
                    let writes: Vec<_> =
                        (0..2).map(|_| sender.write(layer..layer + 1, &[0, 1])).collect();
                    for write in writes {
                        let failed = write.and_then(|write| write.wait()).is_err();
                        if failed {
                            std::thread::yield_now();
                        }
                    }
                }
            });
            let result = watch();
            over.store(true, Ordering::Relaxed);
            writing.join().unwrap();
            result
        })
    }
}
