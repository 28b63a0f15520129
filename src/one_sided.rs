//! The one-sided API: peers, prepared transfers, posting and waiting, notifications.

mod regions;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvx_core::error::{Cause, Error, Invalid, Operation as Doing, PeerName, Result};
use kvx_core::id::{EngineId, Incarnation, RegionId, TransferId};
use kvx_core::plan::{Plan, PlanOptions, Spans};
use kvx_core::proto::{Deadline, Post, Target, TransferOp, TransferReport};
use kvx_core::region::{Gate, Region as CoreRegion, Rights};
use kvx_core::transport::{Lane, LocalSpan, MemoryKind, TransportKind};

use crate::completion::{Completion, Operation};
use crate::engine::Engine;
use crate::memory::{LocalCopy, copy_local};
use crate::peer::{Link, TransferDone};
use crate::region::{Region, wait_drained};
use crate::session::SenderState;

pub use regions::RemoteRegion;
pub(crate) use regions::RemoteRegions;

/// A remote engine, in one of its lives, or this engine itself.
///
/// When the remote engine restarts or is removed, this handle's operations fail; add it again to
/// reach the new life.
#[derive(Clone, Debug)]
pub struct Peer {
    engine: Engine,
    road: Road,
    regions: Arc<RemoteRegions>,
}

#[derive(Clone, Debug)]
enum Road {
    Link(Arc<Link>),
    Local,
}

/// A transfer that is ready to be posted, any number of times.
///
/// Planning (sorting, merging, checking bounds) is done; posting allocates nothing a span.
#[derive(Clone, Debug)]
pub struct Prepared {
    peer: Peer,
    op: TransferOp,
    plan: Arc<Plan>,
    local: Arc<[Arc<CoreRegion>]>,
    remote: Arc<[RegionId]>,
}

/// What goes along with a post.
#[derive(Clone, Debug, Default)]
pub struct PostOptions {
    notification: Option<Bytes>,
    deadline: Option<Deadline>,
}

/// A posted transfer. Dropping it detaches it: the transfer goes on.
#[derive(Clone, Debug)]
#[must_use = "a transfer that nobody waits for goes on, but its outcome is lost"]
pub struct Transfer {
    operation: Operation<TransferReport>,
    /// `None` when it was done as soon as it was posted.
    posted: Option<Posted>,
}

/// A transfer on its way.
#[derive(Clone, Debug)]
struct Posted {
    link: Arc<Link>,
    id: TransferId,
    /// Which operation errors call it.
    doing: Doing,
    /// The lane that the posting thread drove.
    lane: Option<Arc<dyn Lane>>,
}

impl Peer {
    pub(crate) fn new(engine: Engine, link: Arc<Link>, regions: Arc<RemoteRegions>) -> Self {
        Self { engine, road: Road::Link(link), regions }
    }

