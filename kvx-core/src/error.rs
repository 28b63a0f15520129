//! What can go wrong: one error that names the operation, the peer and the cause.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{EngineId, LaneId};
use crate::wire::WireError;

/// The result of this crate's and the engine's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation: what was attempted, with whom, and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}{}: {cause}", PeerSuffix(.peer))]
pub struct Error {
    /// What was attempted.
    pub operation: Operation,
    /// The peer concerned, if there was one.
    pub peer: Option<PeerName>,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

impl Error {
    /// An error without a peer.
    pub fn new(operation: Operation, cause: impl Into<Cause>) -> Self {
        Self { operation, peer: None, cause: cause.into() }
    }

    /// The same error, with the peer named.
    pub fn with_peer(mut self, peer: impl Into<PeerName>) -> Self {
        self.peer = Some(peer.into());
        self
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        self.cause.is_retryable()
    }
}

/// What was attempted when an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Building an engine.
    Build,
    /// Registering memory.
    Register,
    /// Deregistering memory.
    Deregister,
    /// Allocating engine memory.
    Allocate,
    /// Connecting to a peer, or adding it from its metadata.
    Connect,
    /// Planning a transfer.
    Prepare,
    /// A one-sided write.
    Write,
    /// A one-sided read.
    Read,
    /// Cancelling a transfer.
    Cancel,
    /// Sending a notification.
    Notify,
    /// Sending a KV cache.
    Send,
    /// Receiving a KV cache.
    Receive,
    /// Asking or telling a directory.
    Directory,
    /// Reading a layout.
    Layout,
    /// Shutting an engine down.
    Shutdown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build engine",
            Self::Register => "register memory",
            Self::Deregister => "deregister memory",
            Self::Allocate => "allocate memory",
            Self::Connect => "connect",
            Self::Prepare => "prepare transfer",
            Self::Write => "write",
            Self::Read => "read",
            Self::Cancel => "cancel",
            Self::Notify => "notify",
            Self::Send => "send KV cache",
            Self::Receive => "receive KV cache",
            Self::Directory => "directory",
            Self::Layout => "layout",
            Self::Shutdown => "shut down",
        })
    }
}

/// How errors and logs name a peer: its name, else its address, with the id once it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerName {
    label: Arc<str>,
    id: Option<EngineId>,
}

impl PeerName {
    /// A peer of which only the label (an address, usually) is known.
    pub fn unverified(label: impl Into<Arc<str>>) -> Self {
        Self { label: label.into(), id: None }
    }

    /// A peer whose identity was verified in a handshake.
    pub fn verified(label: impl Into<Arc<str>>, id: EngineId) -> Self {
        Self { label: label.into(), id: Some(id) }
    }

    /// The identity, once verified.
    pub fn id(&self) -> Option<EngineId> {
        self.id
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{} ({id})", self.label),
            None => f.write_str(&self.label),
        }
    }
}

struct PeerSuffix<'a>(&'a Option<PeerName>);

impl fmt::Display for PeerSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => write!(f, ", peer {peer}"),
            None => Ok(()),
        }
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing moved for the time that was allowed, or the total time was used up.
    #[error("deadline: {} for {after:?}", if *.total { "not finished" } else { "no progress" })]
    Deadline {
        /// The time that was allowed.
        after: Duration,
        /// Whether it was the total time that ran out.
        total: bool,
    },
    /// The peer was restarted: another incarnation answers under its name.
    #[error("the peer was restarted")]
    PeerRestarted,
    /// The peer said goodbye.
    #[error("the peer shut down")]
    PeerClosed,
    /// The peer no longer knows us: it removed this engine, and begins anew.
    #[error("the peer removed this engine")]
    PeerReset,
    /// No road to the peer came back in time.
    #[error("the peer is unreachable for {after:?}")]
    PeerLost {
        /// How long it has been silent.
        after: Duration,
    },
    /// The local engine removed the peer.
    #[error("the peer was removed here")]
    PeerRemoved,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(#[from] Violation),
    /// The owner of the memory refused the access.
    #[error("refused by the peer: {0}")]
    Refused(#[from] Refusal),
    /// The handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The transfer was cancelled here.
    #[error("cancelled, {0}")]
    Cancelled(Fence),
    /// The session was aborted.
    #[error("aborted by the {by}: {reason}")]
    Aborted {
        /// Who aborted.
        by: Side,
        /// In the words of the one who did.
        reason: Arc<str>,
    },
    /// A region that the transfer uses was deregistered here.
    #[error("the region was deregistered")]
    RegionClosed,
    /// A bound that protects memory is reached; later calls may pass.
    #[error("busy: {0}")]
    Busy(Resource),
    /// The caller's arguments cannot be honoured.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// What was asked for is not available here.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The engine has been shut down.
    #[error("the engine is shut down")]
    ShutDown,
    /// The process was forked after the engine was built; engines do not cross a fork.
    #[error("this process was forked from the one that built the engine")]
    Forked,
    /// Memory for the operation could not be had.
    #[error("out of memory: {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// A notification left this engine, and whether the peer's user has it cannot be known.
    #[error("whether it was delivered is unknown: {0}")]
    DeliveryUnknown(#[source] Box<Cause>),
    /// All lanes to the peer failed and no transport is left.
    #[error("no transport is left for the peer")]
    NoTransport,
    /// A system call failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, for example "bind 127.0.0.1:8998".
        action: Arc<str>,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

impl Cause {
    /// A failed system call, with what was being done.
    pub fn io(action: impl Into<Arc<str>>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source: Arc::new(source) }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Deadline { .. }
            | Self::PeerRestarted
            | Self::PeerReset
            | Self::PeerLost { .. }
            | Self::Busy(_)
            | Self::OutOfMemory { .. }
            | Self::NoTransport => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::PeerClosed
            | Self::PeerRemoved
            | Self::PeerMisbehaved(_)
            | Self::Handshake(_)
            | Self::Cancelled(_)
            | Self::Aborted { .. }
            | Self::RegionClosed
            | Self::DeliveryUnknown(_)
            | Self::Invalid(_)
            | Self::Unsupported(_)
            | Self::ShutDown
            | Self::Forked
            | Self::Io { .. } => false,
        }
    }
}

/// What the target of a cancelled WRITE has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// The memory's owner has confirmed: nothing of the transfer lands any more.
    Fenced,
    /// The deadline came before the owner's word. Nothing lands after the deadline either, for
    /// every frame carries an expiry that the owner enforces.
    Unfenced,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "fenced",
            Self::Unfenced => "unfenced",
        })
    }
}

