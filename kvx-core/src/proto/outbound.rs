//! Own transfers: posted here, carried out by lanes, each ending in exactly one terminal state.
//!
//! It decides which runs go out next and knows which have landed. It does not know lanes (their
//! ledger reports frames as landed, lost or refused) nor the control stream.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Cause, Fence, Refusal, Resource, Violation};
use crate::id::{GrantId, RegionId, TransferId};
use crate::plan::Plan;
use crate::proto::clock::PeerClock;
use crate::proto::id_set::IdSet;
use crate::proto::lanes::SlotColumn;
use crate::region::{Gate, Region};
use crate::time::Time;
use crate::transport::{Landing, LocalSpan, PlannedFrame};
use crate::wire::{FrameFlags, FrameHeader, FrameKind, MAX_FRAME_SPANS, READ_CREDIT};

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
    /// Transfers that have runs to hand out, in turn. May name ended ones.
    ready: VecDeque<TransferId>,
    /// The last id of each kind; READs count apart, with the top bit set.
    last_write: u64,
    last_read: u64,
    /// READ spans asked for and not yet answered, those of cancelled READs included until the
    /// peer has confirmed that it forgot them.
    read_spans: u32,
    /// Ended READs whose spans still count: released by `Fenced`.
    lingering: BTreeMap<TransferId, u32>,
    /// Whether a READ waits for credit.
    starved: bool,
    /// Not later than any open transfer's deadline.
    next_check: Time,
}

#[derive(Debug)]
struct Transfer {
    op: TransferOp,
    plan: Arc<Plan>,
    local: Arc<[Arc<Region>]>,
    /// Known once the peer has opened all regions.
    slots: Option<SlotColumn>,
    grant: Option<GrantId>,
    /// Runs to hand out, in order. Those on lanes are in neither list.
    pending: VecDeque<Range<u32>>,
    /// Runs that have landed; for a READ, in own memory.
    landed: IdSet,
    /// READ: runs asked for and not yet answered.
    asked: u32,
    /// READ: bytes land only while it is open.
    gate: Arc<Gate>,
    /// Whether any frame was handed to a lane.
    touched: bool,
    /// Set once the user has asked: nothing is handed out any more.
    cancelling: bool,
    limits: Deadline,
    /// Without progress the transfer fails here; never after `total`.
    deadline: Time,
    total: Time,
    /// Whether it stands in `ready`.
    queued: bool,
}

