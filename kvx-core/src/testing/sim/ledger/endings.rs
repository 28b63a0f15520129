//! What must be true when something has ended, and when everything has.

use std::sync::Arc;

use crate::error::{Cause, Fence};
use crate::id::{NotificationId, TransferId};
use crate::proto::{Delivery, TransferOp, TransferReport};
use crate::region::Gate;
use crate::testing::sim::engine::State;
use crate::testing::sim::ledger::{Fate, NoteIndex, Stage, TransferIndex, Waits};
use crate::testing::sim::user::GUARD;
use crate::testing::sim::{Fault, Happening, Instant, MS, World};

/// A system call that is in progress when a deadline comes takes no longer.
const CALL: Instant = 200 * MS;
/// How late a timer may be, and how much two clocks differ over a transfer's time.
const LATE: Instant = 50 * MS;

impl World {
    pub(crate) fn count_end(&mut self, end: String) {
        *self.report.ends.entry(end).or_default() += 1;
    }

    pub(crate) fn transfer_ended(
        &mut self,
        engine: usize,
        remote: usize,
        id: TransferId,
        outcome: Result<TransferReport, Cause>,
        fence: Option<Arc<Gate>>,
    ) {
        let association = self.link(engine, remote).association;
        let index = self.ledger.find(association, id).expect("a transfer that was posted");
        let transfer = &self.ledger.transfers[index];
        let op = transfer.op;
        self.note(|| format!("#{index} of {engine} with {remote} ended: {outcome:?}"));
        assert_eq!(transfer.stage, Stage::Open, "#{index} has a second end: {outcome:?}");
        assert_eq!(fence.is_some(), op == TransferOp::Read);
        self.check_in_time(index);
        let session = self.ledger.transfers[index].session;
        let name = match &outcome {
            Ok(_) => format!("{op:?} done"),
            Err(cause) => format!("{op:?} failed: {}", kind_of(cause)),
        };
        self.count_end(name);
        if let Err(Cause::Deadline { .. }) = &outcome {
            self.count(Fault::Deadline);
        }
        let initiator = self.ledger.transfers[index].parties[0];
        self.ledger.last_ended.insert(initiator, index);
        match (&outcome, fence) {
            (Ok(report), _) => {
                let bytes: usize =
                    self.ledger.transfers[index].pieces.iter().map(|piece| piece.bytes.len()).sum();
                assert_eq!(report.bytes, bytes as u64);
                // A receiver whose session is complete may have other things in its blocks.
                let there = session.is_some() || self.is_there(index);
                let landed = self.ledger.transfers[index].has_landed();
                // A hostile owner says what it likes of its own memory.
                let believed = op == TransferOp::Write && self.setting.is_hostile(remote);
                assert!(believed || there && landed, "#{index} is done, and not all is there");
                self.ledger.transfers[index].done = true;
                if let Some(note) = self.ledger.transfers[index].note
                    && op == TransferOp::Read
                {
                    self.ledger.due(note);
                }
                self.set_stage(index, Stage::Over);
            }
            (Err(_), Some(fence)) => {
                self.set_stage(index, Stage::Failed);
                self.ledger.draining.push((fence, Waits::Read(index)));
            }
            (Err(Cause::Cancelled(Fence::Fenced)), None) => self.set_stage(index, Stage::Over),
            (Err(Cause::Deadline { .. } | Cause::Cancelled(Fence::Unfenced)), None) => {
                if self.has_jumped(index) {
                    return self.outlive(index);
                }
                self.set_stage(index, Stage::Expired);
                self.after(CALL, Happening::Forbid(index));
            }
            (Err(_), None) => self.outlive(index),
        }
        if let Some(session) = session.filter(|_| outcome.is_err()) {
            self.session_write_failed(session);
        }
    }

    /// A WRITE has failed, or its initiator died: its bytes may land until its last deadline.
    fn outlive(&mut self, index: TransferIndex) {
        let transfer = &self.ledger.transfers[index];
        let progress = transfer.limits.progress.as_nanos() as u64;
        let jumped: u64 =
            transfer.parties.iter().map(|(engine, _)| self.engines[*engine].jumped).sum();
        self.set_stage(index, Stage::Failed);
        let until = self.now + progress + progress / 100 + CALL + jumped;
        self.ledger.transfers[index].lingers = until;
        self.at(until, Happening::Forbid(index));
    }

