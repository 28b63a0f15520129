//! The link's lanes: what they ask of the protocol, and how they are woken, opened and closed.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use kvx_core::error::{HandshakeError, LaneError, Refusal, Violation};
use kvx_core::id::LaneId;
use kvx_core::time::Time;
use kvx_core::transport::{Admission, Landing, Lane, LaneHost, LaneOpen, OutFrame, Transport};
use kvx_core::wire::{FrameHeader, WireSpan};

use super::{Lanes, Link, MAX_DOOMED};
use crate::clock;

impl LaneHost for Link {
    fn now(&self) -> Time {
        clock::now()
    }

    fn next_frame(&self, lane: LaneId) -> Option<OutFrame> {
        let mut core = self.lock();
        let frame = core.protocol.next_frame(clock::now(), lane);
        let messages = core.protocol.has_messages();
        drop(core);
        if messages {
            self.output.notify_one();
        }
        frame
    }

    fn frame_arrived(
        &self,
        lane: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        let now = clock::now();
        self.with(|core| core.protocol.handle_frame(now, lane, header, table, landing))
    }

    fn frame_finished(&self, lane: LaneId, header: &FrameHeader, outcome: Result<(), Refusal>) {
        let now = clock::now();
        self.with(|core| core.protocol.handle_frame_finished(now, lane, header, outcome));
    }

    fn acknowledged(&self, lane: LaneId, ack: &FrameHeader) -> Result<(), Violation> {
        let now = clock::now();
        self.with(|core| core.protocol.handle_ack(now, lane, ack))
    }

    fn closed(&self, lane: LaneId, cause: LaneError) {
        self.lanes().open.remove(&lane);
        let now = clock::now();
        self.with(|core| core.protocol.handle_lane_closed(now, lane, cause));
    }
}

impl Link {
    /// Hands a lane that both sides have proved to its transport.
    ///
    /// # Errors
    /// The peer has died or retired the lane meanwhile, or the transport cannot open it.
    pub(crate) fn open_lane(
        self: &Arc<Self>,
        transport: &dyn Transport,
        open: LaneOpen,
    ) -> Result<(), LaneOpenError> {
        let id = open.lane;
        self.with(|core| core.protocol.handle_lane_opened(id))?;
        let host: Arc<dyn LaneHost> = Arc::clone(self) as Arc<dyn LaneHost>;
        let lane = match transport.open(open, host) {
            Ok(lane) => lane,
            Err(cause) => {
                let now = clock::now();
                self.with(|core| core.protocol.handle_lane_closed(now, id, cause.clone()));
                return Err(LaneOpenError::Transport(cause));
            }
        };
        let mut lanes = self.lanes();
        let doomed = lanes.doomed.iter().position(|doomed| *doomed == id);
        match doomed {
            Some(index) => {
                lanes.doomed.remove(index);
                drop(lanes);
                lane.close(LaneError::Closed);
            }
            None => {
                lanes.open.insert(id, Arc::clone(&lane));
                drop(lanes);
                // Its end may have been told before it was entered.
                if !self.lock().protocol.is_lane_open(id) {
                    self.lanes().open.remove(&id);
                }
                lane.wake();
            }
        }
        Ok(())
    }

    /// Closes a lane, or sees to it that it is closed as soon as its transport gives it out.
    pub(super) fn close_lane(&self, id: LaneId) {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.open.remove(&id) {
            drop(lanes);
            lane.close(LaneError::Closed);
            return;
        }
        if lanes.doomed.len() >= MAX_DOOMED {
            lanes.doomed.pop_front();
        }
        lanes.doomed.push_back(id);
    }

    /// The lane whose turn it is to carry a posting thread's frames.
    pub(super) fn next_lane(&self) -> Option<Arc<dyn Lane>> {
        let lanes = self.lanes();
        let count = lanes.open.len().max(1);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
        lanes.open.values().nth(turn).cloned()
    }

    /// Tells every lane that there may be frames.
    pub(super) fn wake_lanes(&self) {
        let lanes: Vec<Arc<dyn Lane>> = self.lanes().open.values().cloned().collect();
        lanes.iter().for_each(|lane| lane.wake());
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a lane was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneOpenError {
    /// The peer does not want it any more.
    #[error(transparent)]
    Unwanted(#[from] HandshakeError),
    /// The transport could not.
    #[error(transparent)]
    Transport(LaneError),
}
