//! The decode side of a session.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::{Cause, Error, Operation as Doing, Result, Side};
use kvx_core::id::{GrantId, SessionKey};
use kvx_core::proto::GrantPlan;
use kvx_core::region::Gate;
use kvx_core::time::Time;

use super::{KvPool, Timed, Timer};
use crate::clock;
use crate::completion::{Completion, Operation};
use crate::one_sided::Peer;
use crate::peer::{Link, when_drained};
use crate::region::wait_drained;

/// The decode side of one session. Dropping it before it is complete aborts the session; when that
/// returns, nothing lands in the granted blocks any more.
#[derive(Debug)]
pub struct Receiver {
    state: Arc<ReceiverState>,
    link: Arc<Link>,
    grant: GrantId,
}

/// A complete KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The small metadata that the sender ended with.
    pub payload: Bytes,
}

/// What the Receiver and the engine share.
#[derive(Debug)]
pub(crate) struct ReceiverState {
    layers: Range<u32>,
    done: Arc<Completion<Result<Received>>>,
    /// How long nothing may arrive.
    deadline: Duration,
    /// Set when the grant is given.
    given: OnceLock<Given>,
    progress: Mutex<Progress>,
    /// Set once, when the Receiver is whole.
    timer: OnceLock<Timer>,
}

/// What was granted.
#[derive(Debug)]
struct Given {
    link: Weak<Link>,
    grant: GrantId,
    /// Guards the granted bytes.
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Progress {
    /// Whether each of `layers` has arrived.
    arrived: Vec<bool>,
    count: u32,
    /// When anything arrived last.
    at: Time,
    /// Who waits for layers.
    layers: Vec<(u32, Arc<Completion<Result<()>>>)>,
    wakers: Vec<Waker>,
}

impl Peer {
    /// Opens the receiving side of a session with this peer as the sender: grants it `blocks` of
    /// `pool`, which stand for `tokens` tokens. The sender may come later.
    ///
    /// `deadline`: how long nothing may arrive, the time until the first layer included; `None`:
    /// the engine's.
    ///
    /// # Errors
    /// Blocks that do not fit the pool, too many open grants, or the peer is over.
    pub fn receiver(
        &self,
        session: SessionKey,
        pool: &KvPool,
        tokens: u32,
        blocks: &[u32],
        deadline: Option<Duration>,
    ) -> Result<Receiver> {
        let failed = |cause: Cause| Error::new(Doing::Receive, cause).with_peer(self.name());
        let shared = self.engine().shared();
        shared.check().map_err(failed)?;
        shared.check_own(pool.regions()).map_err(|error| failed(error.into()))?;
        let link = self
            .link()
            .ok_or_else(|| failed(Cause::Unsupported("a session of an engine with itself")))?;
        let plan =
            GrantPlan::new(pool.layout().clone(), pool.regions().to_vec(), tokens, blocks.to_vec())
                .map_err(failed)?;
        let deadline = deadline.unwrap_or(shared.deadline.progress);
        let state = Arc::new(ReceiverState::new(plan.layers(), deadline));
        let plan = Arc::new(plan);
        let granted = link.with(|core| {
            let (grant, gate) = core.protocol.grant(session, plan)?;
            let _ = state.given.set(Given { link: Arc::downgrade(link), grant, gate });
            core.receivers.insert(grant, Arc::clone(&state));
            Ok(grant)
        });
        let grant = granted.map_err(failed)?;
        let (due, timed) = (state.progress().at + deadline, Arc::downgrade(&state));
        let _ = state.timer.set(shared.sessions.timers().start(&shared.runtime, due, timed));
        Ok(Receiver { state, link: Arc::clone(link), grant })
    }
}

impl Receiver {
    /// All layers that will arrive, counted in the whole model.
    pub fn layers(&self) -> Range<u32> {
        self.state.layers.clone()
    }

    /// How many layers have arrived.
    pub fn arrived(&self) -> u32 {
        self.state.progress().count
    }

    /// Whether this layer has arrived: every byte of it is in memory.
    pub fn has_layer(&self, layer: u32) -> bool {
        self.state.has(&self.state.progress(), layer)
    }

    /// Told when this layer has arrived, before the others may have: decode can begin with it.
    ///
    /// # Errors
    /// The session has failed.
    pub fn layer(&self, layer: u32) -> Operation<()> {
        self.state.layer(layer)
    }

    /// Told when everything has arrived.
    ///
    /// # Errors
    /// The sender aborted or died, nothing arrived by the deadline, or the session was aborted
    /// here. Nothing lands any more by then.
    pub fn done(&self) -> Operation<Received> {
        Operation::new(Arc::clone(&self.state.done))
    }

    /// Waits on the calling thread until everything has arrived.
    ///
    /// # Errors
    /// As [`Receiver::done`].
    pub fn wait(&self) -> Result<Received> {
        self.done().wait()
    }

    /// Waits until more layers than `seen` have arrived, or the session has ended, and returns how
    /// many have; for progress bars.
    pub async fn progress(&self, seen: u32) -> u32 {
        std::future::poll_fn(|cx| self.state.poll_progress(seen, cx)).await
    }

    /// Gives the session up; the sender is told why. When this returns, nothing lands in the
    /// granted blocks any more. Blocks for a system call in progress at most.
    pub fn abort(self, reason: &str) {
        self.revoke(reason);
    }