    /// Whether what the initiator knows of the target's clock may be wrong: an expiry says nothing
    /// then.
    fn has_jumped(&self, index: TransferIndex) -> bool {
        let parties = self.ledger.transfers[index].parties;
        parties.iter().any(|(engine, _)| self.engines[*engine].jumped > 0)
    }

    pub(crate) fn forbid(&mut self, index: TransferIndex) {
        if matches!(self.ledger.transfers[index].stage, Stage::Failed | Stage::Expired) {
            self.set_stage(index, Stage::Over);
        }
    }

    /// Every transfer ends by its deadline, give or take a timer.
    fn check_in_time(&self, index: TransferIndex) {
        let transfer = &self.ledger.transfers[index];
        let (initiator, _) = transfer.parties[0];
        let here = &self.engines[initiator];
        let awake = here.went_on < transfer.posted
            && here.state == State::Running
            && here.slowness.is_none();
        if let Some(total) = transfer.limits.total.filter(|_| awake) {
            let latest = transfer.posted + total.as_nanos() as u64 + LATE;
            assert!(self.now <= latest, "#{index} ended {} ns late", self.now - latest);
        }
    }

    fn set_stage(&mut self, index: TransferIndex, stage: Stage) {
        let initiator = self.ledger.transfers[index].parties[0];
        self.ledger.transfers[index].stage = stage;
        if let Some(open) = self.ledger.open.get_mut(&initiator) {
            open.remove(&index);
        }
        self.release(index);
        if let Some(session) = self.ledger.transfers[index].session {
            self.free_source(session);
        }
    }

    /// Gives the memory of a transfer that is over into other hands, once its notification is
    /// settled: its receiver may look at the memory until then.
    fn release(&mut self, index: TransferIndex) {
        let transfer = &self.ledger.transfers[index];
        let settled = transfer.note.is_none_or(|note| self.ledger.notes[note].fate.is_some());
        if transfer.stage == Stage::Over && settled {
            let session = transfer.session;
            let cells = std::mem::take(&mut self.ledger.transfers[index].cells);
            self.ledger.transfers[index].forget_bytes();
            if let Some(session) = session {
                self.ledger.sessions[session].transfer_released();
            }
            self.free_cells(&cells);
        }
    }

    pub(crate) fn note_settled(&mut self, serial: u64, id: NotificationId, fate: &Delivery) {
        let Some(&index) = self.ledger.notes_by_id.get(&(serial, id.0)) else {
            unreachable!("a notification that nobody sent is settled")
        };
        let fate = match fate {
            Delivery::Delivered => Fate::Delivered,
            Delivery::NotDelivered(_) => Fate::NotDelivered,
            Delivery::Unknown(_) => Fate::Unknown,
        };
        self.count_end(format!("notification {fate:?}"));
        self.note(|| format!("notification {index} is settled: {fate:?}"));
        let note = &mut self.ledger.notes[index];
        assert!(note.fate.is_none(), "notification {index} was settled before");
        note.fate = Some(fate);
        if let Some(unsettled) = self.ledger.unsettled.get_mut(&note.from) {
            unsettled.remove(&index);
        }
        match fate {
            // A hostile receiver says what it likes.
            Fate::Delivered if self.setting.is_hostile(note.to) => {}
            Fate::Delivered => assert_eq!(note.delivered, 1, "notification {index} has not come"),
            Fate::NotDelivered => assert_eq!(note.delivered, 0, "notification {index} has come"),
            Fate::Unknown => {}
        }
        if let Some(transfer) = note.after {
            self.release(transfer);
        }
    }

    /// An engine has died: what it had asked for ends here.
    pub(crate) fn engine_died(&mut self, engine: usize) {
        let life = (engine, self.engines[engine].life);
        for index in self.ledger.open.remove(&life).unwrap_or_default() {
            self.outlive(index);
        }
        for index in self.ledger.unsettled.remove(&life).unwrap_or_default() {
            let note = &mut self.ledger.notes[index];
            note.fate = Some(Fate::Unknown);
            if let Some(transfer) = note.after {
                self.release(transfer);
            }
        }
    }

