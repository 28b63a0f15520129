//! Arguments that cannot be honoured, and bounds that are reached.

use crate::wire::WireError;

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
    /// A span given by address lies in no region, or not all of it in the same.
    #[error("span {index}: no region holds {len} bytes at {address:#x}")]
    NotInRegion {
        /// Position in the list.
        index: usize,
        /// Where it begins.
        address: u64,
        /// Its length.
        len: u64,
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
