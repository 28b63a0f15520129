//! Notifications from all peers, in the order in which they became due, for the engine's user.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::PeerName;
use kvx_core::id::EngineId;

use crate::peer::Link;

/// Bytes from a peer's user. Whatever data they follow is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The sender, as errors and logs call it.
    pub peer: PeerName,
    /// What it says.
    pub bytes: Bytes,
}

impl Notification {
    /// The sender's engine.
    pub fn engine(&self) -> Option<EngineId> {
        self.peer.id()
    }
}

/// Notifications that the user has not taken yet. Their number is bounded by each peer's credit.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// How many there are, for looking without the lock.
    count: AtomicUsize,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    notifications: VecDeque<(Notification, Weak<Link>)>,
    wakers: Vec<Waker>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A notification from a peer is due.
    pub(crate) fn push(&self, link: &Link, bytes: Bytes) {
        let from = link.arc().map_or_else(Weak::new, |link| Arc::downgrade(&link));
        let notification = Notification { peer: link.name(), bytes };
        self.add(notification, from);
    }

    /// A notification of the engine to itself.
    pub(crate) fn push_own(&self, peer: PeerName, bytes: Bytes) {
        self.add(Notification { peer, bytes }, Weak::new());
    }

    fn add(&self, notification: Notification, from: Weak<Link>) {
        let mut queue = self.lock();
        queue.notifications.push_back((notification, from));
        self.count.store(queue.notifications.len(), Ordering::Release);
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        self.arrived.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll(&self) -> Option<Notification> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut queue = self.lock();
        let taken = self.take(&mut queue);
        drop(queue);
        taken.map(give_credit)
    }

    pub(crate) fn wait(&self, timeout: Duration) -> Option<Notification> {
        let queue = self.lock();
        let (mut queue, _) = self
            .arrived
            .wait_timeout_while(queue, timeout, |queue| queue.notifications.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let taken = self.take(&mut queue);
        drop(queue);
        taken.map(give_credit)
    }

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Notification> {
        let mut queue = self.lock();
        if let Some(taken) = self.take(&mut queue) {
            drop(queue);
            return Poll::Ready(give_credit(taken));
        }
        if !queue.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            queue.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn take(&self, queue: &mut Queue) -> Option<(Notification, Weak<Link>)> {
        let taken = queue.notifications.pop_front();
        self.count.store(queue.notifications.len(), Ordering::Release);
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user has it: its sender gets the credit back.
fn give_credit((notification, link): (Notification, Weak<Link>)) -> Notification {
    if let Some(link) = link.upgrade() {
        link.with(|core| core.protocol.notification_taken(notification.bytes.len()));
        link.output.notify_one();
    }
    notification
}
