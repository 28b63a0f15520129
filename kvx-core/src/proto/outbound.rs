//! Own transfers: posted here, carried out by lanes, each ending in exactly one terminal state.
//!
//! It decides whose runs go out next and knows which have landed. It does not know lanes (their
//! ledger reports frames as landed, lost or refused) nor the control stream.

mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Cause, Fence, Refusal, Resource, Violation};
use crate::id::{GrantId, RegionId, TransferId};
use crate::plan::Plan;
use crate::proto::clock::PeerClock;
use crate::proto::deadlines::Deadlines;
use crate::proto::lanes::SlotColumn;
use crate::proto::turns::Turns;
use crate::region::{Gate, Region};
use crate::time::Time;
use crate::transport::{Landing, PlannedFrame};
use crate::wire::{FrameHeader, MAX_FRAME_SPANS, READ_CREDIT};
use transfer::Transfer;

/// Transfers open at once, a peer.
const MAX_OPEN: usize = 65_536;

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferOp {
    /// Local bytes to the peer's memory.
    Write,
    /// The peer's bytes to local memory.
    Read,
}

/// Where the peer's side of a transfer lies.
#[derive(Clone, Debug)]
pub enum Target {
    /// Regions that the peer opened to holders of their keys, by the plan's remote indices.
    Regions(Arc<[RegionId]>),
    /// The regions of a grant, by the plan's remote indices.
    Grant(GrantId),
}

/// How long a transfer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Time without any run landing. Default 10 s.
    pub progress: Duration,
    /// Time in all; `None`: as long as it progresses.
    pub total: Option<Duration>,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { progress: Duration::from_secs(10), total: None }
    }
}

/// How a transfer ended, where it ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that are in the target's memory.
    pub bytes: u64,
    /// Runs that they moved in.
    pub runs: u32,
}

/// All own transfers to one peer.
#[derive(Debug)]
pub(crate) struct Outbound {
    open: BTreeMap<TransferId, Transfer>,
    /// The same by grant, for those under one.
    by_grant: BTreeSet<(GrantId, TransferId)>,
    /// Not later than each one's deadline, which moves on with every run that lands.
    deadlines: Deadlines<TransferId>,
    /// WRITEs and READs that have runs to hand out. The two take turns as well: a request carries no
    /// bytes, and waits for no WRITE's end.
    writes: Turns,
    reads: Turns,
    read_next: bool,
    /// The last id of each kind; READs count apart, with the top bit set.
    last_write: u64,
    last_read: u64,
    /// READ spans asked for and not yet answered, those of cancelled READs included until the
    /// peer has confirmed that it forgot them.
    read_spans: u32,
    /// Ended READs whose spans still count: released by `Fenced`.
    lingering: BTreeMap<TransferId, u32>,
}

/// A transfer that has reached its terminal state.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) transfer: TransferId,
    pub(crate) outcome: Result<TransferReport, Cause>,
    /// Whether the peer must be told to forget it.
    pub(crate) tell_peer: bool,
    /// READ: closed; own memory is fenced once it is drained.
    pub(crate) gate: Option<Arc<Gate>>,
}

/// A new transfer, checked by the caller.
pub(crate) struct NewTransfer {
    pub(crate) op: TransferOp,
    pub(crate) plan: Arc<Plan>,
    pub(crate) local: Arc<[Arc<Region>]>,
    pub(crate) slots: Option<SlotColumn>,
    pub(crate) grant: Option<GrantId>,
    pub(crate) limits: Deadline,
}

impl TransferId {
    const READ: u64 = 1 << 63;

    /// Whether it is a READ: READs are counted apart, with the top bit set, because their owner
    /// does not learn when they are complete (PROTOCOL 6.1).
    pub const fn is_read(self) -> bool {
        self.0 & Self::READ != 0
    }
}

