//! What the simulation's hostile engines need: to say and to send what no honest peer does, without
//! losing count of it themselves. Nothing that an engine may call.

use crate::id::LaneId;
use crate::proto::lanes::Sent;
use crate::proto::peer::Peer;
use crate::wire::message::Message;

impl Peer {
    /// Says anything at all, with its right number.
    pub(crate) fn say(&mut self, message: Message) {
        self.stream.send(message);
    }

    /// Counts a frame that went out on a lane without having come from here.
    pub(crate) fn count_forged(&mut self, lane: LaneId) {
        if let Some(ledger) = self.lanes.get(lane) {
            ledger.record(Sent::Void);
        }
    }
}
