//! One own transfer: which of its runs wait, which have landed, and how long it may take.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::{Deadline, NewTransfer, TransferOp, TransferReport};
use crate::error::{Cause, Fence, Violation};
use crate::id::{GrantId, TransferId};
use crate::plan::Plan;
use crate::proto::clock::PeerClock;
use crate::proto::id_set::IdSet;
use crate::proto::lanes::SlotColumn;
use crate::proto::turns::Turn;
use crate::region::{Gate, Region};
use crate::time::Time;
use crate::transport::{Landing, PlannedFrame};
use crate::wire::{FrameFlags, FrameHeader, FrameKind};

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) op: TransferOp,
    pub(super) plan: Arc<Plan>,
    pub(super) local: Arc<[Arc<Region>]>,
    /// Known once the peer has opened all regions.
    pub(super) slots: Option<SlotColumn>,
    pub(super) grant: Option<GrantId>,
    /// Runs to hand out, in order. Those on lanes are in neither list.
    pub(super) pending: VecDeque<Range<u32>>,
    /// Runs that have landed; for a READ, in own memory.
    landed: IdSet,
    /// READ: runs asked for and not yet answered.
    pub(super) asked: u32,
    /// READ: bytes land only while it is open.
    pub(super) gate: Arc<Gate>,
    /// Whether any frame was handed to a lane.
    pub(super) touched: bool,
    /// Set once the user has asked: nothing is handed out any more.
    pub(super) cancelling: bool,
    limits: Deadline,
    /// Without progress the transfer fails here; never after `total`.
    pub(super) deadline: Time,
    total: Time,
    /// When the deadline is looked at next: not later than it.
    pub(super) looked_at: Time,
    /// Its place among those that wait to hand runs out, while it does.
    pub(super) turn: Option<Turn>,
}

impl Transfer {
    pub(super) fn new(now: Time, new: NewTransfer) -> Self {
        let total = new.limits.total.map_or(Time::NEVER, |total| now + total);
        let deadline = (now + new.limits.progress).min(total);
        let runs = new.plan.len() as u32;
        Self {
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
            deadline,
            total,
            looked_at: deadline,
            turn: None,
        }
    }

    pub(super) fn progress(&mut self, now: Time) {
        if !self.cancelling {
            self.deadline = (now + self.limits.progress).min(self.total);
        }
    }

    /// These runs have landed. Returns how many of them had not before.
    pub(super) fn land(&mut self, now: Time, runs: Range<u32>) -> u64 {
        self.progress(now);
        // An unbounded set never refuses.
        self.landed.insert(u64::from(runs.start), runs.len() as u64).unwrap_or(0)
    }

    /// What it has moved, once that is all.
    pub(super) fn report(&self) -> Option<TransferReport> {
        let report = TransferReport { bytes: self.plan.bytes(), runs: self.plan.len() as u32 };
        (self.landed.count() >= self.plan.len() as u64).then_some(report)
    }

    pub(super) fn deadline_cause(&self) -> Cause {
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

    /// READ: where the payload of an answer lands; `None`: nowhere, for the runs are here already.
    pub(super) fn place(
        &self,
        header: &FrameHeader,
        landing: &mut Landing,
    ) -> Result<Option<()>, Violation> {
        let runs = header.first_run..header.first_run + header.runs;
        let total = self.plan.len() as u32;
        if self.op != TransferOp::Read || header.total_runs != total || runs.end > total {
            return Err(Violation::Unexpected {
                message: "READ data",
                why: "no READ has these runs",
            });
        }
        if self.landed.contains_range(u64::from(runs.start), u64::from(header.runs)) {
            return Ok(None);
        }
        let mut bytes = 0u64;
        for index in runs {
            let run = self.plan.run(index as usize);
            bytes += u64::from(run.len);
            landing.push(&self.local[run.local as usize], run.local_offset, run.len);
        }
        if bytes != u64::from(header.payload_len) {
            return Err(Violation::Unexpected {
                message: "READ data",
                why: "its length is not its runs'",
            });
        }
        landing.gates.push(Arc::clone(&self.gate));
        // The gate closes when the transfer ends, by its deadline at the latest; the expiry holds
        // even while nobody runs the timers.
        landing.expiry = self.deadline;
        Ok(Some(()))
    }

    /// Cuts the next frame off the pending runs.
    pub(super) fn take_frame(
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