impl Outbound {
    pub(crate) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            by_grant: BTreeSet::new(),
            deadlines: Deadlines::new(),
            writes: Turns::default(),
            reads: Turns::default(),
            read_next: false,
            last_write: 0,
            last_read: TransferId::READ,
            read_spans: 0,
            lingering: BTreeMap::new(),
        }
    }

    /// Takes a transfer of at least one run in.
    pub(crate) fn post(&mut self, now: Time, new: NewTransfer) -> Result<TransferId, Cause> {
        if self.open.len() >= MAX_OPEN {
            return Err(Cause::Busy(Resource::Transfers));
        }
        let last = match new.op {
            TransferOp::Write => &mut self.last_write,
            TransferOp::Read => &mut self.last_read,
        };
        *last += 1;
        let id = TransferId(*last);
        let transfer = Transfer::new(now, new);
        self.deadlines.insert(transfer.looked_at, id);
        self.by_grant.extend(transfer.grant.map(|grant| (grant, id)));
        self.open.insert(id, transfer);
        self.enqueue(id);
        Ok(id)
    }

    /// The peer has opened all of the transfer's regions.
    pub(crate) fn set_slots(&mut self, id: TransferId, slots: SlotColumn) {
        if let Some(transfer) = self.open.get_mut(&id) {
            transfer.slots = Some(slots);
            self.enqueue(id);
        }
    }

    pub(crate) fn contains(&self, id: TransferId) -> bool {
        self.open.contains_key(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether [`Self::next_frame`] has something.
    pub(crate) fn has_ready(&self) -> bool {
        !self.writes.is_empty() || (!self.reads.is_empty() && self.read_credit() > 0)
    }

    /// The next frame of the transfer whose turn it is: transfers take turns frame by frame, so
    /// that a small one does not wait for a large one's end.
    pub(crate) fn next_frame(
        &mut self,
        now: Time,
        clock: &PeerClock,
        frame_bytes: u32,
    ) -> Option<(TransferId, Range<u32>, PlannedFrame)> {
        self.read_next = !self.read_next;
        let credit = self.read_credit();
        let request = |reads: &mut Turns| (credit > 0).then(|| reads.next()).flatten();
        let id = if self.read_next {
            request(&mut self.reads).or_else(|| self.writes.next())
        } else {
            self.writes.next().or_else(|| request(&mut self.reads))
        }?;
        let transfer = self.open.get_mut(&id)?;
        transfer.turn = None;
        let max_runs = MAX_FRAME_SPANS as u32;
        let max_runs = if id.is_read() { max_runs.min(credit) } else { max_runs };
        let (runs, frame) = transfer.take_frame(id, now, clock, frame_bytes, max_runs)?;
        if id.is_read() {
            transfer.asked += frame.header.runs;
            self.read_spans += frame.header.runs;
        }
        self.enqueue(id);
        Some((id, runs, frame))
    }

    /// Frames of a WRITE have landed at the peer.
    pub(crate) fn landed(&mut self, now: Time, id: TransferId, runs: Range<u32>) -> Option<Ended> {
        self.open.get_mut(&id)?.land(now, runs);
        self.end_if_complete(id)
    }

    /// A request landed at the peer: not yet progress of data, but the peer is alive to it.
    pub(crate) fn request_landed(&mut self, now: Time, id: TransferId) {
        if let Some(transfer) = self.open.get_mut(&id) {
            transfer.progress(now);
        }
    }

    /// Runs that were on a lane never landed: they go out again, unless they were given up.
    pub(crate) fn lost(&mut self, id: TransferId, runs: Range<u32>) {
        self.forget_asked(id, runs.len() as u32);
        let Some(transfer) = self.open.get_mut(&id) else { return };
        if !transfer.cancelling {
            transfer.pending.push_front(runs);
            self.enqueue(id);
        }
    }

    /// The owner refused these runs.
    pub(crate) fn refused(
        &mut self,
        now: Time,
        id: TransferId,
        runs: Range<u32>,
        refusal: Refusal,
    ) -> Option<Ended> {
        let transfer = self.open.get(&id)?;
        if transfer.cancelling {
            // The answer to the cancellation decides.
            return None;
        }
        if refusal == Refusal::Expired {
            if now < transfer.deadline {
                self.lost(id, runs);
                return None;
            }
            let cause = transfer.deadline_cause();
            return self.end(id, Err(cause));
        }
        self.forget_asked(id, runs.len() as u32);
        self.end(id, Err(Cause::Refused(refusal)))
    }

    /// The owner had accepted the request for these runs, and did not come to answer it in time.
    pub(crate) fn expired(
        &mut self,
        now: Time,
        id: TransferId,
        runs: Range<u32>,
    ) -> Result<Option<Ended>, Violation> {
        let Some(transfer) = self.open.get(&id) else { return Ok(None) };
        let total = transfer.plan.len() as u32;
        if !id.is_read() || runs.end > total || transfer.asked < runs.len() as u32 {
            let why = "no READ has asked for these runs";
            return Err(Violation::Unexpected { message: "ReadExpired", why });
        }
        Ok(self.refused(now, id, runs, Refusal::Expired))
    }

    /// Fails one transfer.
    pub(crate) fn fail(&mut self, id: TransferId, cause: Cause) -> Option<Ended> {
        self.end(id, Err(cause))
    }

    /// Fails every transfer.
    pub(crate) fn fail_all(&mut self, cause: &Cause) -> Vec<Ended> {
        let ids: Vec<TransferId> = self.open.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.end(id, Err(cause.clone()))).collect()
    }

    /// The peer has forgotten everything: so does this side, but for the counting of ids.
    pub(crate) fn restart(&mut self, cause: &Cause) -> Vec<Ended> {
        let ended = self.fail_all(cause);
        self.lingering.clear();
        self.read_spans = 0;
        ended
    }

    /// Fails the transfers under a grant.
    pub(crate) fn fail_grant(&mut self, grant: GrantId, cause: &Cause) -> Vec<Ended> {
        let under = (grant, TransferId(0))..=(grant, TransferId(u64::MAX));
        let ids: Vec<TransferId> = self.by_grant.range(under).map(|(_, id)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id, Err(cause.clone()))).collect()
    }

    /// Fails the transfers that use a local region which is to be deregistered. Looks at all of
    /// them: deregistering is rare.
    pub(crate) fn fail_region(&mut self, region: RegionId) -> Vec<Ended> {
        let uses = |transfer: &Transfer| transfer.local.iter().any(|local| local.id == region);
        let ids: Vec<TransferId> =
            self.open.iter().filter(|(_, transfer)| uses(transfer)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id, Err(Cause::RegionClosed))).collect()
    }

    /// The user gives a transfer up. Ends at once where nothing can land any more: a READ, whose
    /// memory is ours to fence, and a WRITE of which nothing was handed out. Otherwise waits for
    /// the owner's `Fenced` or the deadline; the owner must be told (`true`).
    pub(crate) fn cancel(&mut self, id: TransferId) -> (Option<Ended>, bool) {
        let Some(transfer) = self.open.get_mut(&id) else { return (None, false) };
        if transfer.op == TransferOp::Read || !transfer.touched {
            let ended = self.end(id, Err(Cause::Cancelled(Fence::Fenced)));
            return (ended, false);
        }
        let first = !std::mem::replace(&mut transfer.cancelling, true);
        transfer.pending.clear();
        if let Some(turn) = transfer.turn.take() {
            self.writes.leave(turn);
        }
        (None, first)
    }

    /// The owner has confirmed a `Cancel`.
    pub(crate) fn fenced(&mut self, id: TransferId) -> Option<Ended> {
        if let Some(spans) = self.lingering.remove(&id) {
            self.read_spans -= spans;
        }
        let transfer = self.open.get(&id)?;
        let outcome = Err(Cause::Cancelled(Fence::Fenced));
        transfer.cancelling.then(|| self.end(id, outcome)).flatten()
    }

    /// Where the payload of a READ answer lands; `None`: nowhere, for the READ has ended or the
    /// runs are here already.
    pub(crate) fn place(
        &self,
        header: &FrameHeader,
        landing: &mut Landing,
    ) -> Result<Option<()>, Violation> {
        let Some(transfer) = self.open.get(&header.transfer) else { return Ok(None) };
        transfer.place(header, landing)
    }

    /// READ data has landed in own memory.
    pub(crate) fn received(&mut self, now: Time, header: &FrameHeader) -> Option<Ended> {
        let id = header.transfer;
        let runs = header.first_run..header.first_run + header.runs;
        let new = self.open.get_mut(&id)?.land(now, runs);
        self.forget_asked(id, new as u32);
        self.end_if_complete(id)
    }

    /// Ends the transfers whose deadline has come.
    pub(crate) fn handle_timeout(&mut self, now: Time) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some(id) = self.deadlines.pop(now) {
            let Some(transfer) = self.open.get_mut(&id) else { continue };
            if transfer.deadline <= now {
                let cause = transfer.deadline_cause();
                ended.extend(self.end(id, Err(cause)));
            } else {
                transfer.looked_at = transfer.deadline;
                self.deadlines.insert(transfer.deadline, id);
            }
        }
        ended
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Time {
        self.deadlines.next()
    }

    /// What is kept for transfers that have not ended, or whose spans are not given back.
    pub(crate) fn residue(&self) -> [(&'static str, u64); 4] {
        [
            ("own transfers", self.open.len() as u64),
            ("turns of own transfers", (self.writes.len() + self.reads.len()) as u64),
            ("spans of own READs", u64::from(self.read_spans)),
            ("ended READs", self.lingering.len() as u64),
        ]
    }

    fn end_if_complete(&mut self, id: TransferId) -> Option<Ended> {
        let report = self.open.get(&id)?.report()?;
        self.end(id, Ok(report))
    }

    /// The one place where a transfer leaves: its terminal state is reached once.
    fn end(&mut self, id: TransferId, outcome: Result<TransferReport, Cause>) -> Option<Ended> {
        let transfer = self.open.remove(&id)?;
        transfer.gate.close();
        self.deadlines.remove(transfer.looked_at, id);
        if let Some(grant) = transfer.grant {
            self.by_grant.remove(&(grant, id));
        }
        if let Some(turn) = transfer.turn {
            self.turns_of(id).leave(turn);
        }
        // Of a WRITE the peer hears in any case: it counts them, and a notification or layers may
        // wait for it there. A cancelled one it was told of before.
        let known = transfer.touched || transfer.op == TransferOp::Write;
        let tell_peer = outcome.is_err() && known && !transfer.cancelling;
        if transfer.asked > 0 {
            if tell_peer {
                self.lingering.insert(id, transfer.asked);
            } else {
                self.read_spans -= transfer.asked;
            }
        }
        Some(Ended {
            transfer: id,
            outcome,
            tell_peer,
            gate: (transfer.op == TransferOp::Read).then_some(transfer.gate),
        })
    }

    /// A transfer that has runs to hand out waits for its turn.
    fn enqueue(&mut self, id: TransferId) {
        let Some(transfer) = self.open.get_mut(&id) else { return };
        if transfer.slots.is_none() || transfer.pending.is_empty() || transfer.turn.is_some() {
            return;
        }
        let turns = if id.is_read() { &mut self.reads } else { &mut self.writes };
        transfer.turn = Some(turns.join(id));
    }

    fn turns_of(&mut self, id: TransferId) -> &mut Turns {
        if id.is_read() { &mut self.reads } else { &mut self.writes }
    }

    /// READ spans that may be asked for now.
    fn read_credit(&self) -> u32 {
        READ_CREDIT.saturating_sub(self.read_spans)
    }

    fn forget_asked(&mut self, id: TransferId, runs: u32) {
        let Some(transfer) = self.open.get_mut(&id).filter(|_| id.is_read()) else { return };
        let runs = runs.min(transfer.asked);
        transfer.asked -= runs;
        self.read_spans -= runs;
    }
}
