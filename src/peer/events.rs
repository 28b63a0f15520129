//! What the protocol says has happened, handed on to those who wait for it.

use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::{Wake, Waker};

use kvx_core::error::{Cause, LaneError, LaneLoss, Operation, Side};
use kvx_core::id::{GrantId, NotificationId, SessionKey, TransferId};
use kvx_core::proto::{Delivery, Event, TransferReport};
use kvx_core::region::Gate;

use super::{AttachedDelivery, Link};
use crate::bootstrap;

/// Events that a thread hands on before it goes back to its own work.
const TURN: usize = 64;

impl Link {
    /// Hands events on, in order. If another thread is at it, that thread does; and beyond so many,
    /// the one that keeps the timers: a peer that says more and more must not keep a thread that has
    /// other peers to serve.
    pub(super) fn dispatch(&self) {
        let mut left = TURN;
        loop {
            let guard = match self.dispatching.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while left > 0 {
                let event = self.lock().protocol.poll_event();
                let Some(event) = event else { break };
                self.hand_on(event);
                left -= 1;
            }
            drop(guard);
            if left == 0 {
                self.timers.notify_one();
                return;
            }
            // One who came while the guard was held has left its events to us.
            if !self.lock().protocol.has_events() {
                return;
            }
        }
    }

    fn hand_on(&self, event: Event) {
        match event {
            Event::Ready => self.on_ready(),
            Event::Disconnected => tracing::info!(peer = %self.name(), "control connection lost"),
            Event::Suspect(silence) => {
                tracing::warn!(peer = %self.name(), ?silence, "peer is silent");
            }
            Event::Recovered => tracing::info!(peer = %self.name(), "peer is heard of again"),
            Event::OpenLane(lane) => {
                if let Some(link) = self.arc() {
                    bootstrap::spawn_lane(link, lane);
                }
            }
            Event::CloseLane(lane) => self.close_lane(lane),
            // What follows from that was said once for all lanes, where the transport was ruled out.
            Event::LaneLost(LaneLoss { cause: LaneError::Unreachable(_), .. }) => {}
            Event::LaneLost(loss) => {
                tracing::warn!(peer = %self.name(), lane = %loss.lane, cause = %loss.cause, "lane lost");
            }
            Event::TransferEnded { transfer, outcome, fence } => {
                self.on_transfer_ended(transfer, outcome, fence);
            }
            Event::NotificationSettled(id, delivery, with) => self.on_settled(id, delivery, with),
            Event::Notification(bytes) => {
                if let Some(shared) = self.shared.upgrade() {
                    shared.inbox.push(self, bytes);
                }
            }
            Event::Granted(grant) => {
                if let Some(shared) = self.shared.upgrade() {
                    shared.sessions.granted(&shared, self, *grant);
                }
            }
            Event::LayersArrived(grant, layers) => {
                let receiver = self.lock().receivers.get(&grant).cloned();
                if let Some(receiver) = receiver {
                    receiver.layers_arrived(layers);
                }
            }
            Event::SessionEnded(grant, _, payload) => {
                let receiver = self.lock().receivers.remove(&grant);
                if let Some(receiver) = receiver {
                    receiver.ended(payload);
                }
            }
            Event::SessionSettled(grant, _) => {
                let sender = self.lock().senders.remove(&grant);
                if let Some(sender) = sender {
                    sender.settled();
                }
            }
            Event::SessionAborted { session, grant, cause, here } => {
                self.on_session_aborted(session, grant, cause, here);
            }
            Event::DirectoryPut(rank, entry) => {
                let shared = self.shared.upgrade();
                if shared.is_some_and(|shared| !shared.directory.put(rank, entry, Some(self))) {
                    tracing::debug!(peer = %self.name(), "directory is full");
                }
            }
            Event::DirectoryAsked { request, rank, wait } => {
                if let Some(shared) = self.shared.upgrade() {
                    shared.directory.asked(&shared, self, request, rank, wait);
                }
            }
            Event::DirectoryAnswered { request, entry } => {
                let waiting = self.lock().questions.remove(&request);
                if let Some(waiting) = waiting {
                    waiting.set(Ok(entry));
                }
            }
            Event::RegionsListed { question, regions } => {
                let waiting = self.lock().lists.remove(&question);
                if let Some(waiting) = waiting {
                    let regions = regions.map(|regions| Arc::new(regions.into_iter().collect()));
                    waiting.set(regions.map_err(|cause| self.error(Operation::List, cause)));
                }
            }
            Event::Dead(cause) => self.on_death(&cause),
        }
    }

    fn on_ready(&self) {
        let ready = {
            let mut core = self.lock();
            core.was_ready = true;
            std::mem::take(&mut core.ready)
        };
        tracing::info!(peer = %self.name(), "peer is ready");
        ready.iter().for_each(|done| done.set(Ok(())));
    }