/// A transfer that has reached its terminal state.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) transfer: TransferId,
    pub(crate) op: TransferOp,
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
            ready: VecDeque::new(),
            last_write: 0,
            last_read: TransferId::READ,
            read_spans: 0,
            lingering: BTreeMap::new(),
            starved: false,
            next_check: Time::NEVER,
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
        let total = new.limits.total.map_or(Time::NEVER, |total| now + total);
        let runs = new.plan.len() as u32;
        let transfer = Transfer {
            op: new.op,
            plan: new.plan,
            local: new.local,
            slots: new.slots,
            grant: new.grant,
            pending: std::iter::once(0..runs).collect(),
            landed: IdSet::new(usize::MAX),
            asked: 0,
            gate: Arc::new(Gate::new()),
            touched: false,
            cancelling: false,
            limits: new.limits,
            deadline: (now + new.limits.progress).min(total),
            total,
            queued: false,
        };
        self.next_check = self.next_check.min(transfer.deadline);
        let has_slots = transfer.slots.is_some();
        self.open.insert(id, transfer);
        if has_slots {
            self.enqueue(id);
        }
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

    /// Whether [`Self::next_frame`] may have something.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next frame of the transfer whose turn it is: transfers take turns frame by frame, so
    /// that a small one does not wait for a large one's end.
    pub(crate) fn next_frame(
        &mut self,
        now: Time,
        clock: &PeerClock,
        frame_bytes: u32,
    ) -> Option<(TransferId, Range<u32>, PlannedFrame)> {
        for _ in 0..self.ready.len() {
            let id = self.ready.pop_front()?;
            let credit = READ_CREDIT.saturating_sub(self.read_spans);
            let Some(transfer) = self.open.get_mut(&id) else { continue };
            transfer.queued = false;
            let max_runs = match transfer.op {
                TransferOp::Write => MAX_FRAME_SPANS as u32,
                TransferOp::Read => credit.min(MAX_FRAME_SPANS as u32),
            };
            let frame = transfer.take_frame(id, now, clock, frame_bytes, max_runs);
            if frame.is_some() && transfer.op == TransferOp::Read {
                let runs = frame.as_ref().map_or(0, |(_, frame)| frame.header.runs);
                transfer.asked += runs;
                self.read_spans += runs;
            }
            self.enqueue(id);
            if let Some((runs, frame)) = frame {
                return Some((id, runs, frame));
            }
        }
        None
    }

    /// Frames of a WRITE have landed at the peer.
    pub(crate) fn landed(&mut self, now: Time, id: TransferId, runs: Range<u32>) -> Option<Ended> {
        let transfer = self.open.get_mut(&id)?;
        // An unbounded set never refuses.
        let _ = transfer.landed.insert(u64::from(runs.start), runs.len() as u64);
        transfer.progress(now);
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
        let under = |transfer: &Transfer| transfer.grant == Some(grant);
        let ids: Vec<TransferId> =
            self.open.iter().filter(|(_, transfer)| under(transfer)).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id, Err(cause.clone()))).collect()
    }

    /// Fails the transfers that use a local region which is to be deregistered.
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
        (None, first)
    }

    /// The owner has confirmed a `Cancel`.
    pub(crate) fn fenced(&mut self, id: TransferId) -> Option<Ended> {
        if let Some(spans) = self.lingering.remove(&id) {
            self.read_spans -= spans;
            self.requeue_reads();
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
        let runs = header.first_run..header.first_run + header.runs;
        let total = transfer.plan.len() as u32;
        if transfer.op != TransferOp::Read || header.total_runs != total || runs.end > total {
            return Err(Violation::Unexpected {
                message: "READ data",
                why: "no READ has these runs",
            });
        }
        if transfer.landed.contains_range(u64::from(runs.start), u64::from(header.runs)) {
            return Ok(None);
        }
        let mut bytes = 0u64;
        let mut index_of: Vec<(u32, u32)> = Vec::new();
        for index in runs {
            let run = transfer.plan.run(index as usize);
            bytes += u64::from(run.len);
            let region = match index_of.iter().rev().find(|(local, _)| *local == run.local) {
                Some(&(_, region)) => region,
                None => {
                    let region = landing.regions.len() as u32;
                    landing.regions.push(Arc::clone(&transfer.local[run.local as usize]));
                    index_of.push((run.local, region));
                    region
                }
            };
            landing.spans.push(LocalSpan { region, len: run.len, offset: run.local_offset });
        }
        if bytes != u64::from(header.payload_len) {
            return Err(Violation::Unexpected {
                message: "READ data",
                why: "its length is not its runs'",
            });
        }
        landing.gates.push(Arc::clone(&transfer.gate));
        // The gate closes when the transfer ends, by its deadline at the latest; the expiry holds
        // even while nobody runs the timers.
        landing.expiry = transfer.deadline;
        Ok(Some(()))
    }

    /// READ data has landed in own memory.
    pub(crate) fn received(&mut self, now: Time, header: &FrameHeader) -> Option<Ended> {
        let id = header.transfer;
        let transfer = self.open.get_mut(&id)?;
        let inserted = transfer.landed.insert(u64::from(header.first_run), u64::from(header.runs));
        transfer.progress(now);
        self.forget_asked(id, inserted.unwrap_or(0) as u32);
        self.requeue_reads();
        self.end_if_complete(id)
    }

    /// Ends the transfers whose deadline has come.
    pub(crate) fn handle_timeout(&mut self, now: Time) -> Vec<Ended> {
        if now < self.next_check {
            return Vec::new();
        }
        let late: Vec<(TransferId, Cause)> = self
            .open
            .iter()
            .filter(|(_, transfer)| transfer.deadline <= now)
            .map(|(id, transfer)| (*id, transfer.deadline_cause()))
            .collect();
        let ended = late.into_iter().filter_map(|(id, cause)| self.end(id, Err(cause))).collect();
        self.next_check =
            self.open.values().map(|transfer| transfer.deadline).min().unwrap_or(Time::NEVER);
        ended
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Time {
        self.next_check
    }

    /// What is kept for transfers that have not ended, or whose spans are not given back.
    pub(crate) fn residue(&self) -> [(&'static str, u64); 3] {
        [
            ("own transfers", self.open.len() as u64),
            ("spans of own READs", u64::from(self.read_spans)),
            ("ended READs", self.lingering.len() as u64),
        ]
    }

    fn end_if_complete(&mut self, id: TransferId) -> Option<Ended> {
        let transfer = self.open.get(&id)?;
        if transfer.landed.count() < transfer.plan.len() as u64 {
            return None;
        }
        let report =
            TransferReport { bytes: transfer.plan.bytes(), runs: transfer.plan.len() as u32 };
        self.end(id, Ok(report))
    }

    /// The one place where a transfer leaves: its terminal state is reached once.
    fn end(&mut self, id: TransferId, outcome: Result<TransferReport, Cause>) -> Option<Ended> {
        let transfer = self.open.remove(&id)?;
        transfer.gate.close();
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
            op: transfer.op,
            outcome,
            tell_peer,
            gate: (transfer.op == TransferOp::Read).then_some(transfer.gate),
        })
    }

    fn enqueue(&mut self, id: TransferId) {
        let Some(transfer) = self.open.get_mut(&id) else { return };
        if transfer.slots.is_none() || transfer.pending.is_empty() || transfer.queued {
            return;
        }
        if transfer.op == TransferOp::Read && self.read_spans >= READ_CREDIT {
            self.starved = true;
            return;
        }
        transfer.queued = true;
        self.ready.push_back(id);
    }

    /// Credit came back: READs that waited for it go on.
    fn requeue_reads(&mut self) {
        if !std::mem::take(&mut self.starved) {
            return;
        }
        let waiting = |transfer: &Transfer| {
            transfer.op == TransferOp::Read && !transfer.queued && !transfer.pending.is_empty()
        };
        let ids: Vec<TransferId> = self
            .open
            .range(TransferId(TransferId::READ)..)
            .filter(|(_, transfer)| waiting(transfer))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.enqueue(id));
    }

    fn forget_asked(&mut self, id: TransferId, runs: u32) {
        let asked = match self.open.get_mut(&id) {
            Some(transfer) if transfer.op == TransferOp::Read => &mut transfer.asked,
            _ => return,
        };
        let runs = runs.min(*asked);
        *asked -= runs;
        self.read_spans -= runs;
    }
}