    /// The engine itself, with these of its regions.
    pub(crate) fn local(engine: Engine, regions: &[Arc<CoreRegion>]) -> Self {
        let regions = Arc::new(regions.iter().map(|region| &**region).collect());
        Self { engine, road: Road::Local, regions }
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        match &self.road {
            Road::Link(link) => Some(link),
            Road::Local => None,
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How errors and logs call it.
    pub fn name(&self) -> PeerName {
        match &self.road {
            // In a forked child the lock may be a thread's that is not there.
            Road::Link(link) if self.engine.shared().is_forked() => link.first_name().clone(),
            Road::Link(link) => link.name(),
            Road::Local => PeerName::verified(self.engine.name(), self.engine.id()),
        }
    }

    /// The engine, and the life of it that this handle speaks to, once they are known.
    pub fn identity(&self) -> Option<(EngineId, Incarnation)> {
        match &self.road {
            Road::Link(_) if self.engine.shared().is_forked() => None,
            Road::Link(link) => link.engine(),
            Road::Local => Some((self.engine.id(), self.engine.incarnation())),
        }
    }

    /// The transport that its lanes are of at present, for logs and figures. `None` while there are
    /// none, and for the engine itself. Certain once something has moved: until then a lane may turn
    /// out not to lead to the peer.
    pub fn transport(&self) -> Option<TransportKind> {
        match &self.road {
            Road::Link(_) if self.engine.shared().is_forked() => None,
            Road::Link(link) => link.transport_in_use(),
            Road::Local => None,
        }
    }

    /// The regions that its metadata named, in that order; of a peer from [`Peer::published`] those
    /// that were published when it was asked, and for [`Engine::myself`] those registered when it was
    /// asked for, oldest first.
    pub fn regions(&self) -> &[RemoteRegion] {
        self.regions.list()
    }

    /// The same peer with the regions of `other`, too, which is the same peer added again: a
    /// transfer may use any of them. Those of `self` come first, then those of `other`, each in their
    /// order; what both have comes twice.
    ///
    /// # Errors
    /// `other` is another peer, or another life of it.
    pub fn joined(&self, other: &Self) -> Result<Self> {
        let same = match (&self.road, &other.road) {
            (Road::Link(one), Road::Link(other)) => Arc::ptr_eq(one, other),
            (Road::Local, Road::Local) => Arc::ptr_eq(self.engine.shared(), other.engine.shared()),
            _ => false,
        };
        if !same {
            let why = format!("expected {} in its present life", self.name());
            let cause: Cause = Invalid::Field { field: "other", why }.into();
            return Err(Error::new(Doing::Prepare, cause).with_peer(other.name()));
        }
        let both = self.regions().iter().chain(other.regions());
        let regions = Arc::new(both.cloned().collect());
        Ok(Self { regions, ..self.clone() })
    }

    /// A region that holds `len` bytes at the owner's `address`, and the offset in it.
    pub fn find(&self, kind: MemoryKind, address: u64, len: u64) -> Option<(&RemoteRegion, u64)> {
        self.regions.find(kind, address, len)
    }

    /// Whether a control connection is up and the peer was heard of lately.
    pub fn is_connected(&self) -> bool {
        match &self.road {
            _ if self.engine.shared().is_forked() => false,
            Road::Link(link) => link.lock().protocol.is_alive(),
            Road::Local => true,
        }
    }

    /// Told when the peer is connected, by the engine's deadline.
    ///
    /// # Errors
    /// It cannot be reached in time, or turned out to be another than its metadata says.
    pub fn ready(&self) -> Operation<()> {
        let shared = self.engine.shared();
        if let Err(cause) = shared.check() {
            let error = Error::new(Doing::Connect, cause).with_peer(self.name());
            return Operation::done(Err(error));
        }
        let Road::Link(link) = &self.road else { return Operation::done(Ok(())) };
        let done = Completion::new();
        link.when_ready(Arc::clone(&done));
        let late = Arc::clone(&done);
        let after = shared.deadline.progress;
        let error = link.error(Doing::Connect, Cause::Deadline { after, total: true });
        shared.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            late.set(Err(error));
        });
        Operation::new(done)
    }

    /// Prepares a transfer: `local` span i to or from `remote` span i. Spans name their regions by
    /// position in the lists beside them.
    ///
    /// # Errors
    /// Lists that do not pair up, spans outside their regions, a region of another engine.
    pub fn prepare(
        &self,
        op: TransferOp,
        (local_regions, local): (&[&Region], &Spans),
        (remote_regions, remote): (&[RegionId], &Spans),
    ) -> Result<Prepared> {
        let plan = Plan::pair(local, remote, &PlanOptions::default());
        self.prepared(op, plan, local_regions, remote_regions)
    }

    /// Like [`Peer::prepare`], with spans picked by index: local span `local_indices[i]` goes with
    /// remote span `remote_indices[i]`. Span lists are made once and used for many requests.
    ///
    /// # Errors
    /// As [`Peer::prepare`]; an index beyond its list.
    pub fn prepare_selected(
        &self,
        op: TransferOp,
        (local_regions, local, local_indices): (&[&Region], &Spans, &[u32]),
        (remote_regions, remote, remote_indices): (&[RegionId], &Spans, &[u32]),
    ) -> Result<Prepared> {
        let options = PlanOptions::default();
        let plan = Plan::select(local, local_indices, remote, remote_indices, &options);
        self.prepared(op, plan, local_regions, remote_regions)
    }

    fn prepared(
        &self,
        op: TransferOp,
        plan: Result<Plan, Invalid>,
        local_regions: &[&Region],
        remote_regions: &[RegionId],
    ) -> Result<Prepared> {
        let failed = |cause: Cause| Error::new(Doing::Prepare, cause).with_peer(self.name());
        let shared = self.engine.shared();
        shared.check().map_err(failed)?;
        let mut plan = plan.map_err(|error| failed(error.into()))?;
        let local: Arc<[_]> =
            local_regions.iter().map(|region| Arc::clone(region.core())).collect();
        shared.check_own(&local).map_err(|error| failed(error.into()))?;
        let local_lens: Vec<u64> = local.iter().map(|region| region.len()).collect();
        let remote_lens = remote_regions
            .iter()
            .map(|id| self.regions.get(*id).map(|region| region.len))
            .collect::<Option<Vec<u64>>>()
            .ok_or_else(|| failed(Invalid::UnknownRegion.into()))?;
        plan.check(&local_lens, &remote_lens).map_err(|error| failed(error.into()))?;
        // Regions that are listed and not used are nobody's concern from here on.
        let local = plan.used_local().iter().map(|i| Arc::clone(&local[*i as usize])).collect();
        let remote = plan.used_remote().iter().map(|i| remote_regions[*i as usize]).collect();
        plan.drop_unused();
        Ok(Prepared { peer: self.clone(), op, plan: Arc::new(plan), local, remote })
    }

