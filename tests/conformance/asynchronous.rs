//! Async code: any executor, many tasks, no runtime of the engine's choosing.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use kvx::error::Cause;
use kvx::{
    Buffer, Engine, KvPool, Notification, Operation, Peer, PostOptions, Prepared, Receiver, Region,
    Rights, Room, Sender, SessionKey, Transfer, TransferOp,
};

use crate::fabric::{Fabric, LONG};
use crate::layouts::Pool;
use crate::memory::{Memory, READ_WRITE, add, assert_same, prepare, span};

/// Every handle may be used from any thread.
const fn is_shareable<T: Send + Sync + 'static>() {}
const _: () = {
    is_shareable::<Buffer>();
    is_shareable::<Engine>();
    is_shareable::<KvPool>();
    is_shareable::<Notification>();
    is_shareable::<Operation<()>>();
    is_shareable::<Peer>();
    is_shareable::<Prepared>();
    is_shareable::<Receiver>();
    is_shareable::<Region>();
    is_shareable::<Sender>();
    is_shareable::<Transfer>();
    is_shareable::<kvx::Error>();
};

pub(crate) fn operations_are_awaited_in_any_executor(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) =
        (Memory::new(&a, 1 << 20, Rights::empty()), Memory::new(&b, 1 << 20, READ_WRITE));
    block_on(async {
        let peer = a.connect(b.local_addr()).await.unwrap();
        peer.ready().await.unwrap();
        let peer = add(&a, &b, &[&remote]);
        let pairs = [(span(0, 0, 1 << 20), span(0, 0, 1 << 20))];
        for _ in 0..20 {
            let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
            prepared.post(PostOptions::new().notify("done")).unwrap().await.unwrap();
            assert_eq!(&b.notification().await.unwrap().bytes[..], b"done");
            peer.notify("plain").await.unwrap();
            assert_eq!(&b.notification().await.unwrap().bytes[..], b"plain");
        }
    });
    assert_same(&remote.bytes(), &local.bytes(), "what was written");
}

pub(crate) fn many_tasks_of_a_runtime_share_an_engine(fabric: &dyn Fabric) {
    const TASKS: u64 = 100;
    const LEN: u64 = 10_000;
    let (a, b) = fabric.pair();
    let local = Arc::new(Memory::new(&a, TASKS * LEN, Rights::empty()));
    let remote = Memory::new(&b, TASKS * LEN, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    runtime().block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (peer, local) = (peer.clone(), Arc::clone(&local));
                tokio::spawn(async move {
                    let place = span(0, task * LEN, LEN);
                    let pairs = [(place, place)];
                    for _ in 0..5 {
                        let prepared =
                            prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
                        prepared.post(PostOptions::new()).unwrap().await.unwrap();
                        peer.notify(task.to_le_bytes().to_vec()).await.unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..5 * TASKS {
            let note = b.notification().await.unwrap();
            assert!(u64::from_le_bytes(note.bytes[..].try_into().unwrap()) < TASKS);
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(b.poll_notification(), None);
    assert_same(&remote.bytes(), &local.bytes(), "what was written");
}

pub(crate) fn notifications_are_awaited(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let peer = a.connect(b.local_addr()).wait().unwrap();
    runtime().block_on(async {
        // Several tasks wait at once; each notification reaches one of them.
        let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(b.notification())).collect();
        for number in 0..8_u8 {
            peer.notify(vec![number]).await.unwrap();
        }
        let mut seen = Vec::new();
        for task in waiting {
            seen.push(task.await.unwrap().unwrap().bytes[0]);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..8).collect::<Vec<u8>>());
        // One that is given up takes none with it.
        drop(b.notification());
        let mut given_up = Box::pin(b.notification());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(given_up.as_mut().poll(&mut cx).is_pending());
        drop(given_up);
        peer.notify("last").await.unwrap();
        assert_eq!(&b.notification().await.unwrap().bytes[..], b"last");
    });
}

pub(crate) fn waits_for_a_notification_end_with_the_engine(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    a.connect(b.local_addr()).wait().unwrap();
    let is_over = |outcome: kvx::Result<kvx::Notification>| {
        matches!(outcome.map_err(|error| error.cause), Err(Cause::ShutDown))
    };
    runtime().block_on(async {
        let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(b.notification())).collect();
        let engine = b.clone();
        let blocked = tokio::task::spawn_blocking(move || engine.wait_notification(LONG));
        tokio::task::yield_now().await;
        let engine = b.clone();
        tokio::task::spawn_blocking(move || engine.shutdown()).await.unwrap();
        for task in waiting {
            assert!(is_over(task.await.unwrap()));
        }
        assert_eq!(blocked.await.unwrap(), None);
        assert!(is_over(b.notification().await));
    });
}

pub(crate) fn what_came_before_the_end_may_be_taken_after_it(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let peer = a.connect(b.local_addr()).wait().unwrap();
    peer.notify("first").wait().unwrap();
    peer.notify("second").wait().unwrap();
    b.shutdown();
    assert_eq!(&b.poll_notification().unwrap().bytes[..], b"first");
    let last = runtime().block_on(b.notification()).unwrap();
    assert_eq!(&last.bytes[..], b"second");
    let error = runtime().block_on(b.notification()).unwrap_err();
    assert!(matches!(error.cause, Cause::ShutDown), "{error}");
}

pub(crate) fn progress_is_awaited(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (from, to) = (Pool::small(&a), Pool::small(&b));
    runtime().block_on(async {
        let session = SessionKey { room: Room(1), attempt: 0, sender_rank: 0, receiver_rank: 0 };
        let peer = b.connect(a.local_addr()).await.unwrap();
        let receiver = peer.receiver(session, &to.pool, 16, &[0], Some(LONG)).unwrap();
        let receiving = tokio::spawn(async move {
            let mut counts = vec![0];
            while receiver.done().poll().is_none() {
                let seen = counts[counts.len() - 1];
                counts.push(receiver.progress(seen).await);
            }
            // All of it may have come before the first look.
            counts.push(receiver.arrived());
            (counts, receiver.done().await.unwrap())
        });
        let sender = a.sender(session, &from.pool, Some(LONG)).unwrap();
        sender.granted().await.unwrap();
        for layer in 0..4 {
            sender.write(layer..layer + 1, &[0]).unwrap().await.unwrap();
        }
        sender.finish("end").await.unwrap();
        let (counts, received) = receiving.await.unwrap();
        assert!(counts.is_sorted() && counts.last() == Some(&4), "{counts:?}");
        assert_eq!(&received.payload[..], b"end");
    });
}

pub(crate) fn a_dropped_future_detaches_its_transfer(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) =
        (Memory::new(&a, 8 << 20, Rights::empty()), Memory::new(&b, 8 << 20, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let pairs = [(span(0, 0, 8 << 20), span(0, 0, 8 << 20))];
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
    drop(prepared.post(PostOptions::new().notify("done all the same")).unwrap());
    drop(peer.notify("and so is this"));
    let mut said: Vec<_> = (0..2).map(|_| b.wait_notification(LONG).unwrap().bytes).collect();
    said.sort_unstable();
    assert_eq!(said, ["and so is this", "done all the same"]);
    assert_same(&remote.bytes(), &local.bytes(), "what was written");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap()
}

/// The plainest executor there is.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
