//! Which lanes a peer has: asked for by the side that dials, opened, failed, closed.

use std::time::Duration;

use crate::error::{HandshakeError, LaneError, LaneLoss, Resource};
use crate::id::{Association, LaneId};
use crate::proto::id_set::IdSet;
use crate::proto::peer::{Event, Peer};
use crate::time::Time;
use crate::wire::message::Message;

/// Lanes of one peer at most, whichever side opens them.
const MAX_LANES: usize = 64;
/// Those and the ones that have ended at one side only: a side that never says that it has stopped
/// must not make the other keep more and more of them.
const MAX_KEPT: usize = 4 * MAX_LANES;

/// Which lanes to open. Only the side that dialed the control connection opens any.
#[derive(Debug)]
pub(super) struct LaneOpener {
    /// Whether this side opens them.
    pub(super) dialing: bool,
    /// Lanes asked for so far.
    pub(super) last: u32,
    /// Those that are being dialed.
    pub(super) opening: Vec<LaneId>,
    /// Not before this point: the last attempt failed.
    pub(super) retry_at: Time,
    pub(super) failures: u32,
    /// Lanes that the peer retired before they were opened here: they must never be.
    pub(super) barred: IdSet,
}

impl LaneOpener {
    pub(super) fn new() -> Self {
        Self {
            dialing: false,
            last: 0,
            opening: Vec::new(),
            retry_at: Time::ZERO,
            failures: 0,
            barred: IdSet::new(4096),
        }
    }

    pub(super) fn is_barred(&self, lane: LaneId) -> bool {
        self.barred.contains(u64::from(lane.0))
    }

    /// The peer has retired a lane that never opened here.
    pub(super) fn bar(&mut self, lane: LaneId) -> Result<(), Resource> {
        self.barred.insert(u64::from(lane.0), 1).map(drop)
    }

    /// A lane was of no use: the next one comes later, each time. Those that go together count once.
    fn back_off(&mut self, now: Time) {
        if now < self.retry_at {
            return;
        }
        let delay = Duration::from_millis(20 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now + delay;
    }

    /// Both sides begin anew: so does the peer's counting of lanes.
    pub(super) fn restart(&mut self) {
        self.barred = Self::new().barred;
    }
}

impl Peer {
    /// Whether the peer may open this lane, which must name both associations.
    ///
    /// # Errors
    /// What to reject the lane with.
    pub fn check_lane(
        &self,
        theirs: Association,
        own: Association,
        lane: LaneId,
    ) -> Result<(), HandshakeError> {
        let known = self.own == own && self.theirs == Some(theirs);
        if !known
            || lane.0 & 1 != self.lane_parity(false)
            || self.dead.is_some()
            || self.opener.dialing
        {
            return Err(HandshakeError::NoControl);
        }
        if self.opener.is_barred(lane) || self.lanes.contains(lane) {
            return Err(HandshakeError::Duplicate);
        }
        if self.lanes.usable().count() >= MAX_LANES || self.lanes.len() >= MAX_KEPT {
            return Err(HandshakeError::Busy);
        }
        Ok(())
    }

    /// A lane is open, on both ends as far as this side knows.
    ///
    /// # Errors
    /// It must not be: the peer died or retired the lane while its handshake was going on.
    pub fn handle_lane_opened(&mut self, lane: LaneId) -> Result<(), HandshakeError> {
        self.opener.opening.retain(|opening| *opening != lane);
        if self.dead.is_some() || self.opener.is_barred(lane) {
            return Err(HandshakeError::NoControl);
        }
        if self.lanes.contains(lane) {
            return Err(HandshakeError::Duplicate);
        }
        self.lanes.open(lane);
        Ok(())
    }

    /// A lane that [`Event::OpenLane`] asked for could not be opened. It is tried again under
    /// another name, later each time.
    pub fn handle_lane_failed(&mut self, now: Time, lane: LaneId) {
        self.opener.opening.retain(|opening| *opening != lane);
        self.opener.back_off(now);
    }

    /// A lane has ended here: it touches no memory any more. What it carried waits for the peer
    /// to say what has landed, and then goes out on other lanes.
    pub fn handle_lane_closed(&mut self, now: Time, lane: LaneId, cause: LaneError) {
        let Some(ledger) = self.lanes.get(lane) else { return };
        if ledger.is_closed() {
            return;
        }
        ledger.set_closed();
        let processed = ledger.processed();
        // One that is hung up on as soon as it is open is no better than one that does not open;
        // but a road that breaks takes all lanes along, and some that have carried nothing yet.
        if ledger.has_carried() {
            self.opener.failures = 0;
        } else if self.opener.failures < u32::from(self.config.lanes) {
            self.opener.failures += 1;
        } else {
            self.opener.back_off(now);
        }
        self.stream.send(Message::LaneRetired { lane, processed });
        self.lanes.remove_if_ended(lane);
        if !matches!(cause, LaneError::Closed) {
            self.events.push_back(Event::LaneLost(LaneLoss { lane, cause }));
        }
        self.open_lanes(now);
    }

    /// The last bit of the names of lanes that this side dials, or the other: either side may come
    /// to dial in the life of a pair, and a name is never used twice.
    fn lane_parity(&self, dialed_here: bool) -> u32 {
        let above = self.theirs.is_some_and(|theirs| self.own > theirs);
        u32::from(above == dialed_here)
    }

    /// Asks for the lanes that are missing.
    pub(super) fn open_lanes(&mut self, now: Time) {
        if now < self.opener.retry_at {
            return;
        }
        for _ in 0..self.missing_lanes() {
            self.opener.last += 1;
            let lane = LaneId(self.opener.last << 1 | self.lane_parity(true));
            self.opener.opening.push(lane);
            self.events.push_back(Event::OpenLane(lane));
        }
    }

    /// How many lanes are to be opened, now or when the last failure is long enough ago.
    pub(super) fn missing_lanes(&self) -> usize {
        let ready = self.opener.dialing && self.stream.is_resumed() && self.is_connected();
        if !ready || self.dead.is_some() || self.lanes.len() >= MAX_KEPT {
            return 0;
        }
        let have = self.lanes.usable().count() + self.opener.opening.len();
        usize::from(self.config.lanes.max(1)).saturating_sub(have)
    }
}
