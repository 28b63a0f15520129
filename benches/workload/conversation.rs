//! Two peers whose frames are handed from one to the other: the protocol's whole work for a
//! transfer, and not a byte of payload, no socket and no thread.

use std::sync::Arc;

use kvx_core::id::{LaneId, RegionId};
use kvx_core::plan::Plan;
use kvx_core::proto::{Deadline, Event, PeerConfig, Post, Target, TransferOp};
use kvx_core::region::Region;
use kvx_core::testing::Pair;
use kvx_core::transport::{Admission, Landing, OutFrame, PlannedFrame};
use kvx_core::wire::WireSpan;

use crate::regions::register;

/// Two connected peers with one lane, and as many regions on each side as plans may name.
pub(crate) struct Conversation {
    pair: Pair,
    lane: LaneId,
    local: Arc<[Arc<Region>]>,
    remote: Arc<[RegionId]>,
    /// Reused from frame to frame, as a lane does.
    landing: Landing,
    table: Vec<WireSpan>,
}

impl Conversation {
    /// Regions on each side, and their slots known.
    pub(crate) fn new(regions: usize) -> Self {
        let mut pair = Pair::connected(PeerConfig { lanes: 1, ..PeerConfig::default() });
        let [ours, theirs] = [0, 1].map(|side| {
            let registry = &pair.sides[side].registry;
            (0..regions as u64).map(|index| register(registry, index)).collect::<Vec<_>>()
        });
        let keys = theirs.iter().map(|region| (region.id, region.key.clone()));
        pair.sides[0].peer.learn_regions(keys);
        let remote: Arc<[_]> = theirs.iter().map(|region| region.id).collect();
        pair.sides[0].peer.open_remote_regions(&remote).expect("regions of a live peer");
        pair.settle();
        let lane = pair.lanes(0)[0];
        let (landing, table) = (Landing::default(), Vec::new());
        Self { pair, lane, local: ours.into(), remote, landing, table }
    }

    /// Posts a transfer.
    pub(crate) fn post(&mut self, op: TransferOp, plan: &Arc<Plan>) {
        let post = Post {
            op,
            plan: Arc::clone(plan),
            local: Arc::clone(&self.local),
            target: Target::Regions(Arc::clone(&self.remote)),
            notification: None,
            layers: None,
            deadline: Deadline::default(),
        };
        let posted = self.pair.sides[0].peer.post(self.pair.now, post);
        posted.expect("a peer that is alive").expect("a plan with runs");
    }

    /// Carries frames to and fro until the posted transfers have ended. Returns how many did.
    pub(crate) fn carry(&mut self) -> usize {
        while self.turn(0) | self.turn(1) {}
        let mut ended = 0;
        for side in &mut self.pair.sides {
            while let Some(event) = side.peer.poll_event() {
                if let Event::TransferEnded { outcome, .. } = event {
                    outcome.expect("nothing is in its way");
                    ended += 1;
                }
            }
        }
        ended
    }

    /// Hands all frames that side `from` has to the other.
    fn turn(&mut self, from: usize) -> bool {
        let now = self.pair.now;
        let mut any = false;
        while let Some(frame) = self.pair.sides[from].peer.next_frame(now, self.lane) {
            any = true;
            let to = &mut self.pair.sides[1 - from].peer;
            let header = match &frame {
                OutFrame::Ack(ack) => {
                    to.handle_ack(now, self.lane, ack).expect("an honest peer");
                    continue;
                }
                OutFrame::Write(frame) | OutFrame::ReadRequest(frame) => {
                    list(frame, &mut self.table);
                    frame.header
                }
                OutFrame::ReadData(frame) => {
                    self.table.clear();
                    frame.header
                }
            };
            let landing = &mut self.landing;
            let admitted = to.handle_frame(now, self.lane, &header, &self.table, landing);
            if admitted.expect("an honest peer") == Admission::Land {
                to.handle_frame_finished(now, self.lane, &header, Ok(()));
            }
        }
        any
    }
}

/// The table of a frame, as the other side reads it.
fn list(frame: &PlannedFrame, table: &mut Vec<WireSpan>) {
    table.clear();
    let first = frame.header.first_run as usize;
    let runs = frame.plan.runs(first..first + frame.header.runs as usize);
    table.extend(runs.map(|run| WireSpan {
        slot: frame.slots[run.remote as usize],
        len: run.len,
        offset: run.remote_offset,
    }));
}