    fn on_transfer_ended(
        &self,
        transfer: TransferId,
        outcome: Result<TransferReport, Cause>,
        fence: Option<Arc<Gate>>,
    ) {
        let (waiting, outcome) = {
            let mut core = self.lock();
            // A transfer that takes a notification along has ended well when that is delivered.
            match (core.transfers.get_mut(&transfer), outcome) {
                (Some(waiting), Ok(report)) if waiting.delivery.is_awaited() => {
                    waiting.delivery = AttachedDelivery::AwaitedFor(report);
                    return;
                }
                (_, outcome) => (core.transfers.remove(&transfer), outcome),
            }
        };
        let Some(waiting) = waiting else { return };
        let outcome = outcome.map_err(|cause| self.error(waiting.operation, cause));
        if let Some(session) = &waiting.session {
            session.transfer_ended(&outcome);
        }
        when_drained(fence, move || waiting.done.set(outcome));
    }

    fn on_settled(&self, id: NotificationId, delivery: Delivery, with: Option<TransferId>) {
        let outcome = match delivery {
            Delivery::Delivered => Ok(()),
            Delivery::NotDelivered(cause) => Err(cause),
            Delivery::Unknown(cause) => Err(Cause::DeliveryUnknown(Box::new(cause))),
        };
        if let Some(transfer) = with {
            self.on_attached_settled(transfer, outcome);
            return;
        }
        let waiting = self.lock().notifications.remove(&id);
        if let Some(waiting) = waiting {
            waiting.set(outcome.map_err(|cause| self.error(Operation::Notify, cause)));
        }
    }

    /// The fate of a transfer's notification is settled. If the data is not, or has failed, the
    /// transfer's own end is still to be told.
    fn on_attached_settled(&self, transfer: TransferId, outcome: Result<(), Cause>) {
        let mut core = self.lock();
        let Some(waiting) = core.transfers.get_mut(&transfer) else {
            drop(core);
            // A READ that is done does not wait for it, and nobody else would hear of its loss.
            if let Err(cause) = outcome
                && transfer.is_read()
            {
                tracing::warn!(peer = %self.name(), %cause, "notification of a READ lost");
            }
            return;
        };
        let AttachedDelivery::AwaitedFor(report) = waiting.delivery else {
            waiting.delivery = AttachedDelivery::None;
            return;
        };
        let waiting = core.transfers.remove(&transfer);
        drop(core);
        if let Some(waiting) = waiting {
            let outcome = outcome.map(|()| report);
            waiting.done.set(outcome.map_err(|cause| self.error(Operation::Notify, cause)));
        }
    }

    fn on_session_aborted(
        &self,
        session: SessionKey,
        grant: Option<GrantId>,
        cause: Cause,
        here: Side,
    ) {
        match here {
            Side::Receiver => {
                let receiver = grant.and_then(|grant| self.lock().receivers.remove(&grant));
                if let Some(receiver) = receiver {
                    receiver.failed(self.error(Operation::Receive, cause));
                }
            }
            Side::Sender => {
                let sender = grant.and_then(|grant| self.lock().senders.remove(&grant));
                let error = self.error(Operation::Send, cause);
                match (sender, self.shared.upgrade()) {
                    (Some(sender), _) => sender.failed(error),
                    (None, Some(shared)) => {
                        if let Some(grant) = grant {
                            shared.sessions.withdrawn(self, &session, grant);
                        }
                    }
                    (None, None) => {}
                }
            }
        }
    }

    fn on_death(&self, cause: &Cause) {
        let (ready, questions, stop) = {
            let mut core = self.lock();
            let stop = core.connection.take().map(|connection| connection.stop);
            let questions: Vec<_> = std::mem::take(&mut core.questions).into_values().collect();
            (std::mem::take(&mut core.ready), questions, stop)
        };
        // A connection still says what is queued (a goodbye, perhaps) before it ends.
        if let Some(stop) = stop {
            stop.notify_one();
        }
        for done in ready {
            done.set(Err(self.error(Operation::Connect, cause.clone())));
        }
        for waiting in questions {
            waiting.set(Err(self.error(Operation::Directory, cause.clone())));
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.peer_died(self);
        }
        self.timers.notify_one();
        tracing::info!(peer = %self.name(), %cause, "peer is over");
    }
}

/// Calls `then` once the gate has drained: at once where there is none.
pub(crate) fn when_drained(fence: Option<Arc<Gate>>, then: impl FnOnce() + Send + 'static) {
    match fence.filter(|gate| !gate.is_drained()) {
        None => then(),
        Some(gate) => gate.on_drained(&Waker::from(Arc::new(Once(Mutex::new(Some(then)))))),
    }
}

/// A function that a waker calls, once.
struct Once<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send + 'static> Wake for Once<F> {
    fn wake(self: Arc<Self>) {
        let then = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(then) = then {
            then();
        }
    }
}