    fn revoke(&self, reason: &str) {
        if self.link.shared.upgrade().is_some_and(|shared| shared.is_forked()) {
            return;
        }
        let cause = Cause::Aborted { by: Side::Receiver, reason: reason.into() };
        revoke(&self.link, self.grant, reason);
        // Complete or failed sessions have closed it before.
        if let Some(given) = self.state.given.get() {
            given.gate.close();
            wait_drained(&given.gate);
        }
        self.state.finish(Err(self.link.error(Doing::Receive, cause)));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.revoke("the receiver was dropped");
    }
}

impl ReceiverState {
    fn new(layers: Range<u32>, deadline: Duration) -> Self {
        Self {
            done: Completion::new(),
            deadline,
            given: OnceLock::new(),
            timer: OnceLock::new(),
            progress: Mutex::new(Progress {
                arrived: vec![false; layers.len()],
                count: 0,
                at: clock::now(),
                layers: Vec::new(),
                wakers: Vec::new(),
            }),
            layers,
        }
    }

    /// Layers have arrived.
    pub(crate) fn layers_arrived(&self, layers: Range<u32>) {
        let mut progress = self.progress();
        progress.at = clock::now();
        for layer in layers {
            let index = layer.checked_sub(self.layers.start).map(|index| index as usize);
            let arrived = index.and_then(|index| progress.arrived.get_mut(index));
            let new = arrived.is_some_and(|arrived| !std::mem::replace(arrived, true));
            progress.count += u32::from(new);
        }
        let waiting = std::mem::take(&mut progress.layers);
        let (told, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(layer, _)| self.has(&progress, *layer));
        progress.layers = waiting;
        let wakers = std::mem::take(&mut progress.wakers);
        drop(progress);
        told.iter().for_each(|(_, done)| done.set(Ok(())));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Everything has arrived; told once nothing can land any more, for a sender that breaks the
    /// rules may have bytes under way twice.
    pub(crate) fn ended(self: &Arc<Self>, payload: Bytes) {
        let state = Arc::clone(self);
        when_drained(self.gate(), move || state.finish(Ok(Received { payload })));
    }

    /// The session has failed; told once nothing can land any more.
    pub(crate) fn failed(self: &Arc<Self>, error: Error) {
        let state = Arc::clone(self);
        let gate = self.gate();
        if let Some(gate) = &gate {
            gate.close();
        }
        when_drained(gate, move || state.finish(Err(error)));
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.given.get().map(|given| Arc::clone(&given.gate))
    }

    fn finish(&self, outcome: Result<Received>) {
        self.done.set(outcome.clone());
        let mut progress = self.progress();
        let waiting = std::mem::take(&mut progress.layers);
        let wakers = std::mem::take(&mut progress.wakers);
        drop(progress);
        let layer_outcome = outcome.map(|_| ());
        waiting.iter().for_each(|(_, done)| done.set(layer_outcome.clone()));
        wakers.into_iter().for_each(Waker::wake);
    }

    fn layer(&self, layer: u32) -> Operation<()> {
        let mut progress = self.progress();
        if self.has(&progress, layer) {
            return Operation::done(Ok(()));
        }
        if let Some(outcome) = self.done.get() {
            return Operation::done(outcome.map(|_| ()));
        }
        let done = Completion::new();
        progress.layers.push((layer, Arc::clone(&done)));
        Operation::new(done)
    }

    fn poll_progress(&self, seen: u32, cx: &mut Context<'_>) -> Poll<u32> {
        let mut progress = self.progress();
        if progress.count > seen || self.done.is_set() {
            return Poll::Ready(progress.count);
        }
        if !progress.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            progress.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn has(&self, progress: &Progress, layer: u32) -> bool {
        let index = layer.checked_sub(self.layers.start).map(|index| index as usize);
        index.and_then(|index| progress.arrived.get(index)).is_some_and(|arrived| *arrived)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails the session when nothing has arrived for its deadline.
impl Timed for ReceiverState {
    fn look(self: Arc<Self>, now: Time) -> Option<Time> {
        let due = self.progress().at + self.deadline;
        if self.done.is_set() || now < due {
            return Some(due).filter(|_| !self.done.is_set());
        }
        let given = self.given.get()?;
        let link = given.link.upgrade()?;
        let cause = Cause::Deadline { after: self.deadline, total: false };
        revoke(&link, given.grant, "the receiver's deadline passed");
        self.failed(link.error(Doing::Receive, cause));
        None
    }
}

/// Takes the grant back: nothing new lands, and the sender is told why.
fn revoke(link: &Link, grant: GrantId, reason: &str) {
    link.with(|core| {
        core.receivers.remove(&grant);
        core.protocol.revoke(grant, reason);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_complete_only_when_nothing_lands_any_more() {
        let state = Arc::new(ReceiverState::new(0..1, Duration::from_secs(1)));
        let gate = Arc::new(Gate::new());
        let given = Given { link: Weak::new(), grant: GrantId(1), gate: Arc::clone(&gate) };
        state.given.set(given).unwrap();
        let landing = gate.enter();
        gate.close();
        state.ended(Bytes::new());
        assert!(!state.done.is_set(), "told while a call is in progress");
        drop(landing);
        assert!(state.done.is_set());
    }
}
