//! The bytes that engines exchange: little-endian, bounded, versioned. PROTOCOL.md describes them.
//!
//! Parsing is all that happens here: what comes out of `decode` keeps the rules that its types'
//! docs state, and nothing from outside makes it panic or allocate beyond the bytes that are
//! there. Whether a message fits the state of the conversation, [`crate::proto`] decides.

mod codec;
mod error;
pub mod frame;
pub mod handshake;
mod layout;
pub mod message;
pub mod metadata;

pub use error::WireError;
pub use frame::{
    FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameFlags, FrameHeader, FrameKind, FrameRuns, RawSpan,
    WireSpan, decode_table, table_crc,
};

/// The newest protocol version spoken here.
pub const VERSION: u16 = 1;
/// The oldest protocol version spoken here.
pub const VERSION_MIN: u16 = 1;
/// A control message's bytes at most, its header included.
pub const MAX_MESSAGE: usize = 1 << 20;
/// A frame's table entries at most.
pub const MAX_FRAME_SPANS: usize = 1024;
/// A frame's payload bytes at most.
pub const MAX_FRAME_PAYLOAD: u32 = 4 << 20;
/// A transfer's runs at most.
pub const MAX_RUNS: u32 = 1 << 24;
/// A notification's bytes at most.
pub const MAX_NOTIFICATION: usize = 16 << 20;
/// READ spans asked for and not yet answered, a peer.
pub const READ_CREDIT: u32 = 65_536;
/// Addresses that an engine tells of itself, at most.
pub const MAX_ADDRESSES: usize = 16;
/// Transports that an engine offers, at most.
pub const MAX_TRANSPORTS: usize = 16;
