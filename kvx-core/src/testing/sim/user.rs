//! What users of simulated engines do: transfers, notifications, cancelling, deregistering. It
//! keeps the rules that users keep: concurrent transfers touch different bytes, a source does not
//! change while it is read, and memory is used again only once it is its owner's again.

mod lists;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Cause;
use crate::plan::{Plan, PlanOptions};
use crate::proto::{Deadline, Post, Target, TransferOp};
use crate::testing::sim::engine::State;
use crate::testing::sim::ledger::{Note, Piece, Transfer, TransferIndex};
use crate::testing::sim::{Fault, Happening, MS, SECOND, World};

pub(crate) use memory::{Bait, Belongings, CELL, GUARD};
impl World {
    pub(crate) fn user_acts(&mut self, engine: usize) {
        if self.is_calm() {
            return;
        }
        let hostile = self.setting.is_hostile(engine);
        let haste = if hostile { 9 } else { 1 };
        let pause = self.random.within(MS..self.setting.user_pause / haste);
        self.after(pause, Happening::User(engine));
        if self.engines[engine].state != State::Running {
            return;
        }
        if hostile {
            return self.do_mischief(engine);
        }
        let partners = &self.setting.partners[engine];
        let remote = partners[self.random.index(partners.len())];
        let spared = self.setting.is_spared(engine);
        match self.random.within(0..100) {
            0..33 => self.start_transfer(engine, remote, TransferOp::Write),
            33..52 => self.start_transfer(engine, remote, TransferOp::Read),
            52..64 => self.notify(engine, remote),
            64..67 => self.notify_much(engine, remote),
            67..70 => self.cancel_late(engine),
            70..79 => self.cancel_one(engine),
            79..83 if !spared => self.deregister_one(engine),
            83..85 if !spared => self.deregister_pool(engine),
            85..87 => self.take_bait(engine),
            87..90 => self.ask_for_regions(engine, remote),
            90..97 => self.begin_session(engine, remote),
            _ => self.end_one_session(engine),
        }
    }

    /// Every engine says something to every other one, so that who was given up is met anew.
    pub(crate) fn meet_again(&mut self) {
        for (engine, remote) in self.pairs() {
            self.expect(engine, remote, self.engines[remote].identity.incarnation);
            self.notify(engine, remote);
        }
    }

