//! The prefill side of a session.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::{Cause, Error, Invalid, Operation as Doing, Result, Side};
use kvx_core::id::{GrantId, SessionKey};
use kvx_core::layout::Layout;
use kvx_core::plan::{BlockMap, PlanOptions};
use kvx_core::proto::{Deadline, GrantReceived, Post, Target, TransferOp, TransferReport};
use kvx_core::time::Time;

use super::{KvPool, Timed, Timer};
use crate::clock;
use crate::completion::{Completion, Operation};
use crate::engine::{Engine, Shared};
use crate::one_sided::{Transfer, post_on};
use crate::peer::Link;

/// The prefill side of one session. Dropping it before [`Sender::finish`] was called aborts the
/// session.
#[derive(Debug)]
pub struct Sender {
    state: Arc<SenderState>,
}

/// What the receiver has granted.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The receiver's tokens; those are sent.
    pub tokens: u32,
    /// Layers that both sides hold, counted in the whole model.
    pub layers: Range<u32>,
    /// How the receiver's pool lies in memory.
    pub layout: Layout,
}

/// What a finished session has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that are in the receiver's memory.
    pub bytes: u64,
    /// Runs that they moved in.
    pub runs: u64,
}

/// What the Sender and the engine share.
#[derive(Debug)]
pub(crate) struct SenderState {
    session: SessionKey,
    pool: KvPool,
    shared: Weak<Shared>,
    deadline: Deadline,
    granted: Arc<Completion<Result<Granted>>>,
    done: Arc<Completion<Result<Sent>>>,
    progress: Mutex<Progress>,
    /// Runs while the Sender waits for the receiver: for its grant, and for its last word.
    timer: Mutex<Option<Timer>>,
}

#[derive(Debug)]
struct Progress {
    road: Option<Arc<GrantedRoad>>,
    /// Transfers posted, and those that are in the receiver's memory.
    posted: u64,
    arrived: u64,
    sent: Sent,
    /// Whether the user has called `finish`, and whether the receiver knows.
    finishing: bool,
    settled: bool,
    /// Since when the Sender has waited, or when the last transfer arrived.
    at: Time,
}

#[derive(Debug)]
struct GrantedRoad {
    link: Arc<Link>,
    grant: GrantId,
    map: BlockMap,
    tokens: u32,
    blocks: Vec<u32>,
}

impl Engine {
    /// Opens the sending side of a session. The receiver may have come before.
    ///
    /// `deadline`: how long to wait for the receiver, and for progress of each write; `None`: the
    /// engine's.
    ///
    /// # Errors
    /// Another Sender of this engine has the session.
    pub fn sender(
        &self,
        session: SessionKey,
        pool: &KvPool,
        deadline: Option<Duration>,
    ) -> Result<Sender> {
        let shared = self.shared();
        let failed = |cause: Cause| Error::new(Doing::Send, cause);
        shared.check().map_err(failed)?;
        shared.check_own(pool.regions()).map_err(|error| failed(error.into()))?;
        let progress = deadline.unwrap_or(shared.deadline.progress);
        let state = Arc::new(SenderState {
            session,
            pool: pool.clone(),
            shared: Arc::downgrade(shared),
            deadline: Deadline { progress, total: shared.deadline.total },
            granted: Completion::new(),
            done: Completion::new(),
            progress: Mutex::new(Progress {
                road: None,
                posted: 0,
                arrived: 0,
                sent: Sent::default(),
                finishing: false,
                settled: false,
                at: clock::now(),
            }),
            timer: Mutex::new(None),
        });
        if !shared.sessions.claim(&state) {
            let why = format!("{} has a sender already", session.room);
            return Err(failed(Invalid::Field { field: "session", why }.into()));
        }
        // Shutdown ends every Sender there is, and none may come after.
        if let Err(cause) = shared.check() {
            shared.sessions.leave(&state);
            return Err(failed(cause));
        }
        if !state.granted.is_set() {
            state.start_timer(shared);
        }
        Ok(Sender { state })
    }
}

impl Sender {
    /// Told when the receiver has granted its blocks.
    ///
    /// # Errors
    /// No receiver by the deadline, or one whose layout does not fit.
    pub fn granted(&self) -> Operation<Granted> {
        Operation::new(Arc::clone(&self.state.granted))
    }

