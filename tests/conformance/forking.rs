//! A forked child has the engine's memory and none of its threads: every call says so, and none
//! hangs, whatever the parent's threads were at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kvx::error::Cause;
use kvx::{Error, PostOptions, RankKey, Rights, Room, SessionKey, TransferOp};

use crate::fabric::{Fabric, LONG};
use crate::layouts::Pool;
use crate::memory::{Memory, READ_WRITE, add, prepare, span};
use crate::probe::Probe;

pub(crate) fn every_call_in_a_forked_child_says_so(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) =
        (Memory::new(&a, 1 << 20, READ_WRITE), Memory::new(&b, 1 << 20, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let pairs = vec![(span(0, 0, 1 << 20), span(0, 0, 1 << 20)); 16];
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
    let own = prepare(&a.myself(), TransferOp::Write, &[&local], &[]).unwrap();
    let pool = Pool::small(&a);
    let blob = b.metadata([&remote.region]).unwrap();
    let session = SessionKey { room: Room(1), attempt: 0, sender_rank: 0, receiver_rank: 0 };
    let other = SessionKey { attempt: 1, ..session };
    let sender = a.sender(other, &pool.pool, Some(LONG)).unwrap();
    let rank = || RankKey { instance: String::new(), dp: 0, pp: 0, tp: 0 };
    let probe = Probe::new(&a, &b);
    // Begun before the fork, and not over.
    let begun = prepared.post(PostOptions::new()).unwrap();
    let granted = sender.granted();
    let nobody = a.connect("127.0.0.1:1");
    let soon = Duration::from_millis(1);
    let calls: [&dyn Fn() -> Option<Error>; 24] = [
        &|| a.allocate(8, Rights::empty()).err(),
        &|| a.register_buffer(&local.buffer, Rights::empty()).err(),
        &|| a.add_peer(&blob).err(),
        &|| a.connect(b.local_addr()).wait().err(),
        &|| peer.ready().wait().err(),
        &|| prepared.post(PostOptions::new()).err(),
        &|| own.post(PostOptions::new()).err(),
        &|| prepare(&peer, TransferOp::Write, &[&local], &pairs).err(),
        &|| sender.write(0..1, &[0]).err(),
        &|| peer.notify("from the child").wait().err(),
        &|| a.myself().notify("from the child").wait().err(),
        &|| a.sender(session, &pool.pool, None).err(),
        &|| peer.receiver(session, &pool.pool, 4, &[0], None).err(),
        &|| a.serve_rank(rank()).err(),
        &|| peer.register_rank(rank()).err(),
        &|| peer.find_rank(rank(), LONG).wait().err(),
        &|| local.region.publish().err(),
        &|| peer.published().wait().err(),
        &|| a.myself().published().wait().err(),
        &|| begun.wait().err(),
        &|| granted.wait().err(),
        &|| granted.wait_timeout(soon).and_then(Result::err),
        &|| granted.poll().and_then(Result::err),
        &|| nobody.wait().err(),
    ];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Locks are held and threads are busy at whatever moment the fork comes.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                prepared.post(PostOptions::new()).unwrap().wait().unwrap();
            }
        });
        let answers: Vec<i32> = (0..10)
            .map(|_| {
                in_child(|| {
                    let wrong = calls.iter().position(|call| {
                        !call().is_some_and(|error| matches!(error.cause, Cause::Forked))
                    });
                    // What ends threads or waits for them does neither here.
                    a.shutdown();
                    peer.remove();
                    let silent = a.peers().is_empty()
                        && !peer.is_connected()
                        && a.poll_notification().is_none()
                        && a.wait_notification(LONG).is_none();
                    let ok = if silent { 0 } else { 100 };
                    wrong.map_or(ok, |index| index as i32 + 1)
                })
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(answers, [0; 10], "the number of the first call that was not Forked");
    });
    // The parent has noticed nothing.
    probe.rounds(2);
    assert_eq!(b.poll_notification(), None);
    assert_eq!(a.poll_notification(), None);
}

/// Runs `f` in a forked child and returns what it returned, from 0 to 127; a child that hangs is
/// ended by SIGALRM, and one that a signal ends counts as -1.
fn in_child(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child is one thread of a program of many; it allocates, which glibc allows after
    // a fork, takes no lock of the test's, and ends by `_exit`.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork failed");
    if child == 0 {
        // SAFETY: ends the child, should it hang.
        unsafe { libc::alarm(10) };
        let answer = f();
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(answer) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable, and the child is this function's own.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
}
