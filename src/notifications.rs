//! Notifications from all peers, in the order in which they became due, for the engine's user.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::PeerName;
use kvx_core::id::EngineId;
use kvx_core::wire::message::NOTIFICATION_OVERHEAD;

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

/// Notifications that the user has not taken yet. A peer's are bounded by its credit; what peers have
/// left behind that are over, together, by the window of one: a user who takes none must not keep
/// more and more of them.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// What is kept of peers that are over.
    window: u64,
    /// How many there are, for looking without the lock.
    count: Arc<AtomicUsize>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    notifications: VecDeque<(Notification, Weak<Link>)>,
    /// What each live peer has here, by its link's address, which no other has as long as
    /// `notifications` refers to it; none is 0.
    kept: HashMap<usize, u64>,
    /// What those have here that are over.
    left: u64,
    wakers: Vec<Waker>,
    /// Nothing comes any more.
    closed: bool,
}

impl Queue {
    fn add_waker(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }
}

impl Inbox {
    /// An empty inbox; `window` is what one peer may have in it.
    pub(crate) fn new(window: u64) -> Self {
        let (count, queue) = (Arc::default(), Mutex::default());
        Self { window, count, queue, arrived: Condvar::new() }
    }

    /// How many there are, for who looks at it at any time.
    pub(crate) fn count(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.count)
    }

    /// The engine has ended: who waits for the next one waits in vain. What has come may still be
    /// taken.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let wakers = std::mem::take(&mut queue.wakers);
        drop(queue);
        self.arrived.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A peer is over. What it said last is still worth hearing, unless too much was left behind:
    /// then the oldest goes, half of what may stay, so that this is not to be done for each.
    pub(crate) fn leave(&self, link: &Link) {
        let mut queue = self.lock();
        let kept = queue.kept.remove(&std::ptr::from_ref(link).addr());
        queue.left += kept.unwrap_or(0);
        if queue.left <= self.window {
            return;
        }
        let Queue { notifications, kept, left, .. } = &mut *queue;
        let before = notifications.len();
        notifications.retain(|(notification, from)| {
            let over = is_left(from, kept) && *left > self.window / 2;
            *left -= if over { cost(notification) } else { 0 };
            !over
        });
        let dropped = before - notifications.len();
        self.count.store(notifications.len(), Ordering::Release);
        drop(queue);
        tracing::warn!(dropped, "notifications of peers that are over were not taken");
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
        if from.strong_count() > 0 {
            *queue.kept.entry(from.as_ptr().addr()).or_default() += cost(&notification);
        }
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
        let waits = |queue: &mut Queue| queue.notifications.is_empty() && !queue.closed;
        let (mut queue, _) = self
            .arrived
            .wait_timeout_while(queue, timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        let taken = self.take(&mut queue);
        drop(queue);
        taken.map(give_credit)
    }

    /// `None`: nothing comes any more.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        let mut queue = self.lock();
        if let Some(taken) = self.take(&mut queue) {
            drop(queue);
            return Poll::Ready(Some(give_credit(taken)));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.add_waker(cx);
        Poll::Pending
    }

    /// Whether there is one, or nothing comes any more; else the waker is called when that is so.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        if !queue.notifications.is_empty() || queue.closed {
            return Poll::Ready(());
        }
        queue.add_waker(cx);
        Poll::Pending
    }

    fn take(&self, queue: &mut Queue) -> Option<(Notification, Weak<Link>)> {
        let taken = queue.notifications.pop_front();
        self.count.store(queue.notifications.len(), Ordering::Release);
        if let Some((notification, from)) = &taken {
            let (address, cost) = (from.as_ptr().addr(), cost(notification));
            if is_left(from, &queue.kept) {
                queue.left -= cost;
            } else if let Some(bytes) = queue.kept.get_mut(&address) {
                *bytes -= cost;
                if *bytes == 0 {
                    queue.kept.remove(&address);
                }
            }
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a notification's peer was there, and is over.
fn is_left(from: &Weak<Link>, kept: &HashMap<usize, u64>) -> bool {
    let is_own = from.ptr_eq(&Weak::new());
    !is_own && !kept.contains_key(&from.as_ptr().addr())
}

/// What a notification is bounded by, as its peer's credit counts it.
fn cost(notification: &Notification) -> u64 {
    notification.bytes.len() as u64 + NOTIFICATION_OVERHEAD
}

/// The user has it: its sender gets the credit back.
fn give_credit((notification, link): (Notification, Weak<Link>)) -> Notification {
    if let Some(link) = link.upgrade() {
        link.with(|core| core.protocol.notification_taken(notification.bytes.len()));
        link.output.notify_one();
    }
    notification
}