    /// Writes these layers (counted in the whole model) of the prompt, which lies in
    /// `source_blocks` of this side's pool. Call it for each group of layers as prefill finishes
    /// them; the order is free, and each layer is written once.
    ///
    /// # Errors
    /// Not granted yet, layers that one side does not hold, or blocks that do not fit; or the
    /// session has failed.
    pub fn write(&self, layers: Range<u32>, source_blocks: &[u32]) -> Result<Transfer> {
        let state = &self.state;
        if state.is_forked() {
            return Err(Error::new(Doing::Send, Cause::Forked));
        }
        if let Some(Err(error)) = state.done.get() {
            return Err(error);
        }
        let road = state.progress().road.clone();
        let failed = |cause: Cause| Error::new(Doing::Send, cause);
        let early = || Invalid::Field { field: "session", why: "is not granted yet".to_owned() };
        let road = road.ok_or_else(|| failed(early().into()))?;
        let options = PlanOptions::default();
        let plan = road
            .map
            .plan(layers.clone(), road.tokens, source_blocks, &road.blocks, &options)
            .map_err(|invalid| state.error(invalid.into()))?;
        let post = Post {
            op: TransferOp::Write,
            plan: Arc::new(plan),
            local: Arc::clone(state.pool.regions()),
            target: Target::Grant(road.grant),
            notification: None,
            layers: Some(layers),
            deadline: state.deadline,
        };
        state.progress().posted += 1;
        let posted = post_on(&road.link, post, Some(Arc::clone(state)));
        posted.map_err(|cause| {
            state.progress().posted -= 1;
            state.error(cause)
        })
    }

    /// Says that all layers were written, with the small payload that decode needs (256 KiB at
    /// most). The operation ends when everything is in the receiver's memory and it knows.
    ///
    /// # Errors
    /// A write has failed, the receiver aborted or died, or the payload is too long.
    pub fn finish(self, payload: impl Into<Bytes>) -> Operation<Sent> {
        let state = &self.state;
        if state.is_forked() {
            return Operation::done(Err(Error::new(Doing::Send, Cause::Forked)));
        }
        let (road, writes) = {
            let mut progress = state.progress();
            progress.finishing = true;
            progress.at = clock::now();
            (progress.road.clone(), progress.posted)
        };
        let operation = Operation::new(Arc::clone(&state.done));
        let Some(road) = road else {
            let why = "is not granted yet".to_owned();
            state.fail(state.error(Invalid::Field { field: "session", why }.into()));
            return operation;
        };
        let payload = payload.into();
        let ended = road.link.with(|core| core.protocol.end_session(road.grant, writes, payload));
        match (ended, state.shared.upgrade()) {
            (Ok(()), Some(shared)) => state.start_timer(&shared),
            (Ok(()), None) => {}
            (Err(cause), _) => state.give_up(cause, "the session could not be ended"),
        }
        operation
    }

    /// Gives the session up; the receiver is told why.
    pub fn abort(self, reason: &str) {
        if !self.state.is_forked() {
            self.state.abort(reason);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.state.is_forked() {
            return;
        }
        let finishing = self.state.progress().finishing;
        if !finishing {
            self.state.abort("the sender was dropped");
        }
    }
}

impl SenderState {
    pub(crate) fn session(&self) -> SessionKey {
        self.session
    }