    /// Sends a notification that is due at once; the operation ends when the peer has it.
    ///
    /// # Errors
    /// [`Cause::Busy`] while the peer's user has too much not yet taken; too long (16 MiB); the
    /// peer is over. [`Cause::DeliveryUnknown`] where the connection broke at the wrong moment.
    pub fn notify(&self, bytes: impl Into<Bytes>) -> Operation<()> {
        let bytes = bytes.into();
        let failed = |cause| Error::new(Doing::Notify, cause).with_peer(self.name());
        if let Err(cause) = self.engine.shared().check() {
            return Operation::done(Err(failed(cause)));
        }
        let Road::Link(link) = &self.road else {
            self.engine.shared().inbox.push_own(self.name(), bytes);
            return Operation::done(Ok(()));
        };
        let posted = link.with(|core| {
            let id = core.protocol.notify(crate::clock::now(), bytes)?;
            Ok(core.expect_notification(id))
        });
        match posted {
            Ok(done) => Operation::new(done),
            Err(cause) => Operation::done(Err(failed(cause))),
        }
    }

    /// Removes the peer: everything outstanding with it fails, and nothing of it lands here any
    /// more when this returns.
    pub fn remove(&self) {
        if let Road::Link(link) = &self.road
            && !self.engine.shared().is_forked()
        {
            link.kill(Cause::PeerRemoved);
            let draining = link.lock().protocol.draining().to_vec();
            draining.iter().for_each(|gate| wait_drained(gate));
        }
    }
}

impl Prepared {
    /// Bytes that a post moves.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Runs that they move in, after merging.
    pub fn runs(&self) -> usize {
        self.plan.len()
    }

    /// Posts the transfer. The posting thread sends the first bytes itself and never blocks on the
    /// network. A transfer to the engine itself is copied before this returns.
    ///
    /// # Errors
    /// [`Cause::Busy`], the peer is over, or the owner refused one of the regions before. Later
    /// failures are the transfer's outcome.
    pub fn post(&self, options: PostOptions) -> Result<Transfer> {
        let doing = doing(self.op);
        let failed = |cause| Error::new(doing, cause).with_peer(self.peer.name());
        let shared = self.peer.engine.shared();
        shared.check().map_err(failed)?;
        let Road::Link(link) = &self.peer.road else {
            return self.copy(options).map_err(failed);
        };
        let post = Post {
            op: self.op,
            plan: Arc::clone(&self.plan),
            local: Arc::clone(&self.local),
            target: Target::Regions(Arc::clone(&self.remote)),
            notification: options.notification,
            layers: None,
            deadline: options.deadline.unwrap_or(shared.deadline),
        };
        post_on(link, post, None).map_err(failed)
    }

    /// A transfer of the engine to itself.
    fn copy(&self, options: PostOptions) -> Result<Transfer, Cause> {
        let registry = &self.peer.engine.shared().registry;
        let needed = match self.op {
            TransferOp::Write => Rights::REMOTE_WRITE,
            TransferOp::Read => Rights::REMOTE_READ,
        };
        let remote: Vec<Arc<CoreRegion>> = self
            .remote
            .iter()
            .map(|id| registry.get(*id).ok_or(Cause::RegionClosed))
            .collect::<Result<_, _>>()?;
        for index in self.plan.used_remote() {
            remote[index as usize].check(needed, 0, 0)?;
        }
        let gate = Arc::new(Gate::new());
        let (sources, targets) = match self.op {
            TransferOp::Write => (&self.local[..], &remote[..]),
            TransferOp::Read => (&remote[..], &self.local[..]),
        };
        let copy = LocalCopy { sources, targets, gates: &[gate] };
        let spans = (0..self.plan.len()).map(|index| {
            let run = self.plan.run(index);
            let local = LocalSpan { region: run.local, len: run.len, offset: run.local_offset };
            let remote = LocalSpan { region: run.remote, len: run.len, offset: run.remote_offset };
            match self.op {
                TransferOp::Write => (local, remote),
                TransferOp::Read => (remote, local),
            }
        });
        copy_local(&copy, spans)?;
        if let Some(bytes) = options.notification {
            self.peer.engine.shared().inbox.push_own(self.peer.name(), bytes);
        }
        let report = TransferReport { bytes: self.plan.bytes(), runs: self.plan.len() as u32 };
        Ok(Transfer { operation: Operation::done(Ok(report)), posted: None })
    }
}