impl Transfer {
    fn progress(&mut self, now: Time) {
        if !self.cancelling {
            self.deadline = (now + self.limits.progress).min(self.total);
        }
    }

    fn deadline_cause(&self) -> Cause {
        if self.cancelling {
            return Cause::Cancelled(Fence::Unfenced);
        }
        let total = self.deadline >= self.total;
        let after = match self.limits.total {
            Some(limit) if total => limit,
            _ => self.limits.progress,
        };
        Cause::Deadline { after, total }
    }

    /// Cuts the next frame off the pending runs.
    fn take_frame(
        &mut self,
        id: TransferId,
        now: Time,
        clock: &PeerClock,
        frame_bytes: u32,
        max_runs: u32,
    ) -> Option<(Range<u32>, PlannedFrame)> {
        let slots = Arc::clone(self.slots.as_ref()?);
        let front = self.pending.front_mut()?;
        let first = front.start;
        let mut bytes = 0u32;
        let mut end = first;
        while end < front.end && end - first < max_runs {
            let len = self.plan.run(end as usize).len;
            if end > first && bytes.saturating_add(len) > frame_bytes {
                break;
            }
            bytes += len;
            end += 1;
        }
        if end == first {
            return None;
        }
        front.start = end;
        if front.start == front.end {
            self.pending.pop_front();
        }
        self.touched = true;
        let kind = match self.op {
            TransferOp::Write => FrameKind::Write,
            TransferOp::Read => FrameKind::ReadRequest,
        };
        let header = FrameHeader {
            kind,
            flags: FrameFlags::empty(),
            payload_len: if kind == FrameKind::Write { bytes } else { 0 },
            transfer: id,
            grant: self.grant,
            expiry: clock.no_later_than(self.deadline, now),
            first_run: first,
            runs: end - first,
            total_runs: self.plan.len() as u32,
            table_crc: 0,
            payload_crc: 0,
            digest: 0,
            processed: 0,
            refused: 0,
        };
        let frame = PlannedFrame {
            header,
            plan: Arc::clone(&self.plan),
            local: Arc::clone(&self.local),
            slots,
        };
        Some((first..end, frame))
    }
}