    /// The receiver has granted. `false`: another one has before.
    pub(crate) fn granted(self: &Arc<Self>, link: &Arc<Link>, grant: GrantReceived) -> bool {
        let mapped = BlockMap::new(&self.pool.layout, &grant.layout);
        let map = match mapped {
            Ok(map) => map,
            Err(invalid) => {
                let error = self.error(invalid.into()).with_peer(link.name());
                let (session, id) = (self.session, grant.grant);
                let reason = error.to_string();
                link.with(|core| core.protocol.abort_session(session, id, &reason));
                self.fail(error);
                return true;
            }
        };
        let told = Granted { tokens: grant.tokens, layers: map.layers(), layout: grant.layout };
        let road = GrantedRoad {
            link: Arc::clone(link),
            grant: grant.grant,
            map,
            tokens: grant.tokens,
            blocks: grant.blocks,
        };
        {
            let mut progress = self.progress();
            if progress.road.is_some() || self.done.is_set() {
                return false;
            }
            progress.road = Some(Arc::new(road));
        }
        let stands = {
            let mut core = link.lock();
            let stands = core.protocol.holds_grant(grant.grant);
            if stands {
                core.senders.insert(grant.grant, Arc::clone(self));
            }
            stands
        };
        if stands {
            self.granted.set(Ok(told));
        } else {
            // Taken back before anybody could be told of it: the Sender goes on waiting.
            self.progress().road = None;
        }
        stands
    }

    /// One of the session's transfers has ended.
    pub(crate) fn transfer_ended(&self, outcome: &Result<TransferReport>) {
        match outcome {
            Ok(report) => {
                let mut progress = self.progress();
                progress.arrived += 1;
                progress.at = clock::now();
                progress.sent.bytes += report.bytes;
                progress.sent.runs += u64::from(report.runs);
            }
            Err(error) => {
                self.give_up(error.cause.clone(), &error.to_string());
                return;
            }
        }
        self.finish_if_complete();
    }

    /// The receiver knows that all was posted.
    pub(crate) fn settled(&self) {
        self.progress().settled = true;
        self.finish_if_complete();
    }

    /// The session is over for the user: the error stays.
    pub(crate) fn failed(&self, error: Error) {
        self.fail(error);
    }

    /// The engine has ended.
    pub(crate) fn shut_down(&self) {
        self.fail(self.error(Cause::ShutDown));
    }

    fn finish_if_complete(&self) {
        let sent = {
            let progress = self.progress();
            let complete = progress.settled && progress.arrived == progress.posted;
            complete.then_some(progress.sent)
        };
        if let Some(sent) = sent {
            self.leave();
            self.done.set(Ok(sent));
        }
    }

    fn abort(&self, reason: &str) {
        self.give_up(Cause::Aborted { by: Side::Sender, reason: reason.into() }, reason);
    }

    /// Ends the session here with this cause, and tells the receiver why.
    fn give_up(&self, cause: Cause, reason: &str) {
        if self.done.is_set() {
            return;
        }
        self.fail(self.error(cause));
        let road = self.progress().road.clone();
        if let Some(road) = road {
            let (session, grant) = (self.session, road.grant);
            road.link.with(|core| {
                core.senders.remove(&grant);
                core.protocol.abort_session(session, grant, reason);
            });
        }
    }

    fn fail(&self, error: Error) {
        // First, so that whoever is told can open the session anew.
        self.leave();
        self.granted.set(Err(error.clone()));
        self.done.set(Err(error));
    }

    fn leave(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.sessions.leave(self);
        }
    }

    fn start_timer(self: &Arc<Self>, shared: &Shared) {
        let due = self.progress().at + self.deadline.progress;
        let timed: Weak<Self> = Arc::downgrade(self);
        let timer = shared.sessions.timers().start(&shared.runtime, due, timed);
        let old = self.timer().replace(timer);
        drop(old);
    }

    fn is_forked(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.is_forked())
    }

    fn error(&self, cause: Cause) -> Error {
        let error = Error::new(Doing::Send, cause);
        let road = self.progress().road.clone();
        match road {
            Some(road) => error.with_peer(road.link.name()),
            None => error,
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn timer(&self) -> MutexGuard<'_, Option<Timer>> {
        self.timer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fails the session when its deadline comes before the grant, or, once it is finishing, before the
/// end. In between each transfer has a deadline of its own.
impl Timed for SenderState {
    fn look(self: Arc<Self>, now: Time) -> Option<Time> {
        let (at, finishing) = {
            let progress = self.progress();
            (progress.at, progress.finishing)
        };
        if self.done.is_set() || (self.granted.is_set() && !finishing) {
            return None;
        }
        let after = self.deadline.progress;
        if now < at + after {
            return Some(at + after);
        }
        self.give_up(Cause::Deadline { after, total: false }, "the sender's deadline passed");
        None
    }
}