/// One of the two parties of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The prefill side.
    Sender,
    /// The decode side.
    Receiver,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
        })
    }
}

/// Why the owner of memory refused an access. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u16)]
#[non_exhaustive]
pub enum Refusal {
    /// The slot names no region.
    #[error("no region has this slot")]
    UnknownSlot = 1,
    /// The region was deregistered.
    #[error("the region was deregistered")]
    RegionClosed = 2,
    /// The span reaches beyond the region.
    #[error("the span lies outside the region")]
    OutOfBounds = 3,
    /// The region allows no remote access of this kind.
    #[error("the region does not allow this access")]
    NoRight = 4,
    /// The region key is wrong.
    #[error("the region key is wrong")]
    WrongKey = 5,
    /// The span lies outside the grant, or the grant is gone.
    #[error("the span is not granted")]
    NotGranted = 6,
    /// The frame came after its expiry.
    #[error("the frame came after its expiry")]
    Expired = 7,
    /// The transfer was fenced before.
    #[error("the transfer is fenced")]
    Fenced = 8,
    /// A bound that protects the owner's memory is reached.
    #[error("the owner's bounds are reached")]
    Busy = 9,
    /// Frames of one transfer contradict each other.
    #[error("the frames of the transfer contradict each other")]
    Inconsistent = 10,
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum = 11,
    /// The memory could not be reached (EFAULT, a failed device copy).
    #[error("the memory could not be reached")]
    MemoryFault = 12,
}

impl Refusal {
    /// Every refusal, in the order of the numbers.
    pub const ALL: [Self; 12] = [
        Self::UnknownSlot,
        Self::RegionClosed,
        Self::OutOfBounds,
        Self::NoRight,
        Self::WrongKey,
        Self::NotGranted,
        Self::Expired,
        Self::Fenced,
        Self::Busy,
        Self::Inconsistent,
        Self::Checksum,
        Self::MemoryFault,
    ];

    /// The refusal of this wire number.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// The wire number.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the same access may be allowed later.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Expired | Self::Busy | Self::Checksum)
    }
}

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
    /// The proof does not match: the auth keys differ.
    #[error("the auth keys differ")]
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

/// What is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Resource {
    /// Bytes kept for one peer (256 MiB by default).
    #[error("bytes kept for the peer")]
    PeerBytes,
    /// Notification bytes that the peer's user has not yet taken.
    #[error("notification credit")]
    NotificationCredit,
    /// Spans of READ requests not yet answered (65,536).
    #[error("READ credit")]
    ReadCredit,
    /// Transfers open at once.
    #[error("open transfers")]
    Transfers,
    /// Regions that may be registered, or slots opened.
    #[error("regions")]
    Regions,
    /// Grants open at once.
    #[error("open grants")]
    Grants,
    /// Sessions waiting for their other side.
    #[error("waiting sessions")]
    Sessions,
    /// Connections, authenticated or not.
    #[error("connections")]
    Connections,
    /// Entries of a directory.
    #[error("directory entries")]
    DirectoryEntries,
}

/// Arguments that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A region id that names nothing, or nothing any more.
    #[error("unknown region")]
    UnknownRegion,
    /// A handle of a transfer, peer or session that names nothing any more.
    #[error("unknown handle")]
    UnknownHandle,
    /// An engine id or name that names no peer.
    #[error("unknown peer {0}")]
    UnknownPeer(String),
    /// A span reaches beyond its region.
    #[error("span {index}: {offset} + {len} lies outside the region of {region_len} bytes")]
    OutOfBounds {
        /// Position in the list.
        index: usize,
        /// The span's offset.
        offset: u64,
        /// The span's length.
        len: u64,
        /// The region's length.
        region_len: u64,
    },
    /// Lists that must pair up do not.
    #[error("{what}: {left} against {right}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// The left count or length.
        left: u64,
        /// The right count or length.
        right: u64,
    },
    /// An index points beyond its list.
    #[error("{what} {index} is not below {len}")]
    Index {
        /// What the index counts.
        what: &'static str,
        /// The index.
        index: u64,
        /// The number of entries.
        len: u64,
    },
    /// A field of a layout, an option or a blob has a value that makes no sense.
    #[error("{field}: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Zero bytes where at least one is needed.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A text option or environment variable that does not parse.
    #[error("{name}={value:?}: {why}")]
    Setting {
        /// The option's or variable's name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What was expected.
        why: String,
    },
    /// Bytes from outside that do not parse.
    #[error(transparent)]
    Wire(#[from] WireError),
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

impl From<WireError> for Cause {
    fn from(error: WireError) -> Self {
        Self::Invalid(Invalid::Wire(error))
    }
}
