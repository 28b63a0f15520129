//! The checks on what hostile engines bring about: they may touch what they were allowed, and
//! nothing else.

use std::sync::Arc;

use crate::id::{Association, GrantId, TransferId};
use crate::region::{Region, Rights};
use crate::testing::sim::World;
use crate::testing::sim::ledger::Ledger;
use crate::testing::sim::network::LaneTicket;
use crate::transport::OutFrame;
use crate::wire::{FrameHeader, FrameKind};

impl World {
    /// Bytes that a hostile engine sent are about to land.
    pub(crate) fn check_intrusion(
        &mut self,
        engine: usize,
        ticket: LaneTicket,
        header: &FrameHeader,
        region: &Arc<Region>,
        offset: u64,
        bytes: &[u8],
    ) {
        let by = ticket.associations;
        if header.kind == FrameKind::ReadData {
            return self.check_landing(engine, by, header, region, offset, bytes);
        }
        let transfer = (by.0, by.1, header.transfer);
        let over = self.ledger.fenced.contains(&transfer);
        assert!(!over, "a hostile engine's transfer lands after its end: {:?}", header.transfer);
        assert!(!region.gate.is_drained(), "a hostile engine writes to a region that was fenced");
        let Some(grant) = header.grant else {
            let bait = self.engines[engine].belongings.is_bait(region, Rights::REMOTE_WRITE);
            assert!(bait, "a hostile engine writes where nobody let it: {:?}", region.id);
            return;
        };
        let Some(session) = self.ledger.find_session(ticket.link, grant) else {
            unreachable!("a hostile engine writes under a grant that was never given to it")
        };
        let session = &self.ledger.sessions[session];
        assert!(!session.gate.is_drained(), "a hostile engine writes under a fenced grant");
        let address = region.base() + offset;
        assert!(session.covers(address, bytes.len() as u64), "a hostile engine leaves its grant");
    }

    /// A frame of a hostile engine's WRITE has landed. When all have, nothing of it lands again.
    pub(crate) fn intrusion_landed(
        &mut self,
        by: (Association, Association),
        header: &FrameHeader,
    ) {
        let transfer = (by.0, by.1, header.transfer);
        let landed = self.ledger.intrusions.entry(transfer).or_default();
        landed.extend(header.first_run..header.first_run + header.runs);
        if landed.len() == header.total_runs as usize {
            self.ledger.intrusions.remove(&transfer);
            self.ledger.complete.insert(transfer);
        }
    }

    /// A call begins that scatters bytes of a hostile engine's WRITE.
    pub(super) fn check_intruding_call(
        &self,
        by: (Association, Association),
        header: &FrameHeader,
    ) {
        let complete = self.ledger.complete.contains(&(by.0, by.1, header.transfer));
        assert!(!complete, "a call begins for a complete transfer: {:?}", header.transfer);
    }

    /// A frame is about to be filled from an engine's memory.
    pub(crate) fn check_source(&mut self, engine: usize, remote: usize, frame: &OutFrame) {
        let OutFrame::ReadData(answer) = frame else { return };
        if self.setting.is_hostile(engine) {
            return;
        }
        for region in &answer.regions {
            let belongings = &self.engines[engine].belongings;
            let right = region.rights.contains(Rights::REMOTE_READ);
            let bait = belongings.is_bait(region, Rights::REMOTE_READ);
            let allowed = right && (bait || !self.setting.is_hostile(remote));
            assert!(allowed, "{remote} reads what {engine} never let it: {:?}", region.id);
        }
    }
}

impl Ledger {
    /// An owner has said that nothing of this transfer lands any more. `by`: the associations as
    /// the initiator has them, its own first.
    pub(crate) fn fenced_for(&mut self, by: (Association, Association), transfer: TransferId) {
        self.fenced.insert((by.1, by.0, transfer));
    }

    /// Grants that the receivers of these links have given.
    pub(crate) fn grants_of(&self, links: &[u64]) -> Vec<GrantId> {
        let of = |link: &u64| {
            let range = (*link, GrantId(0))..=(*link, GrantId(u64::MAX));
            self.sessions_by_grant.range(range).map(|((_, grant), _)| *grant)
        };
        links.iter().flat_map(of).collect()
    }

    /// Whether a grant stands that was given on this link.
    pub(crate) fn is_granted(&self, link: u64, grant: GrantId) -> bool {
        let session = self.find_session(link, grant);
        session.is_some_and(|session| self.sessions[session].gate.is_open())
    }
}
