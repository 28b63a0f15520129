//! Why a handshake failed.

use crate::id::EngineId;
use crate::wire::WireError;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side does not speak kvx.
    #[error("not a kvx peer")]
    NotKvx,
    /// Bytes that do not parse.
    #[error("malformed: {0}")]
    Malformed(#[from] WireError),
    /// No version in common.
    #[error("no common version: here {ours_min} to {ours_max}, there {theirs_min} to {theirs_max}")]
    Version {
        /// The oldest version spoken here.
        ours_min: u16,
        /// The newest version spoken here.
        ours_max: u16,
        /// The oldest version spoken there.
        theirs_min: u16,
        /// The newest version spoken there.
        theirs_max: u16,
    },
    /// One side requires an auth key and the other has none, or they use different kinds.
    #[error("the sides authenticate differently: here {ours}, there {theirs}")]
    Method {
        /// How this side authenticates.
        ours: &'static str,
        /// How the other does.
        theirs: &'static str,
    },
    /// The proof does not match: the auth keys differ, or the metadata is of another life.
    #[error("the auth keys, or the secrets of the metadata, differ")]
    WrongKey,
    /// Another engine answers at this address.
    #[error("expected engine {expected}, found {found}")]
    WrongEngine {
        /// Who was looked for.
        expected: EngineId,
        /// Who answered.
        found: EngineId,
    },
    /// Both ends have the same engine id: an engine that reached itself, or two of one name.
    #[error("the peer has this engine's own id")]
    SameEngine,
    /// A connection of this pair exists that stays.
    #[error("another connection of this pair stays")]
    Duplicate,
    /// A live incarnation may be superseded by the same authenticated identity only.
    #[error("the name belongs to a live engine")]
    NameTaken,
    /// The control connection that the lane belongs to is not there.
    #[error("no control connection for the lane")]
    NoControl,
    /// The other side is at its bounds.
    #[error("the peer is busy")]
    Busy,
    /// The other side is shutting down.
    #[error("the peer is shutting down")]
    ShuttingDown,
    /// The connection ended inside the handshake.
    #[error("the connection ended")]
    Ended,
    /// The handshake took too long.
    #[error("took too long")]
    Timeout,
}