    /// Deals with gates that have drained: from here on nothing lands behind them.
    pub(crate) fn check_drained(&mut self) {
        if self.ledger.draining.is_empty() && self.ledger.regions.is_empty() {
            return;
        }
        let draining = std::mem::take(&mut self.ledger.draining);
        let (drained, waiting): (Vec<_>, Vec<_>) =
            draining.into_iter().partition(|(gate, _)| gate.is_drained());
        self.ledger.draining.extend(waiting);
        for (_, waits) in drained {
            match waits {
                Waits::Read(index) => self.set_stage(index, Stage::Over),
                Waits::Session(session) => self.session_fenced(session),
            }
        }
        let regions = std::mem::take(&mut self.ledger.regions);
        for (region, owner, holding) in regions {
            if self.engines[owner.0].life != owner.1 {
                continue;
            }
            if region.gate.is_drained() && self.engines[owner.0].is_alive() {
                self.register_again(owner.0, holding, region.rights);
            } else {
                self.ledger.regions.push((region, owner, holding));
            }
        }
    }

    /// At the end of a run: everything has ended, as it should, and nothing is left.
    pub(crate) fn check_all_is_over(&mut self) {
        for (index, transfer) in self.ledger.transfers.iter().enumerate() {
            let (engine, life) = transfer.parties[0];
            let alive = self.engines[engine].life == life;
            assert!(!transfer.due || transfer.done, "nothing was in the way of #{index}");
            let lingers = transfer.stage == Stage::Failed && transfer.lingers > self.now;
            assert!(
                !alive || lingers || transfer.stage == Stage::Released,
                "#{index} is {:?}",
                transfer.stage
            );
        }
        for index in 0..self.ledger.notes.len() {
            self.check_note(index);
        }
        self.check_sessions();
        for (index, engine) in self.engines.iter().enumerate() {
            if self.setting.is_hostile(index) {
                continue;
            }
            let belongings = &engine.belongings;
            for estate in &belongings.estates {
                for edge in [estate.segment.base - GUARD, estate.segment.base + estate.segment.len]
                {
                    let guard = engine.memory.bytes(edge, GUARD as usize);
                    assert!(
                        guard.iter().all(|byte| *byte == 0x11),
                        "bytes beyond a region changed"
                    );
                }
            }
            (0..belongings.baits.len()).for_each(|bait| self.check_bait(index, bait));
            for link in engine.links.values() {
                let left = link.peer.residue();
                assert!(left.is_empty(), "a peer has something left: {left:?}");
            }
        }
        for engine in 0..self.engines.len() {
            if !self.setting.is_hostile(engine) {
                self.check_all_cells(engine);
            }
        }
    }

    fn check_all_cells(&self, engine: usize) {
        let owner = (engine, self.engines[engine].life);
        for (estate, here) in self.engines[engine].belongings.estates.iter().enumerate() {
            for index in 0..here.cells.len() {
                self.check_untouched(super::Cell { owner, estate, index });
            }
        }
    }

    /// Exactly once, while both lives last and neither side lost the other.
    fn check_note(&self, index: NoteIndex) {
        let note = &self.ledger.notes[index];
        let (from, life) = note.from;
        if self.engines[from].life != life {
            return;
        }
        assert!(note.fate.is_some(), "notification {index} has no fate");
        let whole = !self.ledger.broken_since(from, note.to, note.sent)
            && !self.setting.is_hostile(note.to);
        let due = note.after.is_none_or(|transfer| self.ledger.transfers[transfer].done);
        if whole && due && note.fate != Some(Fate::NotDelivered) {
            assert_eq!(note.delivered, 1, "notification {index} was lost");
        }
    }
}

/// A cause without its particulars.
fn kind_of(cause: &Cause) -> String {
    let text = format!("{cause:?}");
    let end = text.find([' ', '{']).unwrap_or(text.len());
    text[..end].to_owned()
}