    /// Nothing is in the way of these.
    pub(crate) fn ask_once_more(&mut self) {
        for (engine, remote) in self.pairs() {
            self.start_transfer(engine, remote, TransferOp::Write);
            self.start_transfer(engine, remote, TransferOp::Read);
            self.begin_session(engine, remote);
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let honest = |engine: &usize| !self.setting.is_hostile(*engine);
        let partners = |engine: usize| {
            self.setting.partners[engine].iter().map(move |remote| (engine, *remote))
        };
        let engines = (0..self.engines.len()).filter(honest);
        engines.flat_map(partners).filter(|(_, remote)| honest(remote)).collect()
    }

    fn is_finale(&self) -> bool {
        self.now > self.setting.calm_at + 14 * SECOND
    }

    /// Whether nothing may be in the way of what these two do with each other.
    fn are_spared(&self, engine: usize, remote: usize) -> bool {
        self.is_finale() || self.setting.is_spared(engine) && self.setting.is_spared(remote)
    }

    fn start_transfer(&mut self, engine: usize, remote: usize, op: TransferOp) {
        let count = 1 + self.random.index(40);
        let Some(local) = self.take_cells(engine, count) else { return };
        let Some(far) = self.take_cells(remote, count) else {
            return self.free_cells(&local);
        };
        let source = if op == TransferOp::Write { &local } else { &far };
        let contents: Vec<Vec<u8>> = source.iter().map(|cell| self.scribble(*cell)).collect();
        let pieces: Vec<Piece> = local
            .iter()
            .zip(&far)
            .zip(contents)
            .map(|((local, far), bytes)| {
                let (local, remote) = (self.address(*local), self.address(*far));
                Piece::new(local, remote, bytes)
            })
            .collect();
        let (ours, local_spans) = self.as_spans(&local);
        let (theirs, far_spans) = self.as_spans(&far);
        let max_run = [CELL as u32, 250, 1 << 20][self.random.index(3)];
        let options = PlanOptions { merge: self.random.percent(50), max_run };
        let plan = Plan::pair(&local_spans, &far_spans, &options).expect("spans that pair up");
        let deadline = self.deadline(engine, remote);
        let notification =
            self.random.percent(50).then(|| self.ledger.next_note_bytes(&mut self.random));
        let post = Post {
            op,
            plan: Arc::new(plan),
            local: Arc::from(ours),
            target: Target::Regions(theirs.iter().map(|region| region.id).collect()),
            notification: notification.clone(),
            layers: None,
            deadline,
        };
        let now = self.local(engine);
        self.expect(engine, remote, self.engines[remote].identity.incarnation);
        let link = self.link(engine, remote);
        link.peer.learn_regions(theirs.iter().map(|region| (region.id, region.key.clone())));
        let (serial, association) = (link.serial, link.association);
        match link.peer.post(now, post) {
            Ok(id) => {
                let id = id.expect("the plan has runs");
                let parties = [engine, remote].map(|party| (party, self.engines[party].life));
                let posted = Transfer::posted(op, parties, serial, id, deadline, self.now);
                let cells = local.into_iter().chain(far).collect();
                let due = self.are_spared(engine, remote);
                let transfer = Transfer { pieces, cells, due, ..posted };
                let index = self.ledger.add_transfer(association, transfer);
                self.report.transfers += 1;
                self.note(|| format!("{engine} posts {op:?} {id} #{index} with {remote}"));
                if let Some(bytes) = notification {
                    let note = self.record_note(engine, remote, bytes, Some(index));
                    self.ledger.transfers[index].note = Some(note);
                }
            }
            Err(cause) => {
                self.count_end(format!("{op:?} not posted: {cause}"));
                self.free_cells(&local);
                self.free_cells(&far);
            }
        }
        self.attend(engine, remote);
    }

    pub(crate) fn deadline(&mut self, engine: usize, remote: usize) -> Deadline {
        let millis = |n| Duration::from_millis(n);
        let progress = millis(self.random.within(300..4000));
        if self.are_spared(engine, remote) {
            return Deadline { progress: millis(8000), total: None };
        }
        let total = self.random.percent(40).then(|| millis(self.random.within(300..6000)));
        Deadline { progress, total }
    }

    fn notify(&mut self, engine: usize, remote: usize) {
        let bytes = self.ledger.next_note_bytes(&mut self.random);
        self.notify_bytes(engine, remote, bytes);
    }

    fn notify_bytes(&mut self, engine: usize, remote: usize, bytes: Bytes) {
        let now = self.local(engine);
        match self.link(engine, remote).peer.notify(now, bytes.clone()) {
            Ok(_) => {
                self.record_note(engine, remote, bytes, None);
            }
            Err(cause) => {
                if matches!(cause, Cause::Busy(_)) {
                    self.count(Fault::NoCredit);
                }
                self.count_end(format!("not notified: {cause}"));
            }
        }
        self.attend(engine, remote);
    }

    /// More than the other engine keeps.
    fn notify_much(&mut self, engine: usize, remote: usize) {
        if self.are_spared(engine, remote) {
            return;
        }
        for _ in 0..12 {
            let mut bytes = self.ledger.next_note_bytes(&mut self.random).to_vec();
            bytes.resize(100_000, 0x77);
            self.notify_bytes(engine, remote, Bytes::from(bytes));
        }
    }

    fn record_note(
        &mut self,
        engine: usize,
        remote: usize,
        bytes: Bytes,
        after: Option<usize>,
    ) -> usize {
        let life = self.engines[engine].life;
        let link = self.link(engine, remote);
        link.notes += 1;
        let (serial, id) = (link.serial, link.notes);
        let incarnation = link.peer.identity().map(|identity| identity.incarnation);
        let now = self.now;
        self.note(|| format!("{engine} sends notification {id} to {remote}, after #{after:?}"));
        let note = Note {
            link: serial,
            from: (engine, life),
            to: remote,
            incarnation,
            len: bytes.len(),
            after,
            due: None,
            sent: now,
            delivered: 0,
            fate: None,
            came_on: None,
        };
        self.ledger.add_note(id, note)
    }

    fn cancel_one(&mut self, engine: usize) {
        let life = self.engines[engine].life;
        let open = self.ledger.open_transfers((engine, life));
        if open.is_empty() {
            return;
        }
        let index = open[self.random.index(open.len())];
        let transfer = &self.ledger.transfers[index];
        if !transfer.due {
            let begun = transfer.has_begun();
            self.count(if begun { Fault::CancelMidway } else { Fault::CancelEarly });
            self.cancel(index);
        }
    }

    /// Cancels a transfer that has ended, which changes nothing.
    fn cancel_late(&mut self, engine: usize) {
        let life = self.engines[engine].life;
        if let Some(index) = self.ledger.last_ended((engine, life)) {
            self.count(Fault::CancelLate);
            self.cancel(index);
        }
    }

    pub(crate) fn cancel(&mut self, index: TransferIndex) {
        let transfer = &self.ledger.transfers[index];
        let (engine, _) = transfer.parties[0];
        let (id, serial, remote) = (transfer.id, transfer.link, transfer.parties[1].0);
        self.note(|| format!("{engine} cancels #{index}"));
        if let Some(link) = self.link_of(engine, remote, serial) {
            link.peer.cancel(id);
            self.attend(engine, remote);
        }
    }
}
