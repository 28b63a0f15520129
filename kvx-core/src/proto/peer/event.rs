//! What a peer tells whoever drives it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, LaneLoss, Side};
use crate::id::{GrantId, LaneId, NotificationId, SessionKey, TransferId};
use crate::proto::grants::GrantReceived;
use crate::proto::notify::Delivery;
use crate::proto::outbound::TransferReport;
use crate::region::Gate;
use crate::wire::message::{DirectoryEntry, RankKey};
use crate::wire::metadata::RegionDescription;

/// What happened, for whoever drives the peer.
#[derive(Debug)]
pub enum Event {
    /// Both sides have agreed where to go on: everything flows from here.
    Ready,
    /// The control connection is gone; what is outstanding waits for the next.
    Disconnected,
    /// Nothing was heard for a while.
    Suspect(Duration),
    /// A suspect peer was heard of again.
    Recovered,
    /// Open a lane under this name: dial, prove, then `Peer::handle_lane_opened`, or
    /// `Peer::handle_lane_failed`.
    OpenLane(LaneId),
    /// The peer has stopped this lane: close it.
    CloseLane(LaneId),
    /// A lane ended for another reason than being closed on purpose.
    LaneLost(LaneLoss),
    /// A transfer has reached its terminal state.
    TransferEnded {
        /// Which.
        transfer: TransferId,
        /// How it ended.
        outcome: Result<TransferReport, Cause>,
        /// READ: own memory is fenced once this gate is drained, which is to be waited for before
        /// the user is told.
        fence: Option<Arc<Gate>>,
    },
    /// The fate of an own notification is settled; with the transfer that it was posted with, if
    /// any. That transfer's own end is told apart, before or after.
    NotificationSettled(NotificationId, Delivery, Option<TransferId>),
    /// A notification from the peer is due. Give the credit back by
    /// `Peer::notification_taken` when the user has it.
    Notification(Bytes),
    /// A receiver lets us write.
    Granted(Box<GrantReceived>),
    /// Layers of a session have arrived here.
    LayersArrived(GrantId, Range<u32>),
    /// A session is complete here: every byte is in memory.
    SessionEnded(GrantId, SessionKey, Bytes),
    /// The receiver of a session knows that all was posted (`Peer::end_session`).
    SessionSettled(GrantId, SessionKey),
    /// The other side of a session, or its death, ended it. For a receiver's session (`grant` was
    /// given here), memory is fenced once the gate that `Peer::grant` returned is drained.
    SessionAborted {
        /// Which session.
        session: SessionKey,
        /// Its grant, if it has one.
        grant: Option<GrantId>,
        /// Why.
        cause: Cause,
        /// Which side of the session is here.
        here: Side,
    },
    /// The peer tells this engine's directory where a rank is.
    DirectoryPut(RankKey, DirectoryEntry),
    /// The peer asks this engine's directory.
    DirectoryAsked {
        /// The peer's number for the question.
        request: u64,
        /// The rank.
        rank: RankKey,
        /// How long the answer may wait.
        wait: Duration,
    },
    /// The peer's directory answers.
    DirectoryAnswered {
        /// Our number for the question.
        request: u64,
        /// Where the rank is, if it is known.
        entry: Option<DirectoryEntry>,
    },
    /// The peer has told which regions it publishes, or never will (`Peer::list_regions`).
    RegionsListed {
        /// Our number for the question.
        question: u64,
        /// The regions, oldest first.
        regions: Result<Vec<RegionDescription>, Cause>,
    },
    /// The peer is over: everything outstanding has ended with this cause (the events came
    /// before). Nothing more comes.
    Dead(Cause),
}
