//! How a peer broke the protocol, and how lanes end.

use std::io;
use std::sync::Arc;

use crate::error::Resource;
use crate::id::LaneId;
use crate::wire::WireError;

/// How a peer broke the protocol.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that do not parse.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A control message out of sequence.
    #[error("control message {got} came where {expected} was due")]
    Sequence {
        /// The number that was due.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("acknowledged {got} of {sent}")]
    Acknowledged {
        /// What had been sent.
        sent: u64,
        /// What was acknowledged.
        got: u64,
    },
    /// A message that does not fit the state.
    #[error("{message} does not fit the state: {why}")]
    Unexpected {
        /// The message.
        message: &'static str,
        /// What it contradicts.
        why: &'static str,
    },
    /// The peer took more than it was given.
    #[error("exceeded the bound on {0}")]
    Overrun(Resource),
}

/// How a lane ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    /// The peer ended it, or this side did on purpose.
    #[error("closed")]
    Closed,
    /// The peer broke the frame rules.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// This transport cannot reach the peer's memory, and another must.
    #[error("no way to the peer's memory: {0}")]
    Unreachable(Arc<str>),
    /// Registered memory went away in the middle of a frame.
    #[error("source memory went away inside a frame")]
    SourceGone,
    /// The network or the hardware failed.
    #[error("{0}")]
    Io(#[from] Arc<io::Error>),
}

/// A lane that ended, with its cause: for events and logs.
#[derive(Clone, Debug)]
pub struct LaneLoss {
    /// Which lane.
    pub lane: LaneId,
    /// Why.
    pub cause: LaneError,
}