impl PostOptions {
    /// Nothing but the data; the engine's deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the peer's user these bytes once all data is there.
    ///
    /// With a WRITE, once it is in the peer's memory. The transfer is then done when the notification
    /// is delivered too; an outcome of [`Cause::DeliveryUnknown`] says that the data is there, and the
    /// notification perhaps.
    ///
    /// With a READ, once it is in own memory: the peer may then use its own for something else. The
    /// transfer is done as soon as the data is here; the engine sends the notification by itself, in
    /// its turn among others to that peer, and whether it arrives is not told. It comes at most once,
    /// and not at all if the READ fails or is cancelled.
    ///
    /// Either way its credit is taken when the transfer is posted, which is [`Cause::Busy`] where none
    /// is left.
    pub fn notify(mut self, bytes: impl Into<Bytes>) -> Self {
        self.notification = Some(bytes.into());
        self
    }

    /// Fails when nothing has moved for `progress`, or when it is not done after `total`.
    pub fn deadline(mut self, progress: Duration, total: Option<Duration>) -> Self {
        self.deadline = Some(Deadline { progress, total });
        self
    }
}

impl Transfer {
    /// The outcome, if there is one yet. Never waits, and makes no system call.
    pub fn poll(&self) -> Option<Result<TransferReport>> {
        self.operation.poll()
    }

    /// Waits on the calling thread. Ends by the transfer's deadline.
    ///
    /// # Errors
    /// What the transfer failed with.
    pub fn wait(&self) -> Result<TransferReport> {
        if let Some(posted) = &self.posted {
            posted.attend(self.operation.completion(), None)?;
        }
        self.operation.wait()
    }

    /// Waits on the calling thread for `timeout` at most; `None`: it is still under way.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<TransferReport>> {
        let begin = Instant::now();
        if let Some(posted) = &self.posted
            && !timeout.is_zero()
            && let Err(error) = posted.attend(self.operation.completion(), Some(timeout))
        {
            return Some(Err(error));
        }
        self.operation.wait_timeout(timeout.saturating_sub(begin.elapsed()))
    }

    /// Gives the transfer up. Its outcome is then [`Cause::Cancelled`], fenced once the owner of
    /// the memory has confirmed, unfenced at the deadline; or success, if it was done before.
    pub fn cancel(&self) {
        if let Some(Posted { link, id, .. }) = &self.posted
            && link.shared.upgrade().is_some_and(|shared| !shared.is_forked())
        {
            link.with(|core| core.protocol.cancel(*id));
        }
    }
}

impl Posted {
    /// Moves what the transfer's lane brings from the calling thread, until the transfer ends, the
    /// lane does, or `timeout` has passed.
    fn attend(&self, end: &TransferDone, timeout: Option<Duration>) -> Result<()> {
        if self.link.shared.upgrade().is_some_and(|shared| shared.is_forked()) {
            // Nobody in this process will ever tell the end.
            let error = Error::new(self.doing, Cause::Forked);
            return Err(error.with_peer(self.link.first_name().clone()));
        }
        if let Some(lane) = &self.lane {
            lane.attend(timeout, &mut |cx| end.is_set_or_wakes(cx));
        }
        Ok(())
    }
}

impl Future for Transfer {
    type Output = Result<TransferReport>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.operation).poll(cx)
    }
}

/// Posts on a link, for the one-sided API and for sessions.
pub(crate) fn post_on(
    link: &Arc<Link>,
    post: Post,
    session: Option<Arc<SenderState>>,
) -> Result<Transfer, Cause> {
    let doing = if session.is_some() { Doing::Send } else { doing(post.op) };
    let report = TransferReport { bytes: post.plan.bytes(), runs: post.plan.len() as u32 };
    // A READ does not wait for what the peer is told after it.
    let notifies = post.notification.is_some() && post.op == TransferOp::Write;
    let (posted, lane) = link.with_drive(|core| {
        let id = core.protocol.post(crate::clock::now(), post)?;
        Ok::<_, Cause>(id.map(|id| (id, core.expect_transfer(id, doing, session, notifies))))
    });
    let Some((id, done)) = posted? else {
        return Ok(Transfer { operation: Operation::done(Ok(report)), posted: None });
    };
    let posted = Posted { link: Arc::clone(link), id, doing, lane };
    Ok(Transfer { operation: Operation::new(done), posted: Some(posted) })
}

fn doing(op: TransferOp) -> Doing {
    match op {
        TransferOp::Write => Doing::Write,
        TransferOp::Read => Doing::Read,
    }
}
