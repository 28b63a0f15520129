//! What gets in the way while bytes land.

use crate::error::Refusal;
use crate::id::Association;
use crate::proto::TransferOp;
use crate::testing::sim::engine::State;
use crate::testing::sim::{Fault, World};
use crate::wire::FrameHeader;

impl World {
    /// While a call of an engine scatters bytes of this frame, its user may take the memory back
    /// from under it, by any of the ways there are.
    pub(crate) fn interfere(
        &mut self,
        engine: usize,
        remote: usize,
        by: (Association, Association),
        header: &FrameHeader,
    ) {
        let spared = self.is_calm() || self.setting.is_spared(engine);
        let hostile = self.setting.is_hostile(engine) || self.setting.is_hostile(remote);
        if spared || hostile || self.random.index(25) > 0 {
            return;
        }
        let index = self.landing_transfer(by, header);
        let transfer = &self.ledger.transfers[index];
        let (own, life) = (transfer.op == TransferOp::Read, self.engines[engine].life);
        if transfer.due {
            return;
        }
        if let Some(session) = transfer.session {
            return self.lose_session(session);
        }
        let mine = transfer.cells.iter().rev().find(|cell| cell.owner == (engine, life));
        match mine.copied() {
            Some(cell) if self.random.percent(30) => {
                self.deregister_estate(engine, cell.estate);
            }
            _ if own || self.engines[remote].state == State::Running => {
                self.count(Fault::CancelMidway);
                self.cancel(index);
            }
            _ => {}
        }
    }

    /// Whether a call that scatters finds its memory gone.
    pub(crate) fn fault_memory(&mut self, engine: usize, remote: usize) -> Result<(), Refusal> {
        let spared = self.setting.is_spared(engine) && self.setting.is_spared(remote);
        if spared || self.is_calm() || self.random.index(100) > 0 {
            return Ok(());
        }
        self.count(Fault::MemoryFault);
        Err(Refusal::MemoryFault)
    }
}
