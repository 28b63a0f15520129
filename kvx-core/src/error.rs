//! What can go wrong: one error that names the operation, the peer and the cause.

mod handshake;
mod invalid;
mod refusal;
mod violation;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::id::EngineId;
use crate::wire::WireError;

pub use handshake::HandshakeError;
pub use invalid::{Invalid, Resource};
pub use refusal::Refusal;
pub use violation::{LaneError, LaneLoss, Violation};

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
    /// Publishing memory.
    Publish,
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
    /// Asking which regions a peer publishes.
    List,
    /// Reading a layout.
    Layout,
    /// Waiting for an operation that was begun before.
    Wait,
    /// Shutting an engine down.
    Shutdown,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build engine",
            Self::Register => "register memory",
            Self::Deregister => "deregister memory",
            Self::Publish => "publish memory",
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
            Self::List => "list published regions",
            Self::Layout => "layout",
            Self::Wait => "wait",
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

impl From<WireError> for Cause {
    fn from(error: WireError) -> Self {
        Self::Invalid(Invalid::Wire(error))
    }
}
