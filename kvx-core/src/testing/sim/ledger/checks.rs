//! The checks that are made when bytes land and when notifications come.

use std::sync::Arc;

use crate::id::Association;
use crate::proto::TransferOp;
use crate::region::Region;
use crate::testing::sim::ledger::{Fate, NoteIndex, Stage, TransferIndex};
use crate::testing::sim::{Happening, MS, World};
use crate::wire::{FrameHeader, FrameKind};

impl World {
    /// A system call that scatters begins: its transfer may still land something.
    pub(crate) fn check_call(
        &mut self,
        engine: usize,
        remote: usize,
        by: (Association, Association),
        header: &FrameHeader,
    ) {
        if self.setting.is_hostile(engine) {
            return;
        }
        // What hostile engines write is checked by where it lands.
        if header.kind == FrameKind::Write && self.setting.is_hostile(remote) {
            return self.check_intruding_call(by, header);
        }
        let index = self.landing_transfer(by, header);
        let stage = self.ledger.transfers[index].stage;
        assert!(
            matches!(stage, Stage::Open | Stage::Failed),
            "a system call for #{index} begins, which is {stage:?}"
        );
    }

    /// Bytes are about to land.
    pub(crate) fn check_landing(
        &mut self,
        engine: usize,
        by: (Association, Association),
        header: &FrameHeader,
        region: &Arc<Region>,
        offset: u64,
        bytes: &[u8],
    ) {
        let index = self.landing_transfer(by, header);
        let transfer = &mut self.ledger.transfers[index];
        assert!(
            !matches!(transfer.stage, Stage::Over | Stage::Released),
            "bytes of #{index} land, which is {:?}",
            transfer.stage
        );
        assert!(!region.gate.is_drained(), "bytes of #{index} land in a region that was fenced");
        if let Some(session) = transfer.session {
            let gate = &self.ledger.sessions[session].gate;
            assert!(!gate.is_drained(), "bytes of #{index} land under a grant that was fenced");
        }
        let address = region.base() + offset;
        let write = transfer.op == TransferOp::Write;
        let mut rest = bytes;
        let mut at = address;
        while !rest.is_empty() {
            let piece = transfer.pieces.iter_mut().find_map(|piece| {
                let place = if write { piece.remote } else { piece.local };
                let from = at.checked_sub(place).filter(|from| *from < piece.bytes.len() as u64);
                Some((from? as usize, piece))
            });
            let (from, piece) =
                piece.unwrap_or_else(|| unreachable!("bytes of #{index} land at {at:#x}"));
            let count = rest.len().min(piece.bytes.len() - from);
            // The source of a transfer that failed is its user's again, who may change it.
            let right = rest[..count] == piece.bytes[from..][..count];
            let hostile = self.setting.is_hostile(transfer.parties[1].0);
            assert!(
                right || hostile || transfer.stage != Stage::Open,
                "wrong bytes of #{index} land at {at:#x} of {engine}"
            );
            piece.landed[from..][..count].fill(true);
            at += count as u64;
            rest = &rest[count..];
        }
    }

    pub(crate) fn landing_transfer(
        &self,
        (own, theirs): (Association, Association),
        header: &FrameHeader,
    ) -> TransferIndex {
        let initiator = if header.kind == FrameKind::Write { theirs } else { own };
        let found = self.ledger.find(initiator, header.transfer);
        found.unwrap_or_else(|| unreachable!("bytes of an unknown transfer land"))
    }

    /// Whether all bytes of a transfer are where they belong; nothing can be said when the engine
    /// there has another life by now.
    pub(crate) fn is_there(&self, index: TransferIndex) -> bool {
        let transfer = &self.ledger.transfers[index];
        let write = transfer.op == TransferOp::Write;
        let (engine, life) = transfer.parties[usize::from(write)];
        let hostile = transfer.parties.iter().any(|(party, _)| self.setting.is_hostile(*party));
        hostile
            || self.engines[engine].life != life
            || transfer.pieces.iter().all(|piece| {
                let address = if write { piece.remote } else { piece.local };
                self.engines[engine].memory.bytes(address, piece.bytes.len()) == &piece.bytes[..]
            })
    }

    /// A notification has come.
    pub(crate) fn hear_notification(
        &mut self,
        engine: usize,
        remote: usize,
        serial: u64,
        bytes: &[u8],
    ) {
        if self.setting.is_hostile(remote) {
            let pause = self.random.within(0..300) * MS;
            return self.after(pause, Happening::TakeStray(engine, remote, serial, bytes.len()));
        }
        let number = bytes[..8].try_into().map(u64::from_le_bytes).expect("eight bytes");
        let index = number as NoteIndex;
        let here = self.engines[engine].identity.incarnation;
        let note = &mut self.ledger.notes[index];
        note.delivered += 1;
        note.came_on = Some(serial);
        let note = &self.ledger.notes[index];
        assert_eq!(note.delivered, 1, "notification {index} came more than once");
        assert_eq!((note.from.0, note.to, note.len), (remote, engine, bytes.len()));
        assert!(note.fate != Some(Fate::NotDelivered), "{index} came and was said not to");
        let known = note.incarnation.is_none_or(|incarnation| incarnation == here);
        assert!(known, "notification {index} was meant for another life");
        let mut after_write = false;
        if let Some(transfer) = note.after {
            // Once its sender knows no more of it, the memory may be in other hands.
            let there = note.fate.is_some() || self.is_there(transfer);
            let transfer = &self.ledger.transfers[transfer];
            assert!(there && transfer.has_landed(), "notification {index} came before its data");
            after_write = transfer.op == TransferOp::Write;
        }
        if !after_write {
            let due = note.due.expect("a notification that is due");
            let last = self.ledger.last_due.insert(note.link, due);
            assert!(last < Some(due), "notification {index} was overtaken");
        }
        let pause = if self.random.percent(80) { 50 } else { 3000 };
        let pause = self.random.within(0..pause) * MS;
        self.after(pause, Happening::Take(index));
    }

    pub(crate) fn take_notification(&mut self, index: NoteIndex) {
        let note = &self.ledger.notes[index];
        let (engine, remote, len) = (note.to, note.from.0, note.len);
        if let Some(serial) = note.came_on {
            self.take_stray(engine, remote, serial, len);
        }
    }

    pub(crate) fn take_stray(&mut self, engine: usize, remote: usize, serial: u64, len: usize) {
        if let Some(link) = self.link_of(engine, remote, serial) {
            link.peer.notification_taken(len);
            self.attend(engine, remote);
        }
    }
}
